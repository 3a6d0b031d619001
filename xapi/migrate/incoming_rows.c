#include "xapi/migrate/incoming_rows.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/incoming_disks.h"

LOG_MODULE(incoming);

/* --- the ledger's note ----------------------------------------------------------------------------------------------- */
void incoming_read(struct arena *a, const struct ledger_row *row, struct incoming_move *m)
{
    const struct value *vdis = value_get(&row->note, "vdis"), *vbds = value_get(&row->note, "vbds"), *vifs = value_get(&row->note, "vifs");
    *m = (struct incoming_move){
        .id = row->id, .vm = value_get_string(&row->note, "vm", ""), .host = value_get_string(&row->note, "host", ""),
        .running = value_get_bool(&row->note, "running", false), .persistent = value_get_bool(&row->note, "persistent", true),
        .vbds = vbds != NULL ? *vbds : value_set(NULL, 0), .vifs = vifs != NULL ? *vifs : value_set(NULL, 0),
    };
    m->n_vdis = vdis != NULL && vdis->kind == VALUE_SET ? vdis->len : 0;
    const char **refs = arena_calloc(a, m->n_vdis + 1, sizeof *refs);
    for (unsigned i = 0; i < m->n_vdis; i++)
        refs[i] = vdis->items[i].kind == VALUE_STRING ? vdis->items[i].s : "";
    m->vdis = refs;
}

struct error *incoming_find(struct api_call *c, const char *id, struct ledger_row *row, struct incoming_move *m, bool *found_r)
{
    TRY(ledger_get(c->arena, c->xapi->ledger, id, LEDGER_IN, row, found_r));
    if (*found_r)
        incoming_read(c->arena, row, m);
    return NULL;
}

struct error *incoming_put(struct api_call *c, const struct incoming_move *m, const char *stage)
{
    struct value_list vdis = { 0 };
    for (unsigned i = 0; i < m->n_vdis; i++)
        value_list_add(c->arena, &vdis, value_string(m->vdis[i]));
    struct member members[] = {
        member_of("vm", value_string(m->vm)), member_of("host", value_string(m->host)), member_of("running", value_bool(m->running)), member_of("persistent", value_bool(m->persistent)),
        member_of("vdis", value_list_value(&vdis)), member_of("vbds", m->vbds), member_of("vifs", m->vifs),
        member_of("touched", value_int(clock_wall(c->call.clock))),
    };
    struct value note = value_map(members, ARRAY_LEN(members));
    return ledger_stage(c->arena, c->xapi->ledger, m->id, LEDGER_IN, stage, &note);
}

/* --- marks ------------------------------------------------------------------------------------------------------------ */
void incoming_call(struct api_call *c, struct xapi *xapi, struct call *outer, const char *id)
{
    internal_call_init(c, xapi, outer->arena, arena_printf(outer->arena, "incoming:%s", id));
    c->call.cancel = outer->cancel;
    c->call.deadline_ms = outer->deadline_ms;
}

void incoming_mark(struct api_call *c, const struct incoming_move *m)
{
    bool taken = false;
    struct error *e = operation_take(c, CLASS_VM, m->vm, "import", &taken);
    if (e != NULL)
        log_warn("the incoming VM of migration %s is not marked: %s", m->id, error_text(c->arena, e));
}

void incoming_unmark(struct api_call *c, const struct incoming_move *m)
{
    if (db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm) != NULL)
        operation_end(c, CLASS_VM, m->vm, "import");
    if (db_get(c->db, c->arena, &model_classes[CLASS_host], m->host) != NULL)
        operation_end(c, CLASS_host, m->host, "vm_migrate");
}

/* --- for good --------------------------------------------------------------------------------------------------------- */
static bool names(const struct value *set, const char *device)
{
    for (unsigned i = 0; i < set->len; i++)
        if (set->items[i].kind == VALUE_STRING && strcmp(set->items[i].s, device) == 0)
            return true;
    return false;
}

