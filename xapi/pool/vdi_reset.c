#include "xapi/core/vdi_reset.h"

#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

#define RESET_POINT "reset-point" /* sm_config: uuid of the snapshot */

/* The disk of a VBD that is put back; NULL: it is not such a one. */
static const struct row *resetting(struct api_call *c, const char *vbd_ref)
{
    const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbd_ref);
    const struct row *vdi = vbd == NULL ? NULL : db_get(c->db, c->arena, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI));

    return vdi != NULL && strcmp(row_string(vdi, F_VDI_on_boot), "reset") == 0 ? vdi : NULL;
}

static const struct row *point_of(struct api_call *c, const struct row *vdi)
{
    const char *uuid = row_map(vdi, F_VDI_sm_config, RESET_POINT, "");

    return uuid[0] == '\0' ? NULL : db_by_uuid(c->db, c->arena, &model_classes[CLASS_VDI], uuid);
}

static struct error *point_record(struct api_call *c, const struct row *vdi, const char *point_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *point;

    TRY(txn_need(txn, CLASS_VDI, point_ref, &point));
    TRY(vdi_settle(c, txn, point_ref));
    TRY(txn_set_bool(txn, CLASS_VDI, point_ref, F_VDI_managed, false));
    TRY(txn_set_string(txn, CLASS_VDI, point_ref, F_VDI_name_description, "What the disk is reset to when its VM starts"));
    TRY(txn_map_put(txn, CLASS_VDI, vdi->ref, F_VDI_sm_config, RESET_POINT, value_string(row_string(point, F_VDI_uuid))));
    TRY(operations_update(c, txn, CLASS_VDI, point_ref));
    return txn_commit(txn, NULL);
}

static struct error *reset(struct api_call *c, const struct row *vdi)
{
    const struct row *point = point_of(c, vdi);
    const char *ref;
    struct value stat;

    if (point == NULL) {
        TRY(vdi_derive(c, vdi->ref, VDI_CHILD_SNAPSHOT, VDI_PROVISIONAL, &ref));
        return point_record(c, vdi, ref);
    }
    const struct member members[] = { member_of("snapshot", value_string(row_string(point, F_VDI_location))) };
    struct value more = value_map(members, 1);
    TRY(vdi_verb(c, vdi, "vdi.revert", &more, &stat));
    return vdi_refresh(c, vdi->ref);
}

struct error *vdi_reset_disks(struct api_call *c, const char *vm_ref)
{
    const struct row *vm;

    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vdi = resetting(c, vbds->items[i].s);

        if (vdi != NULL)
            TRY(reset(c, vdi));
    }
    return NULL;
}

bool vdi_reset_any(struct api_call *c, const char *vm_ref)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);
    const struct value *vbds = vm == NULL ? NULL : row_value(vm, F_VM_VBDs);

    for (unsigned i = 0; vbds != NULL && i < vbds->len; i++)
        if (resetting(c, vbds->items[i].s) != NULL)
            return true;
    return false;
}

struct error *vdi_reset_forget(struct api_call *c, const char *vdi_ref)
{
    const struct row *vdi;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    const struct row *point = point_of(c, vdi);
    if (point != NULL)
        TRY(vdi_unmake(c, point->ref));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    if (txn_get(txn, &model_classes[CLASS_VDI], vdi_ref) == NULL)
        return NULL;
    TRY(txn_map_remove(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, RESET_POINT));
    return txn_commit(txn, NULL);
}
