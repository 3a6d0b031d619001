/* The power state of a VM's row and all that follows from it (specs §2.4). */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vbd_device.h"
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

const char *vm_domain_type(const struct row *vm)
{
    const char *type = row_string(vm, F_VM_domain_type);
    if (strcmp(type, "unspecified") != 0)
        return type;
    return row_string(vm, F_VM_HVM_boot_policy)[0] != '\0' ? "hvm" : "pv";
}

/* Where the guest finds a disk is told once it is there. */
static struct error *name_devices(struct api_call *c, struct txn *txn, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL)
            TRY(txn_set_string(txn, CLASS_VBD, vbd->ref, F_VBD_device, vbd_device_name(c->arena, row_string(vbd, F_VBD_userdevice))));
    }
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

static struct error *forget_residence(struct txn *txn, const struct row *vm)
{
    const struct value *vgpus = row_value(vm, F_VM_VGPUs);
    for (unsigned i = 0; i < vgpus->len; i++) {
        if (txn_get(txn, &model_classes[CLASS_VGPU], vgpus->items[i].s) == NULL)
            continue;
        TRY(txn_set_string(txn, CLASS_VGPU, vgpus->items[i].s, F_VGPU_resident_on, REF_NULL));
        TRY(txn_set_string(txn, CLASS_VGPU, vgpus->items[i].s, F_VGPU_scheduled_to_be_resident_on, REF_NULL));
    }
    TRY(txn_set(txn, CLASS_VM, vm->ref, F_VM_attached_PCIs, value_set(NULL, 0)));
    TRY(txn_set_string(txn, CLASS_VM, vm->ref, F_VM_resident_on, REF_NULL));
    TRY(txn_set_string(txn, CLASS_VM, vm->ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
    return txn_set_int(txn, CLASS_VM, vm->ref, F_VM_domid, -1);
}

static struct error *forget_run(struct txn *txn, const struct row *vm)
{
    static const unsigned guidances[] = { F_VM_pending_guidances, F_VM_pending_guidances_recommended, F_VM_pending_guidances_full };
    TRY(set_devices_attached(txn, vm, false));
    TRY(txn_set_bool(txn, CLASS_VM, vm->ref, F_VM_requires_reboot, false));
    for (unsigned i = 0; i < ARRAY_LEN(guidances); i++)
        TRY(txn_set(txn, CLASS_VM, vm->ref, guidances[i], value_set(NULL, 0)));
    const char *guest = row_string(vm, F_VM_guest_metrics);
    if (!ref_is_null(guest) && txn_get(txn, &model_classes[CLASS_VM_guest_metrics], guest) != NULL) {
        TRY(txn_set_string(txn, CLASS_VM, vm->ref, F_VM_guest_metrics, REF_NULL));
        TRY(txn_delete(txn, CLASS_VM_guest_metrics, guest));
    }
    return NULL;
}

static bool is_live(const char *power_state)
{
    return strcmp(power_state, "Running") == 0 || strcmp(power_state, "Paused") == 0;
}

struct error *vm_set_power_state(struct api_call *c, struct txn *txn, const char *vm_ref, const char *power_state, const char *host_ref, int domid)
{
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    bool halted = strcmp(power_state, "Halted") == 0, was_halted = strcmp(row_string(vm, F_VM_power_state), "Halted") == 0;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_power_state, power_state));
    if (!is_live(power_state)) {
        TRY(forget_residence(txn, vm));
    } else {
        TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_resident_on, host_ref));
        TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
        TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_domid, domid));
        if (was_halted) {
            TRY(set_devices_attached(txn, vm, true));
            TRY(name_devices(c, txn, vm));
        }
        TRY(vm_consoles_make(c, txn, vm_ref, host_ref));
    }
    if (halted)
        TRY(forget_run(txn, vm));
    if (!is_live(power_state))
        TRY(vm_consoles_remove(txn, vm_ref));
    return operations_update_around(c, txn, CLASS_VM, vm_ref);
}
