#include "xapi/migrate/incoming_disks.h"

#include "rpc/base/uuid.h"
#include "xapi/core/vdi_path.h"
#include "xapi/pool/vdi_make.h"

static const char *user_of(struct arena *a, const char *id)
{
    return arena_printf(a, "incoming-%s", id);
}

struct error *incoming_disk_make(struct api_call *c, const char *id, const char *host_ref, struct incoming_disk *d)
{
    const struct vdi_plan plan = { .sr = d->sr, .size = d->size, .format = d->format, .chosen = d->chosen, .end = VDI_PROVISIONAL };
    const struct vdi_path_use use = { .user = user_of(c->arena, id), .activate = true };
    const struct row *vdi, *sr;
    const char *path;

    TRY(vdi_make(c, &plan, &d->vdi));
    TRY(db_need(c->db, c->arena, CLASS_VDI, d->vdi, &vdi));
    TRY(db_need(c->db, c->arena, CLASS_SR, d->sr, &sr));
    d->uuid = row_string(vdi, F_VDI_uuid);
    d->location = row_string(vdi, F_VDI_location);
    d->sr_uuid = row_string(sr, F_SR_uuid);
    return vdi_path(c, d->vdi, host_ref, &use, &path);
}

void incoming_disk_release(struct api_call *c, const char *id, const char *host_ref, const char *vdi_ref)
{
    vdi_path_release(c, vdi_ref, host_ref, user_of(c->arena, id));
}

struct error *incoming_disk_away(struct api_call *c, const char *id, const char *host_ref, const char *vdi_ref)
{
    if (vdi_ref == NULL || db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi_ref) == NULL)
        return NULL;
    incoming_disk_release(c, id, host_ref, vdi_ref);
    return vdi_unmake(c, vdi_ref);
}
