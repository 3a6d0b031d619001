/* HTTP handlers of the two RPC protocols; see front.h. */
#ifndef XAPI_CORE_RPC_FRONT_H
#define XAPI_CORE_RPC_FRONT_H

#include "xapi/core/dispatch.h"
#include "rpc/http/server.h"
#include "rpc/wire/envelope.h"

void rpc_http_xml(struct http_exchange *, void *xapi);
void rpc_http_json(struct http_exchange *, void *xapi);

/* One RPC request between the wire and its reply; lives in the exchange's arena. */
struct rpc {
    struct xapi *xapi;
    struct http_exchange *x;
    struct wire_call call;
    struct api_call c;
    struct request r;
    int64_t began_us;
};

/* Is the request local root's, or does it carry the pool secret? */
enum rpc_trust { RPC_STRANGER, RPC_ROOT, RPC_PEER };
enum rpc_trust rpc_trust(struct http_exchange *, const struct xapi *);

#endif
