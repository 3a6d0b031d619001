/* A move within this pool: the VM's rows stay, its disks' and its host change in one transaction. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disk_sink.h"
#include "xapi/migrate/incoming_disks.h"
#include "xapi/migrate/move_note.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(move);

static bool comes(const struct move_disk *d)
{
    return d->how != MOVE_DISK_STAYS;
}

/* --- open -------------------------------------------------------------------------------------------------------- */
/* What a copy does not inherit, but the same disk elsewhere has. */
static struct error *same_disk(struct txn *txn, const struct move_disk *d)
{
    static const unsigned same[] = { F_VDI_is_a_snapshot, F_VDI_snapshot_of, F_VDI_snapshot_time, F_VDI_on_boot, F_VDI_allow_caching };
    const struct row *source;
    TRY(txn_need(txn, CLASS_VDI, d->vdi, &source));
    for (unsigned i = 0; i < ARRAY_LEN(same); i++)
        TRY(txn_set(txn, CLASS_VDI, d->target, same[i], *row_value(source, same[i])));
    return NULL;
}

static struct error *settle(struct api_call *c, const struct move *m)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (!comes(&m->disks[i]))
            continue;
        TRY(same_disk(txn, &m->disks[i]));
        TRY(vdi_settle(c, txn, m->disks[i].target));
    }
    return txn_commit(txn, NULL);
}

static struct error *make_disk(struct api_call *c, const struct move *m, struct move_disk *d)
{
    struct http_target sink = m->destination.target;
    const struct row *vdi;
    TRY(db_need(c->db, c->arena, CLASS_VDI, d->vdi, &vdi));
    struct value chosen = vdi_row_chosen(c->arena, vdi);
    struct incoming_disk in = { .sr = d->target_sr, .size = d->size, .format = move_disk_format(d), .chosen = &chosen };
    struct error *e = incoming_disk_make(c, m->id, m->destination.host, &in);
    d->target = in.vdi;
    TRY(e);
    d->target_uuid = in.uuid;
    d->target_sr_uuid = in.sr_uuid;
    d->target_location = in.location;
    sink.cookie = arena_printf(c->arena, "migration_key=%s", m->key);
    d->uri = disk_sink_uri(c->arena, &sink, m->vm_uuid, d->target_sr_uuid, d->target_location);
    return NULL;
}

/* Provisional disks are noted before they become real: a crash leaves none that nobody knows of. */
static struct error *local_open(struct api_call *c, struct move *m)
{
    bool any = false;
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i])) {
            TRY(make_disk(c, m, &m->disks[i]));
            any = true;
        }
    if (!any)
        return NULL;
    TRY(move_note_put(c, m, "open"));
    return settle(c, m);
}

/* --- admit ------------------------------------------------------------------------------------------------------- */
/* Where each disk will be; NULL when it stays. */
static const struct move_disk *moved(const struct move *m, const char *vdi_ref)
{
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i]) && strcmp(m->disks[i].vdi, vdi_ref) == 0)
            return &m->disks[i];
    return NULL;
}

static struct value instead_of(struct api_call *c, const struct move *m)
{
    struct value_dict d = { 0 };
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i]))
            value_dict_add(c->arena, &d, m->disks[i].vdi, value_string(m->disks[i].target));
    return value_dict_value(&d);
}

/* What the destination opens once it has committed: the disks that the guest writes, where they are then. */
static struct value written_there(struct api_call *c, const struct move *m, const struct row *vm)
{
    struct value here = vm_disks_written(c, vm);
    struct value_list list = { 0 };
    for (unsigned i = 0; i < here.len; i++) {
        const char *sr = value_get_string(&here.items[i], "sr", ""), *location = value_get_string(&here.items[i], "location", "");
        for (unsigned k = 0; k < m->n_disks; k++) {
            const struct move_disk *d = &m->disks[k];
            if (comes(d) && strcmp(d->sr_uuid, sr) == 0 && strcmp(d->location, location) == 0) {
                sr = d->target_sr_uuid;
                location = d->target_location;
                break;
            }
        }
        struct value_dict d = { 0 };
        value_dict_add(c->arena, &d, "sr", value_string(sr));
        value_dict_add(c->arena, &d, "location", value_string(location));
        value_list_add(c->arena, &list, value_dict_value(&d));
    }
    return value_list_value(&list);
}

static struct error *local_admit(struct api_call *c, struct move *m)
{
    const struct row *vm;
    struct vm_spec spec;
    struct value instead = instead_of(c, m);
    m->final_uuid = m->vm_uuid;
    m->vm_there = m->vm;
    m->destination_disks = value_set(NULL, 0);
    if (m->guest != MOVE_RUNNING)
        return NULL;
    TRY(vm_spec_of_move(c, m->vm, m->destination.host, &instead, &spec));
    m->spec = vm_spec_to_value(c->arena, &spec);
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    m->destination_disks = written_there(c, m, vm);
    return NULL;
}

