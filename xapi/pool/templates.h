/* The default templates of a fresh pool. */
#ifndef XAPI_POOL_TEMPLATES_H
#define XAPI_POOL_TEMPLATES_H

#include "xapi/core/api_call.h"

NODISCARD struct error *templates_create(struct txn *, struct arena *);

#endif
