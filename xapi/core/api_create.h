/* Making and destroying objects through their API messages as part of another call. */
#ifndef XAPI_CORE_API_CREATE_H
#define XAPI_CORE_API_CREATE_H

#include "xapi/core/api_call.h"

/* Runs a constructor (M_VDI_create) with these fields and defaults for all others; *ref_r in c's arena.
 * Errors are the constructor's. */
NODISCARD struct error *api_create(struct api_call *c, unsigned message_id, const struct member *fields, unsigned n, const char **ref_r);
/* VDI.destroy for something that is only in the way: also when the call was cancelled; failures are
 * logged. A null ref is fine; so is an image that a suspended VM or a checkpoint still needs: it stays. */
void api_discard_vdi(struct api_call *c, const char *vdi_ref, const char *what);

#endif