/* --- commit ------------------------------------------------------------------------------------------------------ */
static struct error *retarget(struct api_call *c, struct txn *txn, const struct move_disk *d)
{
    const struct row *source = txn_get(txn, &model_classes[CLASS_VDI], d->vdi);
    if (source == NULL)
        return NULL; /* done before */
    const struct value *vbds = row_value(source, F_VDI_VBDs), *snapshots = row_value(source, F_VDI_snapshots);
    for (unsigned i = 0; i < vbds->len; i++) {
        TRY(txn_set_string(txn, CLASS_VBD, vbds->items[i].s, F_VBD_VDI, d->target));
        TRY(operations_update(c, txn, CLASS_VBD, vbds->items[i].s));
    }
    for (unsigned i = 0; i < snapshots->len; i++)
        TRY(txn_set_string(txn, CLASS_VDI, snapshots->items[i].s, F_VDI_snapshot_of, d->target));
    return operations_update(c, txn, CLASS_VDI, d->target);
}

/* A snapshot's disk that moved names its original by the ref it has now. */
static struct error *relink(struct txn *txn, const struct move *m, const struct move_disk *d)
{
    const struct row *target = txn_get(txn, &model_classes[CLASS_VDI], d->target);
    const struct move_disk *original = target != NULL ? moved(m, row_string(target, F_VDI_snapshot_of)) : NULL;
    return original != NULL ? txn_set_string(txn, CLASS_VDI, d->target, F_VDI_snapshot_of, original->target) : NULL;
}

static struct error *suspend_image(struct txn *txn, const struct move *m, const char *vm_ref)
{
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], vm_ref);
    const struct move_disk *d = vm != NULL ? moved(m, row_string(vm, F_VM_suspend_VDI)) : NULL;
    if (d == NULL)
        return NULL;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_suspend_VDI, d->target));
    return txn_set_string(txn, CLASS_VM, vm_ref, F_VM_suspend_SR, REF_NULL);
}

static struct error *local_rows(struct api_call *c, struct move *m, const char *power, int domid)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, m->vm, &vm));
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i]))
            TRY(retarget(c, txn, &m->disks[i]));
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i]))
            TRY(relink(txn, m, &m->disks[i]));
    TRY(suspend_image(txn, m, m->vm));
    const struct value *snapshots = row_value(vm, F_VM_snapshots);
    for (unsigned i = 0; i < snapshots->len; i++)
        TRY(suspend_image(txn, m, snapshots->items[i].s));
    if (m->guest == MOVE_RUNNING) {
        int known = domid >= 0 ? domid : (int)row_int(vm, F_VM_domid); /* else told by the destination's next report */
        TRY(vm_set_power_state(c, txn, m->vm, power, m->destination.host, known));
    } else {
        TRY(txn_set_string(txn, CLASS_VM, m->vm, F_VM_scheduled_to_be_resident_on, REF_NULL));
    }
    return txn_commit(txn, NULL);
}

static struct error *local_commit(struct api_call *c, struct move *m, const char *power, int domid)
{
    bool elsewhere = strcmp(m->from, m->destination.host) != 0;
    if (m->guest == MOVE_RUNNING && elsewhere)
        vm_disks_release(c, m->vm, m->from); /* by the VBDs' present disks, so before they change */
    TRY(local_rows(c, m, power, domid));
    if (m->guest != MOVE_RUNNING) /* a guest that ended on the way had its disks ready there */
        vm_disks_release(c, m->vm, m->destination.host);
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i]))
            incoming_disk_release(c, m->id, m->destination.host, m->disks[i].target);
    return NULL;
}

/* --- abort ------------------------------------------------------------------------------------------------------- */
/* The host lets go of the disks that the VM would have used there. */
static void release_there(struct api_call *c, const struct move *m)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm);
    const struct value *vbds = vm != NULL ? row_value(vm, F_VM_VBDs) : NULL;
    for (unsigned i = 0; vbds != NULL && i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd == NULL || row_bool(vbd, F_VBD_empty))
            continue;
        const struct move_disk *d = moved(m, row_string(vbd, F_VBD_VDI));
        vm_disk_release(c, d != NULL && d->target != NULL ? d->target : row_string(vbd, F_VBD_VDI), m->destination.host, vbd->ref);
    }
}

static struct error *local_abort(struct api_call *c, struct move *m)
{
    struct error *first = NULL;
    bool elsewhere = strcmp(m->from, m->destination.host) != 0;
    vm_run_unreserve(c, m->vm);
    if (m->guest == MOVE_RUNNING && elsewhere)
        release_there(c, m);
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (!comes(&m->disks[i]))
            continue;
        struct error *e = incoming_disk_away(c, m->id, m->destination.host, m->disks[i].target);
        if (e != NULL)
            log_warn("disk %s, made for a move that failed, stays for now: %s", m->disks[i].target, error_text(c->arena, e));
        first = first != NULL ? first : e;
    }
    return first;
}

const struct destination_ops destination_local = { "local", local_open, local_admit, local_commit, local_abort };
