/* VM.revert: a VM goes back to one of its snapshots.
 *
 * Nothing of the VM is touched before all that it goes back to is there: the snapshot's disks are cloned (its image
 * copied) while the VM still runs; then it is shut down, one transaction makes it what it was, and the old disks are
 * removed. A failure before that transaction takes the clones away and leaves the VM as it was, or shut down.
 * Fault points: vm.revert.disk, vm.revert.image, vm.revert.shutdown, vm.revert.rows. */
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/task.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vm_copy.h"
#include "xapi/pool/vm_metadata.h"
#include "xapi/pool/vm_wake.h"

LOG_MODULE(vm_revert);

struct revert {
    struct api_call *c;
    const struct row *snapshot;
    const char *vm;         /* ref */
    const char **vdis;      /* of the snapshot's VBDs: the clones, or the ISO */
    const char *image;      /* copied, or null */
    struct value_list made; /* disks */
    struct value_list old;  /* disks to remove afterwards */
    bool done;
};

static struct error *fault(struct revert *r, const char *name)
{
    const char *point = arena_printf(r->c->arena, "vm.revert.%s", name);

    return fault_hit(point) ? err_internal(r->c->arena, "fault point %s", point) : NULL;
}

/* --- a VM that is gone ----------------------------------------------------------------------------------------- */
static struct error *adopt_snapshots(struct txn *txn, const char *old_vm, const char *new_vm)
{
    struct row_list vms = txn_all(txn, &model_classes[CLASS_VM]);

    for (unsigned i = 0; i < vms.n; i++)
        if (strcmp(row_string(vms.rows[i], F_VM_snapshot_of), old_vm) == 0)
            TRY(txn_set_string(txn, CLASS_VM, vms.rows[i]->ref, F_VM_snapshot_of, new_vm));
    return NULL;
}

/* The VM comes back under its old uuid, empty; the snapshots are its own again. */
static struct error *recreate(struct revert *r)
{
    struct vm_metadata m = vm_metadata_read(r->c->arena, row_string(r->snapshot, F_VM_snapshot_metadata));
    const char *old_vm = arena_strdup(r->c->arena, row_string(r->snapshot, F_VM_snapshot_of)), *metrics;
    AUTO_TXN txn = txn_begin(r->c->db, r->c->arena);

    if (m.n == 0 || !uuid_valid(m.uuid) || txn_by_uuid(txn, &model_classes[CLASS_VM], m.uuid) != NULL)
        return err_vm_revert_failed(r->c->arena, r->snapshot->ref, old_vm);
    TRY(txn_create(txn, CLASS_VM, NULL, m.uuid, m.fields, m.n, &r->vm));
    TRY(adopt_snapshots(txn, old_vm, r->vm));
    TRY(vm_metrics_ensure(r->c, txn, r->vm, &metrics));
    TRY(operations_update(r->c, txn, CLASS_VM, r->vm));
    return txn_commit(txn, NULL);
}

/* --- before anything changes ------------------------------------------------------------------------------------- */
/* The image must be readable where it is. */
static struct error *image_reachable(struct revert *r)
{
    const struct row *image, *host, *metrics;
    const char *host_ref;

    if (strcmp(row_string(r->snapshot, F_VM_power_state), "Suspended") != 0)
        return NULL;
    TRY(db_need(r->c->db, r->c->arena, CLASS_VDI, row_string(r->snapshot, F_VM_suspend_VDI), &image));
    TRY(sr_host(r->c, row_string(image, F_VDI_SR), &host_ref));
    TRY(db_need(r->c->db, r->c->arena, CLASS_host, host_ref, &host));
    metrics = db_get(r->c->db, r->c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    return metrics != NULL && row_bool(metrics, F_host_metrics_live) ? NULL : err_host_not_live(r->c->arena);
}

static struct error *clone_disks(struct revert *r)
{
    const struct value *vbds = row_value(r->snapshot, F_VM_VBDs);

    r->vdis = arena_calloc(r->c->arena, vbds->len + 1u, sizeof(*r->vdis));
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(r->c->db, r->c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);

        if (vbd == NULL)
            continue;
        r->vdis[i] = row_string(vbd, F_VBD_VDI);
        if (row_bool(vbd, F_VBD_empty) || strcmp(row_string(vbd, F_VBD_type), "Disk") != 0)
            continue;
        TRY(fault(r, "disk"));
        TRY(vdi_derive_marked(r->c, r->vdis[i], VDI_CHILD_CLONE, VDI_PROVISIONAL, &r->vdis[i]));
        value_list_add(r->c->arena, &r->made, value_string(r->vdis[i]));
        call_progress(&r->c->call, 0.5 * (i + 1) / vbds->len);
    }
    return NULL;
}

static struct error *copy_image(struct revert *r)
{
    const char *image = row_string(r->snapshot, F_VM_suspend_VDI);

