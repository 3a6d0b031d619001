/* Private to xapi/metadata: another pool's coordinator by HTTP: XenAPI calls and PUTs with one session. */
#ifndef XAPI_METADATA_PEER_HTTP_H
#define XAPI_METADATA_PEER_HTTP_H

#include "rpc/http/client.h"
#include "xapi/core/api_call.h"

struct peer_http { struct api_call *c; const struct http_target *target; const char *session; };

/* One call with the session put first; at most 8 parameters. The peer's own error, TLS_CONNECTION_FAILED [address; port] where
 * there is no TLS to be had, CANNOT_CONTACT_HOST [address], TASK_CANCELLED [task]. Blocks. */
NODISCARD struct error *peer_http_call(const struct peer_http *, const char *method, const struct value *params, unsigned n, struct value *result_r);
/* PUTs the bytes; cookies: "; task_id=…" or "". *status_r: the answer's. */
NODISCARD struct error *peer_http_put(const struct peer_http *, const char *path, const char *cookies, const void *body, size_t len, int *status_r);
/* Percent-encodes a query value, in the arena. */
const char *peer_http_encode(struct arena *, const char *);

#endif
