/* Questions about VMs: what they may do, where they could run, what they need. Nothing is changed. */
#include <inttypes.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/vbd_device.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_memory.h"

#define VIF_DEVICES_MAX 7

struct error *api_VM_assert_can_boot_here(struct api_call *c, const struct api_VM_assert_can_boot_here_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm, *host;
    TRY(txn_need(txn, CLASS_VM, a->self, &vm));
    TRY(txn_need(txn, CLASS_host, a->host, &host));
    if (version_upgrade_in_progress(c) && !version_is_coordinators(c, host))
        return err_vm_host_incompatible_version(c->arena, a->host, a->self);
    return placement_check(c, txn, vm, host, PLACE_CPU | PLACE_SR | PLACE_MEMORY);
}

struct error *api_VM_get_possible_hosts(struct api_call *c, const struct api_VM_get_possible_hosts_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->vm, &vm));
    struct value_list list = { 0 };
    const char *scheduled = row_string(vm, F_VM_scheduled_to_be_resident_on);
    if (!ref_is_null(scheduled)) {
        value_list_add(c->arena, &list, value_string(arena_strdup(c->arena, scheduled)));
    } else {
        struct row_list hosts = txn_all(txn, &model_classes[CLASS_host]);
        for (unsigned i = 0; i < hosts.n; i++)
            if (placement_check(c, txn, vm, hosts.rows[i], PLACE_SR | PLACE_MEMORY) == NULL)
                value_list_add(c->arena, &list, value_string(arena_strdup(c->arena, hosts.rows[i]->ref)));
    }
    *result_r = value_list_value(&list);
    return NULL;
}

struct error *api_VM_assert_operation_valid(struct api_call *c, const struct api_VM_assert_operation_valid_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->self, &vm));
    return operation_check_vm(c, txn, vm, a->op, true);
}

struct error *api_VM_update_allowed_operations(struct api_call *c, const struct api_VM_update_allowed_operations_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(operations_update_around(c, txn, CLASS_VM, a->self));
    return txn_commit(txn, NULL);
}

struct error *api_VM_get_allowed_VBD_devices(struct api_call *c, const struct api_VM_get_allowed_VBD_devices_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->vm, &vm));
    *result_r = vbd_devices_free(c->arena, txn, vm, false);
    return NULL;
}

static bool vif_device_used(struct txn *txn, const struct row *vm, const char *device)
{
    const struct value *vifs = row_value(vm, F_VM_VIFs);
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = txn_get(txn, &model_classes[CLASS_VIF], vifs->items[i].s);
        if (vif != NULL && strcmp(row_string(vif, F_VIF_device), device) == 0)
            return true;
    }
    return false;
}

struct error *api_VM_get_allowed_VIF_devices(struct api_call *c, const struct api_VM_get_allowed_VIF_devices_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->vm, &vm));
    struct value_list list = { 0 };
    for (unsigned i = 0; i < VIF_DEVICES_MAX; i++) {
        const char *device = arena_printf(c->arena, "%u", i);
        if (!vif_device_used(txn, vm, device))
            value_list_add(c->arena, &list, value_string(device));
    }
    *result_r = value_list_value(&list);
    return NULL;
}

struct error *api_VM_compute_memory_overhead(struct api_call *c, const struct api_VM_compute_memory_overhead_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->vm, &vm));
    *result_r = value_int(vm_memory_overhead(vm));
    return NULL;
}

/* The settings of the VM as it runs now are those of its row. */
struct error *api_VM_get_boot_record(struct api_call *c, const struct api_VM_get_boot_record_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->self, &vm));
    *result_r = value_record(&vm->record);
    return NULL;
}

struct error *api_VM_get_cooperative(struct api_call *c, const struct api_VM_get_cooperative_args *a, struct value *result_r)
{
    *result_r = value_bool(true);
    return NULL;
}
