/* Messages that run on the host they name (runs_on host_param): here, or sent there over TLS with the
 * pool secret. The member takes such calls without a session of its own; refs in them were checked here. */
#ifndef XAPI_CORE_FORWARD_H
#define XAPI_CORE_FORWARD_H

#include "xapi/core/dispatch.h"

/* Is the host that the call names this one? Always true on a member. */
bool forward_is_here(const struct api_call *c, const struct request *);
/* HOST_OFFLINE [host] when not live; CANNOT_CONTACT_HOST [host]. Errors of the callee come through
 * byte for byte. Blocks. */
NODISCARD struct error *forward(struct api_call *c, const struct request *, struct value *result_r);

#endif
