/* Is this password right? By the users file where xapi.conf names one, else by PAM. Blocks: runs on
 * the pool for log-ins only. */
#ifndef XAPI_CORE_AUTHENTICATE_H
#define XAPI_CORE_AUTHENTICATE_H

#include "rpc/base/config.h"
#include "rpc/base/error.h"

/* SESSION_AUTHENTICATION_FAILED [user; text]. */
NODISCARD struct error *authenticate(struct arena *, const struct config *, const char *user, const char *password);
/* CHANGE_PASSWORD_REJECTED [text]. */
NODISCARD struct error *authenticate_change(struct arena *, const struct config *, const char *user, const char *old_password, const char *password);
/* Does the host know the user? (Not by PAM: then any well-formed name might be.) */
NODISCARD struct error *authenticate_known(struct arena *, const struct config *, const char *user, bool *known_r);
/* SESSION_AUTHENTICATION_FAILED [name; text]. */
struct error *authenticate_failed(struct arena *, const char *name, const char *text);

#endif
