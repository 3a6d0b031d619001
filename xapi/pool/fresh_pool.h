/* The rows of a pool of one, made once. */
#ifndef XAPI_POOL_FRESH_POOL_H
#define XAPI_POOL_FRESH_POOL_H

#include "xapi/core/api_call.h"

/* One transaction; *host_ref_r in the arena. */
NODISCARD struct error *fresh_pool_create(struct api_call *c, const struct value *description, const char **host_ref_r);

#endif
