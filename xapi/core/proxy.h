/* On a member: what local root asks on the Unix socket is asked of the coordinator, byte for byte, with
 * the pool secret (specs §5.8). Calls that run on any host stay here. */
#ifndef XAPI_CORE_PROXY_H
#define XAPI_CORE_PROXY_H

#include "xapi/core/rpc_front.h"

bool proxy_wanted(const struct rpc *);
/* Answers the exchange, sooner or later. CANNOT_CONTACT_HOST [coordinator address]. */
void proxy_start(struct rpc *);

#endif
