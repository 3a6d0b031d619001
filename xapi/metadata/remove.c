/* VMs that go without their disks. */
#include "xapi/core/vm_metrics.h"
#include "xapi/metadata/import.h"
#include "xapi/metadata/vtpm_secret.h"

static struct error *delete_all(struct txn *txn, unsigned class_id, const struct value *refs)
{
    for (unsigned i = 0; i < refs->len; i++)
        if (txn_get(txn, &model_classes[class_id], refs->items[i].s) != NULL)
            TRY(txn_delete(txn, class_id, refs->items[i].s));
    return NULL;
}

static struct error *delete_one(struct txn *txn, unsigned class_id, const char *ref)
{
    return txn_get(txn, &model_classes[class_id], ref) != NULL ? txn_delete(txn, class_id, ref) : NULL;
}

struct error *vm_rows_delete(struct txn *txn, struct arena *a, const struct row *vm)
{
    static const struct { unsigned class_id, field; } sets[] = {
        { CLASS_VBD, F_VM_VBDs }, { CLASS_VIF, F_VM_VIFs }, { CLASS_VGPU, F_VM_VGPUs }, { CLASS_VUSB, F_VM_VUSBs },
        { CLASS_console, F_VM_consoles }, { CLASS_crashdump, F_VM_crash_dumps },
    };
    struct value refs = value_dup(a, row_value(vm, F_VM_VTPMs));
    const char *metrics = arena_strdup(a, row_string(vm, F_VM_metrics)), *guest = arena_strdup(a, row_string(vm, F_VM_guest_metrics));

    for (unsigned i = 0; i < refs.len; i++) {
        const struct row *vtpm = txn_get(txn, &model_classes[CLASS_VTPM], refs.items[i].s);
        if (vtpm != NULL)
            TRY(vtpm_delete(txn, vtpm));
    }
    for (unsigned k = 0; k < ARRAY_LEN(sets); k++) {
        refs = value_dup(a, row_value(vm, sets[k].field));
        TRY(delete_all(txn, sets[k].class_id, &refs));
    }
    TRY(delete_one(txn, CLASS_VM_metrics, metrics));
    TRY(delete_one(txn, CLASS_VM_guest_metrics, guest));
    return txn_delete(txn, CLASS_VM, vm->ref);
}

struct error *metadata_remove(struct api_call *c, const char *vm_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], vm_ref);

    if (vm == NULL)
        return NULL;
    struct value snapshots = value_dup(c->arena, row_value(vm, F_VM_snapshots));
    for (unsigned i = 0; i < snapshots.len; i++) {
        const struct row *snapshot = txn_get(txn, &model_classes[CLASS_VM], snapshots.items[i].s);
        if (snapshot != NULL)
            TRY(vm_rows_delete(txn, c->arena, snapshot));
    }
    TRY(vm_rows_delete(txn, c->arena, vm));
    return txn_commit(txn, NULL);
}
