/* VBD and VIF operations (specs §2.7, §2.8). */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static const char *lower_state(const char *state)
{
    if (strcmp(state, "Halted") == 0)
        return "halted";
    if (strcmp(state, "Paused") == 0)
        return "paused";
    return strcmp(state, "Running") == 0 ? "running" : "suspended";
}

/* An operation of the VM that devices must not cross. */
static struct error *check_vm_busy(struct api_call *c, const struct row *vm, const char *op)
{
    const struct value *current = row_value(vm, F_VM_current_operations);
    if (!one_of(op, LIST("plug", "unplug")))
        return NULL;
    for (unsigned i = 0; i < current->len; i++)
        if (one_of(current->members[i].value.s, LIST("clean_shutdown", "hard_shutdown", "suspend", "pause")))
            return err_operation_not_allowed(c->arena, arena_printf(c->arena, "Current operation on VM:%s is %s", vm->ref, current->members[i].value.s));
    return NULL;
}

/* Plugged, unplugged, and the state of the VM, in that order. */
static struct error *check_plugging(struct api_call *c, const struct row *vm, const char *device, bool attached, const char *op)
{
    const char *state = row_string(vm, F_VM_power_state);
    bool running = strcmp(state, "Running") == 0;
    if (running && attached && strcmp(op, "plug") == 0)
        return err_device_already_attached(c->arena, device);
    if (running && !attached && one_of(op, LIST("unplug", "unplug_force")))
        return err_device_already_detached(c->arena, device);
    if (running || !one_of(op, LIST("plug", "unplug", "unplug_force", "pause", "unpause")))
        return NULL;
    if (strcmp(state, "Paused") == 0 && one_of(op, LIST("pause", "unpause")))
        return NULL;
    return err_vm_bad_power_state(c->arena, vm->ref, "running", lower_state(state));
}

/* A guest with emulated hardware plugs only with the help of its drivers. */
static struct error *check_drivers(struct api_call *c, struct txn *txn, const struct row *vm, unsigned hotplug_field, const char *refusal)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_VM_metrics], row_string(vm, F_VM_metrics));
    const struct row *guest = txn_get(txn, &model_classes[CLASS_VM_guest_metrics], row_string(vm, F_VM_guest_metrics));
    if (strcmp(row_string(vm, F_VM_power_state), "Running") != 0 || metrics == NULL ||
        strcmp(row_string(metrics, F_VM_metrics_current_domain_type), "hvm") != 0)
        return NULL;
    const char *can = guest != NULL ? row_string(guest, hotplug_field) : "unspecified";
    if (strcmp(can, "yes") == 0)
        return NULL;
    if (strcmp(can, "no") == 0)
        return err_operation_not_allowed(c->arena, refusal);
    bool drivers = guest != NULL && (row_bool(guest, F_VM_guest_metrics_PV_drivers_detected) || row_value(guest, F_VM_guest_metrics_PV_drivers_version)->len > 0);
    return drivers ? NULL : err_vm_missing_pv_drivers(c->arena, vm->ref);
}

static bool booted_hvm(struct txn *txn, const struct row *vm)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_VM_metrics], row_string(vm, F_VM_metrics));
    return metrics != NULL && strcmp(row_string(metrics, F_VM_metrics_current_domain_type), "hvm") == 0;
}

static struct error *vbd_conflict(struct api_call *c, const struct row *vbd, const char *op)
{
    const struct value *current = row_value(vbd, F_VBD_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        const char *other = current->members[i].value.s;
        bool harmless = strcmp(op, "pause") == 0     ? one_of(other, LIST("pause", "unpause"))
                        : strcmp(op, "unpause") == 0 ? one_of(other, LIST("attach", "pause", "unpause"))
                                                     : false;
        if (!harmless)
            return err_other_operation_in_progress(c->arena, "VBD", vbd->ref, other, current->members[i].name);
    }
    return NULL;
}

static struct error *vbd_media(struct api_call *c, const struct row *vbd, const char *op)
{
    bool cd = strcmp(row_string(vbd, F_VBD_type), "CD") == 0, empty = row_bool(vbd, F_VBD_empty);
    if (one_of(op, LIST("unplug", "unplug_force")) && !row_bool(vbd, F_VBD_unpluggable))
        return err_vbd_not_unpluggable(c->arena, vbd->ref);
    if (one_of(op, LIST("insert", "eject")) && !cd)
        return err_vbd_not_removable_media(c->arena, vbd->ref);
    if (strcmp(op, "eject") == 0 && empty)
        return err_vbd_is_empty(c->arena, vbd->ref);
    return strcmp(op, "insert") == 0 && !empty ? err_vbd_not_empty(c->arena, vbd->ref) : NULL;
}

static bool is_system_domain(const struct row *vm)
{
    return one_of(row_map(vm, F_VM_other_config, "is_system_domain", "false"), LIST("true", "1"));
}

/* Is it plugged in or about to be, in a VM that really runs and does not know how to share? */
static bool vbd_counts(struct txn *txn, const struct row *vbd)
{
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
    if (vm != NULL && (strcmp(row_string(vm, F_VM_power_state), "Suspended") == 0 || is_system_domain(vm)))
        return false;
    return row_bool(vbd, F_VBD_currently_attached) || row_value(vbd, F_VBD_current_operations)->len > 0;
}

