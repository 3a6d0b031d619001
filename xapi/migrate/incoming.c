#include "xapi/migrate/incoming.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/agent.h"
#include "xapi/core/placement.h"
#include "xapi/core/timers.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/incoming_disks.h"
#include "xapi/migrate/incoming_rows.h"
#include "xapi/pool/vdi_make.h"

LOG_MODULE(incoming);

#define EVERY_MS 60000

static struct error *need(struct call *c, const struct value *args, const char *name, const char **value_r)
{
    *value_r = value_get_string(args, name, "");
    return (*value_r)[0] != '\0' ? NULL : err_internal(c->arena, "an incoming migration needs '%s'", name);
}

static struct error *unknown(struct api_call *c, const char *id)
{
    return err_internal(c->arena, "migration %s is not known here, or is over", id);
}

/* What a verb about a known migration works with. */
struct act { struct api_call c; const char *id; struct ledger_row row; struct incoming_move m; bool known; };

static struct error *act_begin(struct act *a, struct call *outer, struct xapi *xapi, const struct value *args)
{
    *a = (struct act){ .known = false };
    TRY(need(outer, args, "migration_id", &a->id));
    incoming_call(&a->c, xapi, outer, a->id);
    return incoming_find(&a->c, a->id, &a->row, &a->m, &a->known);
}

static bool is_done(const struct act *a)
{
    return strcmp(a->row.stage, "done") == 0;
}

static bool has_failed(const struct act *a)
{
    return is_done(a) && strcmp(a->row.outcome, "success") != 0;
}

static void end(struct api_call *c, const char *id, const char *outcome, const char *cause, const char *recovery)
{
    struct error *e = ledger_end(c->arena, c->xapi->ledger, id, LEDGER_IN, outcome, cause, recovery, clock_wall(c->call.clock) * 1000);
    if (e != NULL)
        log_err("the end of incoming migration %s is not in the ledger: %s", id, error_text(c->arena, e));
}

/* --- incoming.open ----------------------------------------------------------------------------------------------------- */
static struct error *open_row(struct api_call *c, const struct value *args, const char *host_ref)
{
    const struct row *host;
    TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
    const struct ledger_row row = {
        .id = value_get_string(args, "migration_id", ""), .side = LEDGER_IN, .stage = "open", .kind = "migrate_send",
        .vm_uuid = value_get_string(args, "vm", ""), .vm_name = value_get_string(args, "vm_name", ""), .user = "",
        .from_host = value_get_string(args, "from", ""), .from_name = value_get_string(args, "from_name", ""),
        .to_host = row_string(host, F_host_uuid), .to_name = row_string(host, F_host_name_label),
        .key = value_get_string(args, "key", ""), .began_ms = clock_wall(c->call.clock) * 1000,
        .note = value_map(NULL, 0), .facts = value_map(NULL, 0),
    };
    return ledger_put(c->arena, c->xapi->ledger, &row);
}

/* A disk of the wish's nature: a snapshot's disk is one here as well. */
static struct error *as_wished(struct api_call *c, struct txn *txn, const char *vdi_ref, const struct value *wish)
{
    int64_t when = 0;
    if (strcmp(value_get_string(wish, "on_boot", ""), "reset") == 0)
        TRY(txn_set_string(txn, CLASS_VDI, vdi_ref, F_VDI_on_boot, "reset"));
    if (!value_get_bool(wish, "snapshot", false))
        return NULL;
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_is_a_snapshot, true));
    if (text_to_int(value_get_string(wish, "snapshot_time", ""), &when))
        TRY(txn_set(txn, CLASS_VDI, vdi_ref, F_VDI_snapshot_time, value_datetime(when)));
    return NULL;
}

static struct error *settle_disks(struct api_call *c, const struct incoming_move *m, const struct value *wishes)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    for (unsigned i = 0; i < m->n_vdis; i++) {
        TRY(as_wished(c, txn, m->vdis[i], &wishes->items[i]));
        TRY(vdi_settle(c, txn, m->vdis[i]));
    }
    return txn_commit(txn, NULL);
}