    if (strcmp(row_string(r->snapshot, F_VM_power_state), "Suspended") != 0)
        return NULL;
    TRY(fault(r, "image"));
    TRY(vm_image_copy(r->c, image, &r->image));
    value_list_add(r->c->arena, &r->made, value_string(r->image));
    TRY(vm_wake_done(r->c, r->image));
    return db_map_put(r->c->db, r->c->arena, CLASS_VDI, r->image, F_VDI_other_config, VM_IMAGE_OLD, "true");
}

static struct error *shut_down(struct revert *r)
{
    struct api_VM_hard_shutdown_args args = { .vm = r->vm };
    struct value ignored;

    TRY(fault(r, "shutdown"));
    return api_run(r->c, M_VM_hard_shutdown, &args, &ignored);
}

/* --- the one transaction -------------------------------------------------------------------------------------- */
/* The disk that a snapshot's disk is of; every snapshot of that one is one of the clone now. */
static struct error *adopt_disk_snapshots(struct revert *r, struct txn *txn, const char *snapshot_vdi, const char *clone)
{
    const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], snapshot_vdi), *old;

    if (vdi == NULL || ref_is_null(row_string(vdi, F_VDI_snapshot_of)))
        return NULL;
    const char *old_ref = arena_strdup(r->c->arena, row_string(vdi, F_VDI_snapshot_of));
    old = txn_get(txn, &model_classes[CLASS_VDI], old_ref);
    if (old == NULL)
        return txn_set_string(txn, CLASS_VDI, snapshot_vdi, F_VDI_snapshot_of, clone);
    struct value snapshots = value_dup(r->c->arena, row_value(old, F_VDI_snapshots));
    for (unsigned i = 0; i < snapshots.len; i++)
        TRY(txn_set_string(txn, CLASS_VDI, snapshots.items[i].s, F_VDI_snapshot_of, clone));
    return NULL;
}

static struct error *adopt_all(struct revert *r, struct txn *txn)
{
    const struct value *vbds = row_value(r->snapshot, F_VM_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);

        if (vbd != NULL && r->vdis[i] != NULL && strcmp(row_string(vbd, F_VBD_type), "Disk") == 0 && !row_bool(vbd, F_VBD_empty))
            TRY(adopt_disk_snapshots(r, txn, row_string(vbd, F_VBD_VDI), r->vdis[i]));
    }
    return NULL;
}

/* Is the disk one that the snapshot has a picture of? Only such are replaced; others stay, unattached. */
static bool is_pictured(struct revert *r, struct txn *txn, const char *vdi_ref)
{
    const struct value *vbds = row_value(r->snapshot, F_VM_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vdi = vbd == NULL ? NULL : txn_get(txn, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI));

        if (vdi != NULL && strcmp(row_string(vdi, F_VDI_snapshot_of), vdi_ref) == 0)
            return true;
    }
    return false;
}

static struct error *drop_vbds(struct revert *r, struct txn *txn, const struct row *vm)
{
    const struct value vbds = value_dup(r->c->arena, row_value(vm, F_VM_VBDs));

    for (unsigned i = 0; i < vbds.len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds.items[i].s);

        if (vbd == NULL)
            continue;
        const char *vdi = arena_strdup(r->c->arena, row_string(vbd, F_VBD_VDI));
        if (strcmp(row_string(vbd, F_VBD_type), "Disk") == 0 && is_pictured(r, txn, vdi))
            value_list_add(r->c->arena, &r->old, value_string(vdi));
        TRY(txn_delete(txn, CLASS_VBD, vbd->ref));
        if (txn_get(txn, &model_classes[CLASS_VDI], vdi) != NULL)
            TRY(operations_update_around(r->c, txn, CLASS_VDI, vdi));
    }
    return NULL;
}

static struct error *drop_refs(struct txn *txn, struct value refs, unsigned class_id)
{
    for (unsigned i = 0; i < refs.len; i++)
        if (txn_get(txn, &model_classes[class_id], refs.items[i].s) != NULL)
            TRY(txn_delete(txn, class_id, refs.items[i].s));
    return NULL;
}

static struct error *drop_one(struct txn *txn, unsigned class_id, const char *ref)
{
    return txn_get(txn, &model_classes[class_id], ref) != NULL ? txn_delete(txn, class_id, ref) : NULL;
}

static struct error *drop_devices(struct revert *r, struct txn *txn)
{
    const struct row *vm;

    TRY(txn_need(txn, CLASS_VM, r->vm, &vm));
    TRY(drop_vbds(r, txn, vm));
    TRY(drop_refs(txn, value_dup(r->c->arena, row_value(vm, F_VM_VIFs)), CLASS_VIF));
    TRY(drop_refs(txn, value_dup(r->c->arena, row_value(vm, F_VM_VGPUs)), CLASS_VGPU));
    TRY(drop_refs(txn, value_dup(r->c->arena, row_value(vm, F_VM_VUSBs)), CLASS_VUSB));
    TRY(drop_one(txn, CLASS_VM_metrics, arena_strdup(r->c->arena, row_string(vm, F_VM_metrics))));
    return drop_one(txn, CLASS_VM_guest_metrics, arena_strdup(r->c->arena, row_string(vm, F_VM_guest_metrics)));
}

