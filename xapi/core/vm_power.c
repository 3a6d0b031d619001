/* The power state of a VM's row and all that follows from it (specs §2.4), and memory accounting. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_state.h"

/* currently_attached of every device of the VM. */
static struct error *set_attached(struct txn *txn, const struct value *refs, unsigned class_id, unsigned field, bool attached)
{
    for (unsigned i = 0; i < refs->len; i++)
        if (txn_get(txn, &model_classes[class_id], refs->items[i].s) != NULL)
            TRY(txn_set_bool(txn, class_id, refs->items[i].s, field, attached));
    return NULL;
}

static struct error *set_devices_attached(struct txn *txn, const struct row *vm, bool attached)
{
    TRY(set_attached(txn, row_value(vm, F_VM_VBDs), CLASS_VBD, F_VBD_currently_attached, attached));
    TRY(set_attached(txn, row_value(vm, F_VM_VIFs), CLASS_VIF, F_VIF_currently_attached, attached));
    if (!attached) {
        TRY(set_attached(txn, row_value(vm, F_VM_VGPUs), CLASS_VGPU, F_VGPU_currently_attached, false));
        TRY(set_attached(txn, row_value(vm, F_VM_VUSBs), CLASS_VUSB, F_VUSB_currently_attached, false));
    }
    return NULL;
}

static struct error *forget_residence(struct txn *txn, const char *vm_ref)
{
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_resident_on, REF_NULL));
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
    return txn_set_int(txn, CLASS_VM, vm_ref, F_VM_domid, -1);
}

static struct error *forget_run(struct txn *txn, const struct row *vm)
{
    TRY(set_devices_attached(txn, vm, false));
    TRY(txn_set_bool(txn, CLASS_VM, vm->ref, F_VM_requires_reboot, false));
    TRY(txn_set(txn, CLASS_VM, vm->ref, F_VM_pending_guidances, value_set(NULL, 0)));
    const char *guest = row_string(vm, F_VM_guest_metrics);
    if (!ref_is_null(guest) && txn_get(txn, &model_classes[CLASS_VM_guest_metrics], guest) != NULL) {
        TRY(txn_set_string(txn, CLASS_VM, vm->ref, F_VM_guest_metrics, REF_NULL));
        TRY(txn_delete(txn, CLASS_VM_guest_metrics, guest));
    }
    return NULL;
}

struct error *vm_set_power_state(struct api_call *c, struct txn *txn, const char *vm_ref, const char *power_state, const char *host_ref, int domid)
{
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    bool halted = strcmp(power_state, "Halted") == 0, suspended = strcmp(power_state, "Suspended") == 0;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_power_state, power_state));
    if (halted || suspended) {
        TRY(forget_residence(txn, vm_ref));
    } else {
        TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_resident_on, host_ref));
        TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
        TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_domid, domid));
        TRY(set_devices_attached(txn, vm, true));
        TRY(vm_consoles_make(c, txn, vm_ref, host_ref));
    }
    if (halted)
        TRY(forget_run(txn, vm));
    if (halted || suspended)
        TRY(vm_consoles_remove(txn, vm_ref));
    return operations_update(c, txn, CLASS_VM, vm_ref);
}

int64_t vm_memory_needed(const struct row *vm)
{
    bool pv_in_pvh = strcmp(row_string(vm, F_VM_domain_type), "pv_in_pvh") == 0;
    int64_t memory = row_int(vm, pv_in_pvh ? F_VM_memory_static_max : F_VM_memory_dynamic_min);
    return memory + row_int(vm, F_VM_memory_overhead);
}

int64_t host_memory_free(struct txn *txn, const struct row *host)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    int64_t free_bytes = (metrics != NULL ? row_int(metrics, F_host_metrics_memory_total) : 0) - row_int(host, F_host_memory_overhead);
    struct row_list vms = txn_all(txn, &model_classes[CLASS_VM]);
    for (unsigned i = 0; i < vms.n; i++) {
        const struct row *vm = vms.rows[i];
        bool here = strcmp(row_string(vm, F_VM_resident_on), host->ref) == 0;
        bool coming = strcmp(row_string(vm, F_VM_scheduled_to_be_resident_on), host->ref) == 0;
        if (here || coming)
            free_bytes -= vm_memory_needed(vm);
    }
    return free_bytes;
}
