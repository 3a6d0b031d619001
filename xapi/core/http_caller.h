/* Who stands behind a request that is no API call (exports, imports, metrics), and how an API error looks to it. */
#ifndef XAPI_CORE_HTTP_CALLER_H
#define XAPI_CORE_HTTP_CALLER_H

#include "xapi/core/api_call.h"

/* A user by name and password: fills the call's user and rights. SESSION_AUTHENTICATION_FAILED, SESSION_AUTHORIZATION_FAILED
 * [user; text] for one who has no access to the pool. Blocks (PAM). */
NODISCARD struct error *http_caller_password(struct api_call *c, const char *user, const char *password);
/* Local root, or a peer that knows the pool's secret. */
void http_caller_root(struct api_call *c);
/* The HTTP status of an error: 401, 403, 404, 400 or 500. */
int http_caller_status(const struct error *);

#endif
