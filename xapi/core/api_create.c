#include "xapi/core/api_create.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/args_record.h"
#include "xapi/core/internal_call.h"

LOG_MODULE(api_create);

struct error *api_create(struct api_call *c, unsigned message_id, const struct member *fields, unsigned n, const char **ref_r)
{
    const struct param_info *param = &model_messages[message_id].params[0];
    struct value given = value_map(fields, n), record, result;
    TRY(args_record(c, param->type, param->name, &given, &record));
    struct { const struct value *record; } args = { &record }; /* as all constructors' argument structs */
    TRY(api_run(c, message_id, &args, &result));
    *ref_r = arena_strdup(c->arena, result.s);
    return NULL;
}

/* A checkpoint keeps the image that its VM was resumed from. */
static bool is_image(struct api_call *c, const char *vdi_ref)
{
    struct row_list vms = db_all(c->db, c->arena, &model_classes[CLASS_VM]);
    for (unsigned i = 0; i < vms.n; i++)
        if (strcmp(row_string(vms.rows[i], F_VM_suspend_VDI), vdi_ref) == 0)
            return true;
    return false;
}

void api_discard_vdi(struct api_call *c, const char *vdi_ref, const char *what)
{
    struct api_call calm = internal_call_cleanup(c);
    struct api_VDI_destroy_args args = { .self = vdi_ref };
    struct value ignored;
    if (ref_is_null(vdi_ref) || is_image(c, vdi_ref))
        return;
    struct error *e = api_run(&calm, M_VDI_destroy, &args, &ignored);
    if (e != NULL && !error_is(e, "HANDLE_INVALID"))
        log_warn("%s %s stays: %s", what, vdi_ref, error_text(c->arena, e));
}
