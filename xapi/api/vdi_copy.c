/* Disks from disks: clones, snapshots, copies. */
#include "rpc/base/uuid.h"
#include "xapi/pool/vdi_make.h"

static struct error *derive(struct api_call *c, const char *vdi_ref, enum vdi_child kind, struct value *result_r)
{
    const char *ref;

    TRY(vdi_derive(c, vdi_ref, kind, VDI_SETTLED, &ref));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_VDI_clone(struct api_call *c, const struct api_VDI_clone_args *a, struct value *result_r)
{
    return derive(c, a->vdi, VDI_CHILD_CLONE, result_r);
}

struct error *api_VDI_snapshot(struct api_call *c, const struct api_VDI_snapshot_args *a, struct value *result_r)
{
    return derive(c, a->vdi, VDI_CHILD_SNAPSHOT, result_r);
}

/* base_vdi only says what into_vdi holds already: the result is the same without it. */
struct error *api_VDI_copy(struct api_call *c, const struct api_VDI_copy_args *a, struct value *result_r)
{
    const struct row *vdi;
    const char *ref = a->into_vdi;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi, &vdi));
    if (!ref_is_null(a->into_vdi) && db_get(c->db, c->arena, &model_classes[CLASS_VDI], a->into_vdi) != NULL)
        TRY(vdi_copy_into(c, a->vdi, a->into_vdi));
    else
        TRY(vdi_copy_whole(c, a->vdi, ref_is_null(a->sr) ? row_string(vdi, F_VDI_SR) : a->sr, VDI_SETTLED, &ref));
    *result_r = value_string(ref);
    return NULL;
}
