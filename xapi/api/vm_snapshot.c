/* Snapshots of VMs: disks as they are at a moment, and with checkpoints the memory too. */
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/vm_run.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vm_copy.h"
#include "xapi/pool/vm_wake.h"

LOG_MODULE(vm_snapshot);

struct error *api_VM_snapshot(struct api_call *c, const struct api_VM_snapshot_args *a, struct value *result_r)
{
    const struct vm_copy_plan plan = { .vm = a->vm, .name = a->new_name, .kind = VM_COPY_SNAPSHOT, .ignore_vdis = a->ignore_vdis };
    const char *ref;

    TRY(vm_copy(c, &plan, &ref));
    *result_r = value_string(ref);
    return NULL;
}

/* The operation's check has said so already for a VM that runs. */
struct error *api_VM_snapshot_with_quiesce(struct api_call *c, const struct api_VM_snapshot_with_quiesce_args *a, struct value *result_r)
{
    return error_make(c->arena, __FILE__, __LINE__, "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", 1, a->vm);
}

/* --- checkpoint ------------------------------------------------------------------------------------------------ */
/* Before the guest is stopped for nothing. */
static struct error *disks_can_be_snapshotted(struct api_call *c, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vdi = vbd == NULL ? NULL : txn_get(txn, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI));
        const struct row *sr = vdi == NULL ? NULL : txn_get(txn, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR));

        if (sr != NULL && strcmp(row_string(vbd, F_VBD_type), "CD") != 0 && !sr_has_feature(txn, sr, "VDI_SNAPSHOT"))
            return err_sr_operation_not_supported(c->arena, sr->ref);
    }
    return NULL;
}

/* Where it ran, else anywhere; a cancel does not leave the guest lying. */
static struct error *resume(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    struct api_call calm = internal_call_cleanup(c);
    struct error *error = fault_hit("vm.checkpoint.resume") ? err_internal(c->arena, "fault point vm.checkpoint.resume")
                                                            : vm_run_resume(&calm, vm_ref, host_ref, false, true);

    if (error == NULL)
        return NULL;
    log_warn("the VM %s cannot be resumed where it ran: %s", vm_ref, error_text(c->arena, error));
    error = vm_run_resume(&calm, vm_ref, NULL, false, false);
    if (error == NULL)
        return NULL;
    log_err("the VM %s stays suspended: %s", vm_ref, error_text(c->arena, error));
    return err_vm_checkpoint_resume_failed(c->arena, vm_ref);
}

/* The guest is suspended to an image; its disks' snapshots and that image are the checkpoint, and it goes on from
 * the same image. */
static struct error *checkpoint_running(struct api_call *c, struct vm_copy_plan *plan, const struct row *vm, const char **ref_r)
{
    const char *host = arena_strdup(c->arena, row_string(vm, F_VM_resident_on));

    TRY(disks_can_be_snapshotted(c, vm));
    if (fault_hit("vm.checkpoint.suspend"))
        return err_vm_checkpoint_suspend_failed(c->arena, vm->ref);
    plan->power_state = arena_strdup(c->arena, row_string(vm, F_VM_power_state));
    plan->share_image = true;
    TRY(vm_run_suspend(c, vm->ref));
    const struct row *asleep;
    TRY(db_need(c->db, c->arena, CLASS_VM, vm->ref, &asleep));
    const char *image = row_string(asleep, F_VM_suspend_VDI);
    struct error *error = vm_copy(c, plan, ref_r);
    struct error *stuck = resume(c, vm->ref, host);
    if (stuck == NULL)
        stuck = vm_wake_done(c, image);
    return error != NULL ? error : stuck;
}

struct error *api_VM_checkpoint(struct api_call *c, const struct api_VM_checkpoint_args *a, struct value *result_r)
{
    struct vm_copy_plan plan = { .vm = a->vm, .name = a->new_name, .kind = VM_COPY_CHECKPOINT };
    const struct row *vm;
    const char *ref;

    TRY(db_need(c->db, c->arena, CLASS_VM, a->vm, &vm));
    if (strcmp(row_string(vm, F_VM_power_state), "Running") == 0)
        TRY(checkpoint_running(c, &plan, vm, &ref));
    else
        TRY(vm_copy(c, &plan, &ref));
    *result_r = value_string(ref);
    return NULL;
}
