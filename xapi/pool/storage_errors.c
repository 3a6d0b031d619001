#include "xapi/pool/storage_errors.h"

static const char *param(const struct error *error, unsigned i)
{
    return i < error->n_params ? error->params[i] : "";
}

struct error *storage_error(struct api_call *c, struct error *error, const char *sr_ref, const char *vdi_ref)
{
    if (error == NULL)
        return NULL;
    if (sr_ref != NULL && error_is(error, "SR_NOT_ATTACHED"))
        return err_sr_not_attached(c->arena, sr_ref);
    if (sr_ref != NULL && error_is(error, "SR_OPERATION_NOT_SUPPORTED"))
        return err_sr_operation_not_supported(c->arena, sr_ref);
    if (vdi_ref != NULL && error_is(error, "VDI_MISSING"))
        return err_vdi_missing(c->arena, sr_ref != NULL ? sr_ref : param(error, 0), vdi_ref);
    if (vdi_ref != NULL && error_is(error, "VDI_TOO_SMALL"))
        return err_vdi_too_small(c->arena, vdi_ref, param(error, 1));
    if (vdi_ref != NULL && error_is(error, "VDI_TOO_LARGE"))
        return err_vdi_too_large(c->arena, vdi_ref, param(error, 1));
    if (c->task != NULL && error_is(error, "TASK_CANCELLED"))
        return err_task_cancelled(c->arena, c->task);
    return error;
}
