/* VM records: made from nothing, and destroyed. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/api_create.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_state.h"

/* --- create ------------------------------------------------------------------------------------------------ */
/* Older clients give the boot policy only, newer ones the domain type; both are kept filled. */
static struct error *complete_type(struct txn *txn, const char *vm_ref)
{
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    const char *type = vm_domain_type(vm), *policy = row_string(vm, F_VM_HVM_boot_policy);
    bool hvm = strcmp(type, "hvm") == 0;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_domain_type, type));
    if (hvm && policy[0] == '\0')
        return txn_set_string(txn, CLASS_VM, vm_ref, F_VM_HVM_boot_policy, "BIOS order");
    return hvm ? NULL : txn_set_string(txn, CLASS_VM, vm_ref, F_VM_HVM_boot_policy, "");
}

static struct error *complete_row(struct api_call *c, struct txn *txn, const char *vm_ref)
{
    const struct row *vm;
    const char *metrics;
    TRY(complete_type(txn, vm_ref));
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    if (strcmp(row_string(vm, F_VM_power_state), "Suspended") != 0 || ref_is_null(row_string(vm, F_VM_suspend_VDI)))
        TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_power_state, "Halted"));
    if (row_map(vm, F_VM_other_config, "mac_seed", NULL) == NULL)
        TRY(txn_map_put(txn, CLASS_VM, vm_ref, F_VM_other_config, "mac_seed", value_string(uuid_make(c->arena))));
    if (row_bool(vm, F_VM_has_vendor_device) && row_int(vm, F_VM_hardware_platform_version) < VM_PLATFORM_VENDOR_DEVICE)
        TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_hardware_platform_version, VM_PLATFORM_VENDOR_DEVICE));
    TRY(vm_memory_overhead_update(txn, vm_ref));
    TRY(vm_metrics_ensure(c, txn, vm_ref, &metrics));
    return operations_update(c, txn, CLASS_VM, vm_ref);
}

/* Whether the values make sense is asked when it starts. */
struct error *api_VM_create(struct api_call *c, const struct api_VM_create_args *a, struct value *result_r)
{
    const struct class_info *class = &model_classes[CLASS_VM];
    struct field_value *fields = arena_calloc(c->arena, a->record->len + 1u, sizeof *fields);
    unsigned n = 0;
    for (unsigned i = 0; i < a->record->len; i++) {
        int field = model_field(class, a->record->members[i].name);
        if (field > 0)
            fields[n++] = (struct field_value){ (unsigned)field, a->record->members[i].value };
    }
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *ref;
    TRY(txn_create(txn, CLASS_VM, NULL, NULL, fields, n, &ref));
    TRY(complete_row(c, txn, ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

/* --- destroy ----------------------------------------------------------------------------------------------- */
static struct error *delete_one(struct txn *txn, const char *ref, unsigned class_id)
{
    return txn_get(txn, &model_classes[class_id], ref) != NULL ? txn_delete(txn, class_id, ref) : NULL;
}

static struct error *delete_all(struct txn *txn, const struct value *refs, unsigned class_id)
{
    for (unsigned i = 0; i < refs->len; i++)
        TRY(delete_one(txn, refs->items[i].s, class_id));
    return NULL;
}

/* Disks stay; what may be done with them changes. */
static struct error *delete_block_devices(struct api_call *c, struct txn *txn, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd == NULL)
            continue;
        const char *vdi = arena_strdup(c->arena, row_string(vbd, F_VBD_VDI));
        TRY(txn_delete(txn, CLASS_VBD, vbd->ref));
        if (txn_get(txn, &model_classes[CLASS_VDI], vdi) != NULL)
            TRY(operations_update_around(c, txn, CLASS_VDI, vdi));
    }
    return NULL;
}

/* What continued this VM now continues what this VM continued. */
static struct error *rebase_children(struct txn *txn, const struct row *vm)
{
    const struct value *children = row_value(vm, F_VM_children);
    for (unsigned i = 0; i < children->len; i++)
        if (txn_get(txn, &model_classes[CLASS_VM], children->items[i].s) != NULL)
            TRY(txn_set_string(txn, CLASS_VM, children->items[i].s, F_VM_parent, row_string(vm, F_VM_parent)));
    return NULL;
}

static struct error *delete_vm(struct api_call *c, const struct row *vm)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct value *blobs = row_value(vm, F_VM_blobs);
    TRY(rebase_children(txn, vm));
    TRY(delete_block_devices(c, txn, vm));
    TRY(delete_all(txn, row_value(vm, F_VM_VIFs), CLASS_VIF));
    TRY(delete_all(txn, row_value(vm, F_VM_VGPUs), CLASS_VGPU));
    TRY(delete_all(txn, row_value(vm, F_VM_VUSBs), CLASS_VUSB));
    TRY(delete_all(txn, row_value(vm, F_VM_VTPMs), CLASS_VTPM));
    TRY(delete_all(txn, row_value(vm, F_VM_consoles), CLASS_console));
    for (unsigned i = 0; i < blobs->len; i++)
        TRY(delete_one(txn, blobs->members[i].value.s, CLASS_blob));
    TRY(delete_one(txn, row_string(vm, F_VM_metrics), CLASS_VM_metrics));
    TRY(delete_one(txn, row_string(vm, F_VM_guest_metrics), CLASS_VM_guest_metrics));
    TRY(txn_delete(txn, CLASS_VM, vm->ref));
    return txn_commit(txn, NULL);
}

struct error *api_VM_destroy(struct api_call *c, const struct api_VM_destroy_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->self, &vm));
    if (row_bool(vm, F_VM_is_default_template) || strcmp(row_map(vm, F_VM_other_config, "default_template", "false"), "true") == 0)
        return err_vm_cannot_delete_default_template(c->arena, a->self);
    TRY(delete_vm(c, vm));
    api_discard_vdi(c, row_string(vm, F_VM_suspend_VDI), "the suspend image");
    return NULL;
}