/* A snapshot from elsewhere that has no such record gives its own fields. */
static struct error *restore_fields(struct revert *r, struct txn *txn)
{
    struct vm_metadata m = vm_metadata_read(r->c->arena, row_string(r->snapshot, F_VM_snapshot_metadata));
    static const unsigned own[] = { F_VM_name_label, F_VM_is_a_snapshot, F_VM_is_a_template, F_VM_is_default_template, F_VM_snapshot_of, F_VM_snapshot_time,
                                    F_VM_snapshot_info, F_VM_transportable_snapshot_id, F_VM_generation_id };
    bool foreign = m.n == 0;

    if (foreign)
        m = vm_metadata_read(r->c->arena, vm_metadata_write(r->c->arena, r->snapshot));
    for (unsigned i = 0; i < m.n; i++) {
        bool skip = false;
        for (unsigned k = 0; foreign && k < ARRAY_LEN(own); k++)
            skip |= own[k] == m.fields[i].field;
        if (!skip)
            TRY(txn_set(txn, CLASS_VM, r->vm, m.fields[i].field, m.fields[i].value));
    }
    return NULL;
}

static struct error *swap(struct revert *r)
{
    TRY(fault(r, "rows"));
    AUTO_TXN txn = txn_begin(r->c->db, r->c->arena);
    const char *state = row_string(r->snapshot, F_VM_power_state);
    bool suspended = strcmp(state, "Suspended") == 0;

    TRY(drop_devices(r, txn));
    for (unsigned i = 0; i < r->old.n; i++)
        TRY(vdi_doom(r->c, txn, r->old.items[i].s));
    for (unsigned i = 0; i < r->made.n; i++)
        TRY(vdi_settle(r->c, txn, r->made.items[i].s));
    TRY(adopt_all(r, txn));
    TRY(restore_fields(r, txn));
    const struct vm_devices devices = { .from = r->snapshot, .to = r->vm, .vdis = r->vdis, .attached = suspended };
    TRY(vm_devices_copy(r->c, txn, &devices));
    TRY(vm_metrics_copy(r->c, txn, r->snapshot, r->vm));
    TRY(txn_set_string(txn, CLASS_VM, r->vm, F_VM_parent, r->snapshot->ref));
    TRY(txn_set_string(txn, CLASS_VM, r->vm, F_VM_suspend_VDI, r->image));
    TRY(vm_set_power_state(r->c, txn, r->vm, suspended ? "Suspended" : "Halted", NULL, -1));
    TRY(txn_commit(txn, NULL));
    r->done = true;
    return NULL;
}

/* --- all of it ------------------------------------------------------------------------------------------------------ */
static struct error *run(struct revert *r)
{
    TRY(image_reachable(r));
    TRY(clone_disks(r));
    TRY(copy_image(r));
    task_set_cancellable(r->c, false);
    TRY(shut_down(r));
    call_progress(&r->c->call, 0.8);
    return swap(r);
}

static struct error *run_marked(struct revert *r)
{
    TRY(operation_begin(r->c, CLASS_VM, r->vm, "reverting", true));
    OPERATION_SCOPE scope = { r->c, CLASS_VM, r->vm, "reverting" };
    struct error *error = run(r);
    const struct value_list *leftovers = r->done ? &r->old : &r->made;

    for (unsigned i = 0; i < leftovers->n; i++)
        vdi_discard(r->c, leftovers->items[i].s, r->done ? "the disk before the revert" : "the disk of a failed revert");
    return error;
}

/* What a client can do something about is passed on; the rest has one name. */
static bool speaks_for_itself(const struct error *error)
{
    return error_is(error, "SR_FULL") || strncmp(error->code, "SR_BACKEND_FAILURE", strlen("SR_BACKEND_FAILURE")) == 0 || error_is(error, "VDI_INCOMPATIBLE_TYPE") ||
           error_is(error, "TASK_CANCELLED") || error_is(error, "HOST_NOT_LIVE") || error_is(error, "SR_HAS_NO_PBDS") ||
           error_is(error, "SR_OPERATION_NOT_SUPPORTED") || error_is(error, "OTHER_OPERATION_IN_PROGRESS");
}

struct error *api_VM_revert(struct api_call *c, const struct api_VM_revert_args *a, struct value *result_r)
{
    struct revert r = { .c = c, .image = REF_NULL };

    TRY(db_need(c->db, c->arena, CLASS_VM, a->snapshot, &r.snapshot));
    r.vm = row_string(r.snapshot, F_VM_snapshot_of);
    if (db_get(c->db, c->arena, &model_classes[CLASS_VM], r.vm) == NULL)
        TRY(recreate(&r));
    task_set_cancellable(c, true);
    struct error *error = run_marked(&r);
    if (error == NULL || speaks_for_itself(error))
        return error;
    log_err("reverting to %s: %s", a->snapshot, error_text(c->arena, error));
    return err_vm_revert_failed(c->arena, a->snapshot, r.vm);
}
