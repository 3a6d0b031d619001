#include "rpc/base/uuid.h"
#include "xapi/core/authenticate.h"
#include "xapi/core/rbac.h"
#include "xapi/core/session.h"
#include "xapi/core/session_db.h"
#include "xapi/core/subject.h"
#include "xapi/core/xapi.h"

#include <string.h>

#define LOGIN "session.login_with_password"

static struct error *superuser_session(struct api_call *c, const char *user, const char *originator, struct value *result_r)
{
    const struct session_spec spec = {
        .kind = SESSION_NORMAL, .user = user, .originator = originator, .superuser = true,
    };
    const char *ref;

    TRY(session_create(c->xapi, c->arena, &spec, &ref));
    *result_r = value_string(ref);
    return NULL;
}

/* Somebody whose password is right, but who is not root: he needs a subject with roles. */
static struct error *subject_session(struct api_call *c, const char *user, const char *originator, struct value *result_r)
{
    const struct row *subject = subject_of_user(c, user);
    const char *ref;

    if (subject == NULL)
        return err_session_authorization_failed(c->arena, user, "this user has no access to the pool");
    unsigned roles = rbac_roles_of(row_value(subject, F_subject_roles));
    if (roles == 0)
        return err_rbac_permission_denied(c->arena, LOGIN, "this user has no role in the pool");
    const struct session_spec spec = {
        .kind = SESSION_NORMAL,
        .user = user,
        .subject = subject->ref,
        .sid = row_string(subject, F_subject_subject_identifier),
        .originator = originator,
        .roles = roles,
    };
    TRY(session_create(c->xapi, c->arena, &spec, &ref));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_session_login_with_password(struct api_call *c, const struct api_session_login_with_password_args *a, struct value *result_r)
{
    const char *originator = *a->originator != '\0' ? a->originator : c->originator != NULL ? c->originator : "";

    if (!c->xapi->is_coordinator)
        return err_host_is_slave(c->arena, c->xapi->coordinator_address);
    if (!atomic_load(&c->xapi->serving) && !c->trusted)
        return err_host_still_booting(c->arena);
    if (c->trusted)
        return superuser_session(c, *a->uname != '\0' ? a->uname : "root", originator, result_r);
    TRY(authenticate(c->arena, c->xapi->config, a->uname, a->pwd));
    if (strcmp(a->uname, "root") == 0)
        return superuser_session(c, a->uname, originator, result_r);
    return subject_session(c, a->uname, originator, result_r);
}

struct error *api_session_slave_login(struct api_call *c, const struct api_session_slave_login_args *a, struct value *result_r)
{
    const struct session_spec spec = {
        .kind = SESSION_POOL, .originator = "pool", .superuser = true, .host = a->host,
    };
    const char *ref;

    if (!c->xapi->is_coordinator)
        return err_host_is_slave(c->arena, c->xapi->coordinator_address);
    if (!secret_equal(a->psecret, c->xapi->pool_secret))
        return authenticate_failed(c->arena, a->host, "Pool credentials invalid");
    TRY(session_create(c->xapi, c->arena, &spec, &ref));
    *result_r = value_string(ref);
    return NULL;
}

static struct error *local_session(struct api_call *c, const char *user, struct value *result_r)
{
    const struct session_spec spec = { .kind = SESSION_LOCAL, .user = user, .superuser = true };
    const char *ref;

    TRY(session_create(c->xapi, c->arena, &spec, &ref));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_session_slave_local_login(struct api_call *c, const struct api_session_slave_local_login_args *a, struct value *result_r)
{
    if (!secret_equal(a->psecret, c->xapi->pool_secret))
        return authenticate_failed(c->arena, "localhost", "Pool credentials invalid");
    return local_session(c, "pool", result_r);
}

/* For emergencies: root only, and no database is asked. */
struct error *api_session_slave_local_login_with_password(struct api_call *c, const struct api_session_slave_local_login_with_password_args *a,
                                                          struct value *result_r)
{
    if (!c->trusted) {
        TRY(authenticate(c->arena, c->xapi->config, a->uname, a->pwd));
        if (strcmp(a->uname, "root") != 0)
            return err_session_authorization_failed(c->arena, a->uname, "local sessions are for root");
    }
    return local_session(c, a->uname, result_r);
}

/* Local root looks at a copy of a pool database (of a backup, or brought along by a disk). */
struct error *api_session_create_from_db_file(struct api_call *c, const struct api_session_create_from_db_file_args *a, struct value *result_r)
{
    struct session_spec spec = { .kind = SESSION_NORMAL, .user = c->user, .originator = "create_from_db_file", .superuser = true };
    const char *copy = arena_printf(c->arena, "%s/session-%s.db", c->xapi->dir, uuid_make(c->arena)), *ref;

    TRY(session_db_open(c->arena, c->call.clock, a->filename, copy, &spec.own));
    struct error *e = session_create(c->xapi, c->arena, &spec, &ref);
    if (e != NULL) {
        session_db_close(spec.own);
        return e;
    }
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_session_logout(struct api_call *c, const struct api_session_logout_args *a, struct value *result_r)
{
    if (c->session != NULL)
        session_destroy(c->xapi, c->arena, c->session);
    return NULL;
}

struct error *api_session_local_logout(struct api_call *c, const struct api_session_local_logout_args *a, struct value *result_r)
{
    if (c->session != NULL)
        session_destroy(c->xapi, c->arena, c->session);
    return NULL;
}

struct error *api_session_change_password(struct api_call *c, const struct api_session_change_password_args *a, struct value *result_r)
{
    if (c->session_kind != SESSION_NORMAL || !c->superuser || c->user == NULL)
        return err_user_is_not_local_superuser(c->arena, "only root's password can be changed here");
    const char *user = *c->user != '\0' ? c->user : "root";
    if (!c->trusted)
        TRY(authenticate(c->arena, c->xapi->config, user, a->old_pwd));
    return authenticate_change(c->arena, c->xapi->config, user, a->old_pwd, a->new_pwd);
}

struct error *api_session_get_all_subject_identifiers(struct api_call *c, const struct api_session_get_all_subject_identifiers_args *a,
                                                      struct value *result_r)
{
    *result_r = session_subject_identifiers(c->xapi, c->arena);
    return NULL;
}

struct error *api_session_logout_subject_identifier(struct api_call *c, const struct api_session_logout_subject_identifier_args *a,
                                                    struct value *result_r)
{
    session_destroy_of(c->xapi, c->arena, a->subject_identifier);
    return NULL;
}

/* Made when asked for: two thousand names a session would be much to keep. */
struct error *api_session_get_rbac_permissions(struct api_call *c, const struct api_session_get_rbac_permissions_args *a, struct value *result_r)
{
    struct session *s = session_find(c->xapi->sessions, a->self);

    if (s == NULL)
        return err_handle_invalid(c->arena, "session", a->self);
    *result_r = s->superuser ? value_set(NULL, 0) : rbac_permissions(c->arena, s->roles);
    session_unref(s);
    return NULL;
}
