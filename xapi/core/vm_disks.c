#include "xapi/core/vm_disks.h"

#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vdi_path.h"

/* --- marks ------------------------------------------------------------------------------------------------ */
struct error *vm_disks_mark(struct api_call *c, struct txn *txn, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    bool halted = strcmp(row_string(vm, F_VM_power_state), "Halted") == 0;
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && (halted || row_bool(vbd, F_VBD_currently_attached)))
            TRY(operation_mark(c, txn, CLASS_VBD, vbd->ref, "attach", true));
    }
    return NULL;
}

struct error *vm_disks_unmark(struct api_call *c, struct txn *txn, const char *vm_ref)
{
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], vm_ref);
    const struct value *vbds = vm != NULL ? row_value(vm, F_VM_VBDs) : NULL;
    for (unsigned i = 0; vbds != NULL && i < vbds->len; i++)
        TRY(operation_unmark(c, txn, CLASS_VBD, vbds->items[i].s));
    return NULL;
}

/* --- letting go ---------------------------------------------------------------------------------------------- */
void vm_disk_release(struct api_call *c, const char *vdi_ref, const char *host_ref, const char *vbd_ref)
{
    const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbd_ref);
    if (vbd != NULL)
        vdi_path_release(c, vdi_ref, host_ref, vdi_user_of_vbd(c->arena, vbd));
}

void vm_disks_release(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);
    const struct value *vbds = vm != NULL ? row_value(vm, F_VM_VBDs) : NULL;
    for (unsigned i = 0; vbds != NULL && i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && !row_bool(vbd, F_VBD_empty))
            vm_disk_release(c, row_string(vbd, F_VBD_VDI), host_ref, vbd->ref);
    }
}

/* --- moving them ------------------------------------------------------------------------------------------------ */
static bool written(const struct row *vbd)
{
    return row_bool(vbd, F_VBD_currently_attached) && !row_bool(vbd, F_VBD_empty) && strcmp(row_string(vbd, F_VBD_mode), "RW") == 0 &&
           strcmp(row_string(vbd, F_VBD_type), "CD") != 0;
}

struct value vm_disks_written(struct api_call *c, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    struct value_list list = { 0 };
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vdi = vbd != NULL && written(vbd) ? db_get(c->db, c->arena, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI)) : NULL;
        const struct row *sr = vdi != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR)) : NULL;
        struct value_dict d = { 0 };
        if (sr == NULL)
            continue;
        value_dict_add(c->arena, &d, "sr", value_string(row_string(sr, F_SR_uuid)));
        value_dict_add(c->arena, &d, "location", value_string(row_string(vdi, F_VDI_location)));
        value_list_add(c->arena, &list, value_dict_value(&d));
    }
    return value_list_value(&list);
}
