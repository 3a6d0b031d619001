#include "xapi/core/vm_disks.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/agent.h"

LOG_MODULE(vm_disks);

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
/* Does another VM use the disk on this host, or is about to use it anywhere? */
static bool used_on(struct api_call *c, const struct row *vdi, const char *host_ref, const char *except_vbd)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        if (except_vbd != NULL && strcmp(vbds->items[i].s, except_vbd) == 0)
            continue;
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vm = vbd != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM)) : NULL;
        if (vm == NULL)
            continue;
        if (row_value(vbd, F_VBD_current_operations)->len > 0)
            return true;
        if (row_bool(vbd, F_VBD_currently_attached) && strcmp(row_string(vm, F_VM_resident_on), host_ref) == 0)
            return true;
    }
    return false;
}

void vm_disk_release(struct api_call *c, const char *vdi_ref, const char *host_ref, const char *except_vbd)
{
    const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi_ref);
    const struct row *sr = vdi != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR)) : NULL;
    if (sr == NULL || used_on(c, vdi, host_ref, except_vbd))
        return;
    struct member args[] = { member_of("sr", value_string(row_string(sr, F_SR_uuid))), member_of("location", value_string(row_string(vdi, F_VDI_location))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *e = agent_call(c, host_ref, "vdi.detach", &v, &ignored);
    if (e != NULL)
        log_warn("disk %s stays attached to its host: %s", row_string(vdi, F_VDI_uuid), error_text(c->arena, e));
}

void vm_disks_release(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);
    const struct value *vbds = vm != NULL ? row_value(vm, F_VM_VBDs) : NULL;
    for (unsigned i = 0; vbds != NULL && i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && !row_bool(vbd, F_VBD_empty))
            vm_disk_release(c, row_string(vbd, F_VBD_VDI), host_ref, NULL);
    }
}
