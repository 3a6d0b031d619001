/* The users file: "name:hash" lines, hashes as crypt(3) makes them; '#' starts a comment line.
 *
 * For hosts without PAM, tests and demos; written by 'xapi-ctl passwd' and session.change_password,
 * always as a whole and durably, mode 0600. */
#ifndef XAPI_CORE_USERS_H
#define XAPI_CORE_USERS_H

#include <stdbool.h>

#include "rpc/base/error.h"

/* A user that is not there fails as slowly as a wrong password. Error: the file cannot be read. */
NODISCARD struct error *users_check(struct arena *, const char *path, const char *user, const char *password, bool *ok_r);
NODISCARD struct error *users_has(struct arena *, const char *path, const char *user, bool *known_r);
/* Adds the user or changes the password. The file is made when absent. */
NODISCARD struct error *users_set(struct arena *, const char *path, const char *user, const char *password);

#endif
