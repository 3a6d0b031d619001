#include "xapi/core/vdi_path.h"

#include <string.h>

#include "xapi/core/agent.h"
#include "xapi/pool/storage_errors.h"

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

struct error *vdi_path(struct api_call *c, const char *vdi_ref, const char *host_ref, const char **path_r)
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
    value_dict_add(c->arena, &args, "read_only", value_bool(row_bool(vdi, F_VDI_read_only)));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, host_ref, "vdi.attach", &value, &where), sr->ref, vdi_ref));
    *path_r = value_get_string(&where, "path", "");
    return NULL;
}