static struct error *make_disks(struct api_call *c, struct incoming_move *m, const struct value *wishes, struct value *made_r)
{
    const char **refs = arena_calloc(c->arena, wishes->len + 1, sizeof *refs);
    struct value none = value_map(NULL, 0);
    struct value_dict made = { 0 };
    m->vdis = refs;
    for (unsigned i = 0; i < wishes->len; i++) {
        const struct value *wish = &wishes->items[i], *chosen = value_get(wish, "chosen");
        struct incoming_disk d = { .sr = value_get_string(wish, "sr", ""), .size = value_get_int(wish, "size", 0),
                                   .format = value_get_string(wish, "format", ""), .chosen = chosen != NULL ? chosen : &none };
        struct error *e = incoming_disk_make(c, m->id, m->host, &d);
        if (d.vdi != NULL)
            refs[m->n_vdis++] = d.vdi;
        TRY(e);
        struct value_dict v = { 0 };
        value_dict_add(c->arena, &v, "target", value_string(d.vdi));
        value_dict_add(c->arena, &v, "uuid", value_string(d.uuid));
        value_dict_add(c->arena, &v, "sr_uuid", value_string(d.sr_uuid));
        value_dict_add(c->arena, &v, "location", value_string(d.location));
        value_dict_add(c->arena, &made, value_get_string(wish, "id", ""), value_dict_value(&v));
    }
    *made_r = value_dict_value(&made);
    TRY(incoming_put(c, m, "open"));
    return settle_disks(c, m, wishes);
}

struct error *incoming_verb_open(struct call *outer, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *id, *key, *host;
    const struct value *wishes = value_get(args, "disks");
    struct value none = value_set(NULL, 0), made;
    struct ledger_row row;
    struct api_call c;
    bool known;

    TRY(need(outer, args, "migration_id", &id));
    TRY(need(outer, args, "key", &key));
    TRY(need(outer, args, "host", &host));
    incoming_call(&c, xapi, outer, id);
    if (!uuid_valid(id) || !uuid_valid(key) || !xapi->is_coordinator)
        return err_internal(outer->arena, "not a migration's name, or not a coordinator");
    struct incoming_move m = { .id = id, .vm = "", .host = host, .vbds = none, .vifs = none };
    TRY(ledger_get(outer->arena, xapi->ledger, id, LEDGER_IN, &row, &known));
    if (known)
        return err_internal(outer->arena, "migration %s is known here already", id);
    TRY(open_row(&c, args, host));
    struct error *e = make_disks(&c, &m, wishes != NULL && wishes->kind == VALUE_SET ? wishes : &none, &made);
    if (e != NULL) {
        struct error *u = incoming_undo(&c, &m);
        if (u == NULL)
            end(&c, id, "failed", error_text(outer->arena, e), "");
        else /* the sender's incoming.abort tries again */
            log_warn("incoming migration %s is cleared up later: %s", id, error_text(outer->arena, u));
        return e;
    }
    struct member members[] = { member_of("disks", made) };
    *result_r = value_dup(outer->arena, &(struct value){ .kind = VALUE_MAP, .len = 1, .members = members });
    return NULL;
}

/* --- incoming.admit ------------------------------------------------------------------------------------------------------ */
static bool has_device(const struct value *set, const char *device)
{
    for (unsigned i = 0; i < set->len; i++)
        if (set->items[i].kind == VALUE_STRING && strcmp(set->items[i].s, device) == 0)
            return true;
    return false;
}

/* Only what was plugged in comes along in the running guest. */
static void only_plugged(const struct incoming_move *m, struct vm_spec *spec)
{
    struct disk_spec *disks = (struct disk_spec *)spec->disks;
    struct nic_spec *nics = (struct nic_spec *)spec->nics;
    unsigned n = 0;
    for (unsigned i = 0; i < spec->n_disks; i++)
        if (has_device(&m->vbds, disks[i].device))
            disks[n++] = disks[i];
    spec->n_disks = n;
    n = 0;
    for (unsigned i = 0; i < spec->n_nics; i++)
        if (has_device(&m->vifs, nics[i].device))
            nics[n++] = nics[i];
    spec->n_nics = n;
}

