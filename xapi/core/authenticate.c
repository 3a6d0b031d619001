#include "xapi/core/authenticate.h"

#include "gen/errors.h"
#include "xapi/core/pam.h"
#include "xapi/core/users.h"

/* The code has no declared parameters, but is always raised with two. */
struct error *authenticate_failed(struct arena *a, const char *name, const char *text)
{
    return error_make(a, __FILE__, __LINE__, "SESSION_AUTHENTICATION_FAILED", 2, name, text);
}

static const char *users_file(const struct config *config)
{
    const char *path = config_string(config, "users-file");

    return *path != '\0' ? path : NULL;
}

struct error *authenticate(struct arena *a, const struct config *config, const char *user, const char *password)
{
    const char *path = users_file(config), *why = "Authentication failure";
    bool ok;

    if (path != NULL)
        TRY(users_check(a, path, user, password, &ok));
    else
        ok = pam_check(a, config_string(config, "pam-service"), user, password, &why);
    return ok ? NULL : authenticate_failed(a, user, why);
}

struct error *authenticate_change(struct arena *a, const struct config *config, const char *user, const char *old_password, const char *password)
{
    const char *path = users_file(config), *why = "refused";

    if (path != NULL)
        return users_set(a, path, user, password);
    if (pam_change(a, config_string(config, "pam-service"), user, old_password, password, &why))
        return NULL;
    return err_change_password_rejected(a, why);
}

struct error *authenticate_known(struct arena *a, const struct config *config, const char *user, bool *known_r)
{
    const char *path = users_file(config);

    *known_r = *user != '\0';
    return path != NULL ? users_has(a, path, user, known_r) : NULL;
}