/* Somebody else uses the disk in a way that excludes this VBD. */
static struct error *vbd_sharing(struct api_call *c, struct txn *txn, const struct row *vbd, const struct row *vm, const struct row *vdi)
{
    bool rw = strcmp(row_string(vbd, F_VBD_mode), "RW") == 0, may_share = row_bool(vdi, F_VDI_sharable) || is_system_domain(vm);
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);
    for (unsigned i = 0; i < vbds->len && !may_share; i++) {
        const struct row *other = strcmp(vbds->items[i].s, vbd->ref) == 0 ? NULL : txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (other != NULL && (rw || strcmp(row_string(other, F_VBD_mode), "RW") == 0) && vbd_counts(txn, other))
            return error_make(c->arena, __FILE__, __LINE__, "VDI_IN_USE", 1, vdi->ref);
    }
    return rw && row_bool(vdi, F_VDI_read_only) ? err_vdi_readonly(c->arena, vdi->ref) : NULL;
}

static struct error *vbd_disk(struct api_call *c, struct txn *txn, const struct row *vbd, const struct row *vm, const char *op)
{
    const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI));
    if (row_bool(vbd, F_VBD_empty) || vdi == NULL)
        return NULL;
    if (!row_bool(vdi, F_VDI_managed))
        return err_vdi_not_managed(c->arena, vbd->ref);
    if (!one_of(op, LIST("attach", "plug", "insert")))
        return NULL;
    const struct value *current = row_value(vdi, F_VDI_current_operations);
    bool writes = strcmp(row_string(vbd, F_VBD_mode), "RW") == 0 && !row_bool(vbd, F_VBD_currently_attached);
    for (unsigned i = 0; i < current->len; i++) {
        const char *other = current->members[i].value.s;
        if (writes ? strcmp(other, "mirror") != 0 : !one_of(other, LIST("mirror", "copy"))) /* a copy is of one moment: writers wait for it */
            return err_other_operation_in_progress(c->arena, "VDI", vdi->ref, other, current->members[i].name);
    }
    return row_bool(vbd, F_VBD_currently_attached) ? NULL : vbd_sharing(c, txn, vbd, vm, vdi);
}

static struct error *vbd_hotplug(struct api_call *c, struct txn *txn, const struct row *vbd, const struct row *vm, const char *op)
{
    bool cd = strcmp(row_string(vbd, F_VBD_type), "CD") == 0;
    const char *state = row_string(vm, F_VM_power_state);
    if (one_of(op, LIST("plug", "unplug", "unplug_force"))) {
        TRY(check_drivers(c, txn, vm, F_VM_guest_metrics_can_use_hotplug_vbd, "VM states it does not support VBD hotplug."));
        if (cd && strcmp(state, "Running") == 0 && booted_hvm(txn, vm))
            return err_operation_not_allowed(c->arena, "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected");
    }
    if (cd && strcmp(state, "Suspended") == 0 && one_of(op, LIST("insert", "eject")))
        return err_vm_bad_power_state(c->arena, vm->ref, "halted, running", "suspended");
    return NULL;
}

static struct error *vbd_check(struct api_call *c, struct txn *txn, const struct row *vbd, const char *op, bool strict)
{
    TRY(vbd_conflict(c, vbd, op));
    TRY(vbd_media(c, vbd, op));
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
    if (vm == NULL)
        return NULL;
    TRY(check_plugging(c, vm, vbd->ref, row_bool(vbd, F_VBD_currently_attached), op));
    TRY(check_vm_busy(c, vm, op));
    TRY(vbd_hotplug(c, txn, vbd, vm, op));
    return vbd_disk(c, txn, vbd, vm, op);
}

static bool always_published(struct api_call *c, const struct row *row, const char *op)
{
    return true;
}

const struct operation_rules allowed_vbd = {
    .class_id = CLASS_VBD,
    .current_field = F_VBD_current_operations,
    .allowed_field = F_VBD_allowed_operations,
    .check = vbd_check,
    .published = always_published,
};

/* --- VIF -------------------------------------------------------------------------------------------------------- */
/* Is its network the virtual side of an SR-IOV interface? */
static bool on_sriov_network(struct txn *txn, const struct row *vif)
{
    const struct row *network = txn_get(txn, &model_classes[CLASS_network], row_string(vif, F_VIF_network));
    const struct value *pifs = network != NULL ? row_value(network, F_network_PIFs) : NULL;
    for (unsigned i = 0; pifs != NULL && i < pifs->len; i++) {
        const struct row *pif = txn_get(txn, &model_classes[CLASS_PIF], pifs->items[i].s);
        if (pif != NULL && row_value(pif, F_PIF_sriov_logical_PIF_of)->len > 0)
            return true;
    }
    return false;
}

static struct error *vif_check(struct api_call *c, struct txn *txn, const struct row *vif, const char *op, bool strict)
{
    const struct value *current = row_value(vif, F_VIF_current_operations);
    if (current->len > 0)
        return allowed_conflict(c, "VIF", vif, current, "; ", true, NULL);
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], row_string(vif, F_VIF_VM));
    if (vm == NULL)
        return NULL;
    if (row_bool(vm, F_VM_is_control_domain) && strcmp(op, "plug") == 0)
        return err_operation_not_allowed(c->arena, "This operation is not allowed on dom0");
    if (one_of(op, LIST("plug", "unplug")) && on_sriov_network(txn, vif))
        return err_operation_not_allowed(c->arena, "Network SR-IOV VIF plug/unplug not allowed");
    TRY(check_plugging(c, vm, vif->ref, row_bool(vif, F_VIF_currently_attached), op));
    TRY(check_vm_busy(c, vm, op));
    if (!one_of(op, LIST("plug", "unplug")))
        return NULL;
    return check_drivers(c, txn, vm, F_VM_guest_metrics_can_use_hotplug_vif, "VM states it does not support VIF hotplug.");
}

const struct operation_rules allowed_vif = {
    .class_id = CLASS_VIF,
    .current_field = F_VIF_current_operations,
    .allowed_field = F_VIF_allowed_operations,
    .check = vif_check,
    .published = always_published,
};
