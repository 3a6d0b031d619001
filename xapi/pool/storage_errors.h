/* Errors of storage/ name SRs and VDIs by uuid and location; clients want references. */
#ifndef XAPI_POOL_STORAGE_ERRORS_H
#define XAPI_POOL_STORAGE_ERRORS_H

#include "xapi/core/api_call.h"

/* Rewrites SR_NOT_ATTACHED, SR_OPERATION_NOT_SUPPORTED, VDI_MISSING, VDI_TOO_SMALL, VDI_TOO_LARGE and
 * TASK_CANCELLED with the refs given (NULL: keep what stands there); others pass. NULL gives NULL. */
NODISCARD struct error *storage_error(struct api_call *c, struct error *, const char *sr_ref, const char *vdi_ref);

#endif
