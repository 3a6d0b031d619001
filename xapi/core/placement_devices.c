/* Devices of a host that a VM needs: rules 9 to 11 of specs §1.7. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/placement.h"

struct need { struct api_call *c; struct txn *txn; const struct row *vm, *host; };

static bool passes_through(struct need *n, const struct row *vgpu)
{
    const struct row *type = txn_get(n->txn, &model_classes[CLASS_VGPU_type], row_string(vgpu, F_VGPU_type));
    return type != NULL && strcmp(row_string(type, F_VGPU_type_implementation), "passthrough") == 0;
}

static struct error *check_iommu(struct need *n, const struct row *vgpu)
{
    const char *iommu = row_map(n->host, F_host_chipset_info, "iommu", "false");
    return passes_through(n, vgpu) && strcmp(iommu, "true") != 0 ? err_vm_requires_iommu(n->c->arena, n->host->ref) : NULL;
}

/* Is there room for one more of the type on this GPU? Our own reservation counts as room. */
static bool gpu_has_room(struct need *n, const struct row *gpu, const struct row *vgpu)
{
    const char *type = row_string(vgpu, F_VGPU_type);
    if (strcmp(row_string(vgpu, F_VGPU_resident_on), gpu->ref) == 0 || strcmp(row_string(vgpu, F_VGPU_scheduled_to_be_resident_on), gpu->ref) == 0)
        return true;
    if (!value_set_has(row_value(gpu, F_PGPU_enabled_VGPU_types), type))
        return false;
    int64_t used = 0;
    struct row_list vgpus = txn_all(n->txn, &model_classes[CLASS_VGPU]);
    for (unsigned i = 0; i < vgpus.n; i++)
        used += strcmp(row_string(vgpus.rows[i], F_VGPU_resident_on), gpu->ref) == 0 ||
                strcmp(row_string(vgpus.rows[i], F_VGPU_scheduled_to_be_resident_on), gpu->ref) == 0;
    return used < value_get_int(row_value(gpu, F_PGPU_supported_VGPU_max_capacities), type, 0);
}

static struct error *check_vgpu(struct need *n, const struct row *vgpu)
{
    const char *group_ref = row_string(vgpu, F_VGPU_GPU_group), *type = row_string(vgpu, F_VGPU_type);
    const struct row *group = txn_get(n->txn, &model_classes[CLASS_GPU_group], group_ref);
    const struct value *gpus = group != NULL ? row_value(group, F_GPU_group_PGPUs) : NULL;
    bool any = false;
    for (unsigned i = 0; gpus != NULL && i < gpus->len; i++) {
        const struct row *gpu = txn_get(n->txn, &model_classes[CLASS_PGPU], gpus->items[i].s);
        if (gpu == NULL || strcmp(row_string(gpu, F_PGPU_host), n->host->ref) != 0)
            continue;
        any = true;
        if (gpu_has_room(n, gpu, vgpu))
            return NULL;
    }
    return any && !ref_is_null(type) ? err_vm_requires_vgpu(n->c->arena, n->vm->ref, group_ref, type) : err_vm_requires_gpu(n->c->arena, n->vm->ref, group_ref);
}

static struct error *check_vusb(struct need *n, const struct row *vusb)
{
    const struct row *group = txn_get(n->txn, &model_classes[CLASS_USB_group], row_string(vusb, F_VUSB_USB_group));
    const struct value *pusbs = group != NULL ? row_value(group, F_USB_group_PUSBs) : NULL;
    const struct row *pusb = pusbs != NULL && pusbs->len > 0 ? txn_get(n->txn, &model_classes[CLASS_PUSB], pusbs->items[0].s) : NULL;
    if (pusb != NULL && strcmp(row_string(pusb, F_PUSB_host), n->host->ref) == 0)
        return NULL;
    return err_operation_not_allowed(n->c->arena, arena_printf(n->c->arena, "VUSB %s is not available on Host %s", vusb->ref, n->host->ref));
}

static struct error *each(struct need *n, unsigned field, unsigned class_id, struct error *(*check)(struct need *, const struct row *))
{
    const struct value *refs = row_value(n->vm, field);
    for (unsigned i = 0; i < refs->len; i++) {
        const struct row *device = txn_get(n->txn, &model_classes[class_id], refs->items[i].s);
        if (device != NULL)
            TRY(check(n, device));
    }
    return NULL;
}

struct error *placement_check_devices(struct api_call *c, struct txn *txn, const struct row *vm, const struct row *host)
{
    struct need n = { c, txn, vm, host };
    TRY(each(&n, F_VM_VGPUs, CLASS_VGPU, check_iommu));
    TRY(each(&n, F_VM_VGPUs, CLASS_VGPU, check_vgpu));
    return each(&n, F_VM_VUSBs, CLASS_VUSB, check_vusb);
}
