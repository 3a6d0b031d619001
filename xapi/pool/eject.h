/* Taking a host out of the pool. */
#ifndef XAPI_POOL_EJECT_H
#define XAPI_POOL_EJECT_H

#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

/* The host becomes a fresh pool of one and restarts; its local SRs' rows go with it. HOST_OFFLINE [host]
 * when it is down (then host.destroy is for it); OPERATION_NOT_ALLOWED ["VM resident on host"]. */
NODISCARD struct error *pool_eject(struct api_call *c, const char *host_ref);

#endif