/* vm_set_power_state plugs everything in; what was not, is not. */
static struct error *plugged_as_before(struct txn *txn, const struct incoming_move *m, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs), *vifs = row_value(vm, F_VM_VIFs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && !names(&m->vbds, row_string(vbd, F_VBD_userdevice)))
            TRY(txn_set_bool(txn, CLASS_VBD, vbd->ref, F_VBD_currently_attached, false));
    }
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = txn_get(txn, &model_classes[CLASS_VIF], vifs->items[i].s);
        if (vif != NULL && !names(&m->vifs, row_string(vif, F_VIF_device)))
            TRY(txn_set_bool(txn, CLASS_VIF, vif->ref, F_VIF_currently_attached, false));
    }
    return NULL;
}

/* Nothing says any more that it was on its way. */
static struct error *arrived(struct txn *txn, const char *vm_ref)
{
    if (txn_get(txn, &model_classes[CLASS_VM], vm_ref) == NULL)
        return NULL;
    TRY(txn_map_remove(txn, CLASS_VM, vm_ref, F_VM_other_config, INCOMING_KEY));
    return txn_map_remove(txn, CLASS_VM, vm_ref, F_VM_other_config, INCOMING_HA_KEY);
}

static struct error *settle_rows(struct api_call *c, const struct incoming_move *m, const char *power, int domid)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, m->vm, &vm));
    bool running = strcmp(power, "Running") == 0 || strcmp(power, "Paused") == 0;
    TRY(vm_set_power_state(c, txn, m->vm, power, running ? m->host : NULL, domid));
    if (running)
        TRY(plugged_as_before(txn, m, vm));
    const char *ha = row_map(vm, F_VM_other_config, INCOMING_HA_KEY, NULL);
    if (ha != NULL)
        TRY(txn_set_bool(txn, CLASS_VM, m->vm, F_VM_ha_always_run, strcmp(ha, "true") == 0));
    TRY(arrived(txn, m->vm));
    for (unsigned i = 0; i < row_value(vm, F_VM_snapshots)->len; i++)
        TRY(arrived(txn, row_value(vm, F_VM_snapshots)->items[i].s));
    if (!m->persistent)
        TRY(txn_map_put(txn, CLASS_VM, m->vm, F_VM_other_config, INCOMING_TRANSIENT, value_string("true")));
    TRY(txn_set_string(txn, CLASS_VM, m->vm, F_VM_affinity, m->host));
    TRY(txn_set_string(txn, CLASS_VM, m->vm, F_VM_scheduled_to_be_resident_on, REF_NULL));
    return txn_commit(txn, NULL);
}

struct error *incoming_settle(struct api_call *c, const struct incoming_move *m, const char *power, int domid)
{
    TRY(settle_rows(c, m, power, domid));
    if (domid < 0 && strcmp(power, "Running") != 0 && strcmp(power, "Paused") != 0) /* its guest may have ended on the way */
        vm_disks_release(c, m->vm, m->host);
    incoming_unmark(c, m);
    for (unsigned i = 0; i < m->n_vdis; i++)
        incoming_disk_release(c, m->id, m->host, m->vdis[i]);
    return NULL;
}

/* --- undone ------------------------------------------------------------------------------------------------------------ */
struct error *incoming_undo(struct api_call *c, const struct incoming_move *m)
{
    struct error *first = NULL;
    incoming_unmark(c, m);
    if (m->vm[0] != '\0' && db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm) != NULL) {
        vm_run_unreserve(c, m->vm);
        vm_disks_release(c, m->vm, m->host);
        first = metadata_remove(c, m->vm);
    }
    for (unsigned i = m->n_vdis; i-- > 0;) {
        struct error *e = incoming_disk_away(c, m->id, m->host, m->vdis[i]);
        first = first != NULL ? first : e;
    }
    return first;
}