static struct value written(struct api_call *c, const struct incoming_move *m, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    struct value_list list = { 0 };
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd == NULL || strcmp(row_string(vbd, F_VBD_mode), "RW") != 0 || strcmp(row_string(vbd, F_VBD_type), "CD") == 0 ||
            !has_device(&m->vbds, row_string(vbd, F_VBD_userdevice)))
            continue;
        const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI));
        const struct row *sr = vdi != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR)) : NULL;
        struct value_dict d = { 0 };
        if (sr == NULL)
            continue;
        value_dict_add(c->arena, &d, "sr", value_string(row_string(sr, F_SR_uuid)));
        value_dict_add(c->arena, &d, "location", value_string(row_string(vdi, F_VDI_location)));
        value_list_add(c->arena, &list, value_dict_value(&d));
    }
    return value_list_value(&list);
}

static struct error *admit_running(struct api_call *c, const struct incoming_move *m, struct value_dict *answer)
{
    const struct row *vm;
    const char *reserved;
    struct vm_spec spec;
    TRY(vm_run_reserve(c, m->vm, m->host, "vm_migrate", PLACE_SR | PLACE_MEMORY, &reserved));
    TRY(vm_spec_of_move(c, m->vm, m->host, NULL, &spec));
    only_plugged(m, &spec);
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    value_dict_add(c->arena, answer, "spec", vm_spec_to_value(c->arena, &spec));
    value_dict_add(c->arena, answer, "disks", written(c, m, vm));
    return NULL;
}

struct error *incoming_verb_admit(struct call *outer, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *vm_ref;
    const struct value *vbds = value_get(args, "vbds"), *vifs = value_get(args, "vifs");
    const struct row *vm;
    struct value_dict answer = { 0 };
    struct act a;

    TRY(act_begin(&a, outer, xapi, args));
    TRY(need(outer, args, "vm", &vm_ref));
    if (!a.known || is_done(&a))
        return unknown(&a.c, a.id);
    TRY(db_need(a.c.db, a.c.arena, CLASS_VM, vm_ref, &vm));
    if (strcmp(row_map(vm, F_VM_other_config, INCOMING_KEY, ""), a.id) != 0)
        return err_internal(outer->arena, "VM %s did not come with migration %s", vm_ref, a.id);
    a.m.vm = vm_ref;
    a.m.running = value_get_bool(args, "running", false);
    a.m.persistent = value_get_bool(args, "persistent", true);
    a.m.vbds = vbds != NULL ? *vbds : value_set(NULL, 0);
    a.m.vifs = vifs != NULL ? *vifs : value_set(NULL, 0);
    TRY(incoming_put(&a.c, &a.m, "send"));
    if (a.m.running)
        TRY(admit_running(&a.c, &a.m, &answer));
    incoming_mark(&a.c, &a.m);
    value_dict_add(outer->arena, &answer, "final_uuid", value_string(row_string(vm, F_VM_uuid)));
    *result_r = value_dict_value(&answer);
    return NULL;
}

/* --- commit, abort, ask ---------------------------------------------------------------------------------------------------- */
struct error *incoming_verb_commit(struct call *outer, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *power;
    struct value_dict answer = { 0 };
    struct act a;

    TRY(act_begin(&a, outer, xapi, args));
    TRY(need(outer, args, "power", &power));
    if (!a.known || has_failed(&a))
        return unknown(&a.c, a.id);
    if (!is_done(&a)) {
        TRY(incoming_settle(&a.c, &a.m, power, (int)value_get_int(args, "domid", -1)));
        end(&a.c, a.id, "success", "", "");
        vm_run_tell(&a.c, a.m.vm, "VM_MIGRATED", "migrated to this pool");
    }
    value_dict_add(outer->arena, &answer, "vm", value_string(a.m.vm));
    *result_r = value_dict_value(&answer);
    return NULL;
}

