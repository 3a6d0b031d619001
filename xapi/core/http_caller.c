#include "xapi/core/http_caller.h"

#include <string.h>

#include "xapi/core/authenticate.h"
#include "xapi/core/rbac.h"
#include "xapi/core/subject.h"
#include "xapi/core/xapi.h"

void http_caller_root(struct api_call *c)
{
    c->superuser = true;
    c->roles = ~0u;
    c->user = "root";
}

struct error *http_caller_password(struct api_call *c, const char *user, const char *password)
{
    TRY(authenticate(c->arena, c->xapi->config, user, password));
    if (strcmp(user, "root") == 0) {
        http_caller_root(c);
        return NULL;
    }
    const struct row *subject = subject_of_user(c, user);
    if (subject == NULL)
        return err_session_authorization_failed(c->arena, user, "this user has no access to the pool");
    c->user = user;
    c->roles = rbac_roles_of(row_value(subject, F_subject_roles));
    return NULL;
}

int http_caller_status(const struct error *e)
{
    static const struct { const char *code; int status; } table[] = {
        { "SESSION_INVALID", 401 }, { "SESSION_AUTHENTICATION_FAILED", 401 }, { "SESSION_AUTHORIZATION_FAILED", 403 },
        { "RBAC_PERMISSION_DENIED", 403 }, { "HANDLE_INVALID", 404 }, { "UUID_INVALID", 404 }, { "VALUE_NOT_SUPPORTED", 400 },
    };

    for (unsigned i = 0; i < ARRAY_LEN(table); i++)
        if (error_is(e, table[i].code))
            return table[i].status;
    return strncmp(e->code, "IMPORT_", 7) == 0 ? 400 : 500;
}
