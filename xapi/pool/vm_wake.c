#include "xapi/pool/vm_wake.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_run.h"

LOG_MODULE(vm_wake);

struct error *vm_wake_done(struct api_call *c, const char *image_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    if (txn_get(txn, &model_classes[CLASS_VDI], image_ref) == NULL)
        return NULL;
    TRY(txn_map_remove(txn, CLASS_VDI, image_ref, F_VDI_other_config, VM_IMAGE_WAKES));
    return txn_commit(txn, NULL);
}

static bool sleeps_by_mistake(struct api_call *c, const struct row *vm)
{
    const struct row *image;

    if (row_bool(vm, F_VM_is_a_snapshot) || strcmp(row_string(vm, F_VM_power_state), "Suspended") != 0)
        return false;
    image = db_get(c->db, c->arena, &model_classes[CLASS_VDI], row_string(vm, F_VM_suspend_VDI));
    return image != NULL && strcmp(row_map(image, F_VDI_other_config, VM_IMAGE_WAKES, "false"), "true") == 0;
}

static struct error *wake(struct api_call *c, const struct row *vm)
{
    const char *image = row_string(vm, F_VM_suspend_VDI);
    bool taken;

    TRY(operation_take(c, CLASS_VM, vm->ref, "resume", &taken));
    if (!taken)
        return NULL;
    OPERATION_SCOPE scope = { c, CLASS_VM, vm->ref, "resume" };
    log_info("VM %s was suspended for a checkpoint that was cut short: it is resumed", row_string(vm, F_VM_uuid));
    TRY(vm_run_resume(c, vm->ref, NULL, false, false));
    return vm_wake_done(c, image);
}

void vm_wake_all(struct api_call *c)
{
    struct row_list vms = db_all(c->db, c->arena, &model_classes[CLASS_VM]);

    for (unsigned i = 0; i < vms.n; i++) {
        struct error *error = sleeps_by_mistake(c, vms.rows[i]) ? wake(c, vms.rows[i]) : NULL;

        if (error != NULL)
            log_warn("VM %s stays suspended: %s", row_string(vms.rows[i], F_VM_uuid), error_text(c->arena, error));
    }
}