/* Its guest runs on its host under the VM's own name: it committed there. */
static bool runs_here(struct api_call *c, const struct incoming_move *m, const char **power_r, int *domid_r)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm);
    if (vm == NULL || !m->running)
        return false;
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), domain;
    if (agent_call(c, m->host, "vm.find", &v, &domain) != NULL)
        return false;
    const char *state = value_get_string(&domain, "state", "");
    *power_r = strcmp(state, "paused") == 0 ? "Paused" : "Running";
    *domid_r = (int)value_get_int(&domain, "domid", -1);
    return strcmp(state, "running") == 0 || strcmp(state, "paused") == 0;
}

struct error *incoming_verb_abort(struct call *outer, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *power;
    struct act a;
    int domid;

    *result_r = value_map(NULL, 0);
    TRY(act_begin(&a, outer, xapi, args));
    if (!a.known || has_failed(&a))
        return NULL;
    if (is_done(&a) || runs_here(&a.c, &a.m, &power, &domid))
        return err_operation_not_allowed(outer->arena, arena_printf(outer->arena, "migration %s has been committed here", a.id));
    TRY(incoming_undo(&a.c, &a.m));
    end(&a.c, a.id, "failed", "given up by the sending pool", "");
    return NULL;
}

struct error *incoming_verb_ask(struct call *outer, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *id;
    struct ledger_row row;
    bool known;

    TRY(need(outer, args, "migration_id", &id));
    TRY(ledger_get(outer->arena, xapi->ledger, id, LEDGER_IN, &row, &known));
    struct value_dict d = { 0 };
    value_dict_add(outer->arena, &d, "stage", value_string(known ? row.stage : "done"));
    value_dict_add(outer->arena, &d, "outcome", value_string(known ? row.outcome : "failed"));
    *result_r = value_dict_value(&d);
    return NULL;
}

/* --- what nobody has ended --------------------------------------------------------------------------------------------------- */
static void look_after(struct api_call *c, const struct ledger_row *row)
{
    struct incoming_move m;
    const char *power;
    int domid;
    incoming_read(c->arena, row, &m);
    int64_t touched = value_get_int(&row->note, "touched", row->began_ms / 1000);
    if (strcmp(row->stage, "send") == 0 && runs_here(c, &m, &power, &domid)) {
        struct error *e = incoming_settle(c, &m, power, domid);
        if (e == NULL)
            end(c, m.id, "success", "", "completed here: the guest runs");
        return;
    }
    if (clock_wall(c->call.clock) - touched < config_int(c->xapi->config, "incoming-abandoned-s"))
        return;
    struct error *e = incoming_undo(c, &m);
    if (e == NULL)
        end(c, m.id, "failed", "the sending pool was not heard of any more", "given up here");
    else
        log_warn("abandoned migration %s cannot be cleared up yet: %s", m.id, error_text(c->arena, e));
}

static void each_active(struct xapi *xapi, void (*act)(struct api_call *, const struct ledger_row *))
{
    AUTO_ARENA arena = arena_new();
    struct ledger_query q = { .active = true, .limit = 10000 };
    struct ledger_row *rows;
    unsigned n;
    struct call outer = { .arena = arena, .clock = xapi->clock };
    if (xapi->ledger == NULL || ledger_list(arena, xapi->ledger, &q, &rows, &n) != NULL)
        return;
    for (unsigned i = 0; i < n; i++) {
        struct api_call c;
        if (rows[i].side != LEDGER_IN)
            continue;
        incoming_call(&c, xapi, &outer, rows[i].id);
        act(&c, &rows[i]);
    }
}

static void work(void *arg)
{
    each_active(arg, look_after);
}

static void every_minute(void *arg)
{
    struct xapi *xapi = arg;
    (void)work_pool_post(xapi->task_workers, work, xapi);
}

static void mark_again(struct api_call *c, const struct ledger_row *row)
{
    struct incoming_move m;
    incoming_read(c->arena, row, &m);
    if (m.vm[0] != '\0')
        incoming_mark(c, &m);
}

void incoming_moves_start(struct xapi *xapi)
{
    if (!xapi->is_coordinator)
        return;
    each_active(xapi, mark_again);
    timers_every(xapi->timers, EVERY_MS, every_minute, xapi);
}
