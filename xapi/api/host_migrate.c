/* host.migrate_receive (specs/migration-semantics.md §1.4): the token by which another pool, or this one, sends a VM here. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/session.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/network_choice.h"
#include "xapi/migrate/peer_pool.h"

/* A session with the caller's rights, which outlives his. */
static struct error *copy_session(struct api_call *c, const char *host, const char **ref_r)
{
    struct session *caller = c->session != NULL ? session_find(c->xapi->sessions, c->session) : NULL;
    struct session_spec spec = { .kind = SESSION_NORMAL, .user = c->user, .superuser = c->superuser, .roles = c->roles, .host = host,
                                 .originator = "host.migrate_receive" };

    if (caller != NULL) {
        spec.kind = caller->kind;
        spec.user = caller->user;
        spec.subject = caller->subject;
        spec.sid = caller->sid;
        spec.superuser = caller->superuser;
        spec.roles = caller->roles;
    }
    struct error *e = session_create(c->xapi, c->arena, &spec, ref_r);
    session_unref(caller);
    return e;
}

static struct value url(struct api_call *c, const char *address, const char *service, const char *session)
{
    const char *path = session == NULL ? "" : arena_printf(c->arena, "/services/%s?session_id=%s", service, session);

    return value_string(migration_url(c->arena, address, c->xapi->http_port > 0 ? c->xapi->http_port : 0, path));
}

struct error *api_host_migrate_receive(struct api_call *c, const struct api_host_migrate_receive_args *a, struct value *result_r)
{
    const struct row *coordinator;
    const char *address, *session;
    struct value_dict token = { 0 };

    TRY(network_receive_address(c, a->host, a->network, &address));
    TRY(db_need(c->db, c->arena, CLASS_host, c->xapi->host_ref, &coordinator));
    TRY(copy_session(c, a->host, &session));
    value_dict_add(c->arena, &token, "SM", url(c, address, "SM", session));
    value_dict_add(c->arena, &token, "xenops", url(c, address, "xenops", session));
    value_dict_add(c->arena, &token, "master", url(c, row_string(coordinator, F_host_address), NULL, NULL));
    value_dict_add(c->arena, &token, "host", value_string(a->host));
    value_dict_add(c->arena, &token, "session_id", value_string(session));
    *result_r = value_dict_value(&token);
    return NULL;
}
