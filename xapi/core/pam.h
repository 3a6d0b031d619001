/* Passwords checked by PAM: the only file that knows of it. */
#ifndef XAPI_CORE_PAM_H
#define XAPI_CORE_PAM_H

#include <stdbool.h>

#include "rpc/base/arena.h"

/* Blocks, for seconds if PAM likes. *why_r: text for the client, in the arena. Thread-safe as far as
 * PAM modules are. */
bool pam_check(struct arena *, const char *service, const char *user, const char *password, const char **why_r);
/* Changes a password after pam_check of the old one. */
bool pam_change(struct arena *, const char *service, const char *user, const char *old_password, const char *password, const char **why_r);

#endif
