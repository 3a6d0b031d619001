#include "xapi/core/vdi_path.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/pool/storage_errors.h"

LOG_MODULE(vdi_path);

static bool attached_on(struct api_call *c, const struct row *sr, const char *host_ref)
{
    const struct value *pbds = row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0)
            return row_bool(pbd, F_PBD_currently_attached);
    }
    return false;
}

struct error *vdi_path(struct api_call *c, const char *vdi_ref, const char *host_ref, const struct vdi_path_use *use, const char **path_r)
{
    const struct row *vdi, *sr;
    struct value_dict args = { 0 };
    struct value value, where;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &sr));
    if (!attached_on(c, sr, host_ref))
        return err_sr_not_attached(c->arena, sr->ref);
    value_dict_add(c->arena, &args, "sr", value_string(row_string(sr, F_SR_uuid)));
    value_dict_add(c->arena, &args, "location", value_string(row_string(vdi, F_VDI_location)));
    value_dict_add(c->arena, &args, "user", value_string(use->user));
    value_dict_add(c->arena, &args, "read_only", value_bool(use->read_only || row_bool(vdi, F_VDI_read_only)));
    value_dict_add(c->arena, &args, "direct", value_bool(use->direct));
    value_dict_add(c->arena, &args, "cached", value_bool(use->cached));
    value_dict_add(c->arena, &args, "activate", value_bool(use->activate));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, host_ref, "vdi.attach", &value, &where), sr->ref, vdi_ref));
    *path_r = value_get_string(&where, "path", "");
    return NULL;
}

void vdi_path_release(struct api_call *c, const char *vdi_ref, const char *host_ref, const char *user)
{
    const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi_ref);
    const struct row *sr = vdi != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR)) : NULL;

    if (sr == NULL)
        return;
    const struct member members[] = {
        member_of("sr", value_string(row_string(sr, F_SR_uuid))),
        member_of("location", value_string(row_string(vdi, F_VDI_location))),
        member_of("user", value_string(user)),
    };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;
    struct error *error = agent_call(c, host_ref, "vdi.detach", &args, &ignored);
    if (error != NULL)
        log_warn("disk %s stays attached to its host: %s", row_string(vdi, F_VDI_uuid), error_text(c->arena, error));
}

const char *vdi_user_of_vbd(struct arena *a, const struct row *vbd) { return arena_printf(a, "vbd-%s", row_string(vbd, F_VBD_uuid)); }
