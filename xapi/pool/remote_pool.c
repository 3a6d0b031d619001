#include "xapi/pool/remote_pool.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/wire/xmlrpc.h"

LOG_MODULE(remote_pool);

#define ANSWER_MAX ((size_t)256 << 20)
#define PARAMS_MAX 5u

static struct error *failure_of(struct arena *arena, const struct value *answer)
{
    const struct value *list = value_get(answer, "ErrorDescription");
    const char **params;

    if (list == NULL || list->kind != VALUE_SET || list->len == 0)
        return err_joining_host_service_failed(arena);
    params = arena_calloc(arena, list->len, sizeof(*params));
    for (unsigned i = 0; i < list->len; i++)
        params[i] = list->items[i].kind == VALUE_STRING ? list->items[i].s : "";
    return error_from_strings(arena, params[0], list->len - 1, params + 1);
}

static struct error *call(struct remote_pool *r, const char *method, const struct value *params, unsigned n, struct value *result_r)
{
    struct arena *arena = r->c->arena;
    AUTO_TEXT body = TEXT_INIT;
    struct http_answer answer;
    struct value envelope;
    const char *reason;
    const struct value *value;
    int error;

    xmlrpc_write_call(&body, method, params, n);
    error = http_client_post(&r->c->call, r->c->xapi->client, &r->target, "/", "text/xml", NULL, body.bytes, body.len, ANSWER_MAX, &answer);
    if (error != 0) {
        log_warn("%s on %s: %s", method, r->target.address, strerror(-error));
        return err_joining_host_connection_failed(arena);
    }
    if (answer.status != 200 || !xmlrpc_parse_answer(arena, answer.body, answer.body_len, &envelope, &reason)) {
        log_warn("%s on %s: HTTP status %d", method, r->target.address, answer.status);
        return err_joining_host_service_failed(arena);
    }
    if (strcmp(value_get_string(&envelope, "Status", ""), "Success") != 0)
        return failure_of(arena, &envelope);
    value = value_get(&envelope, "Value");
    *result_r = value == NULL ? value_void() : *value;
    return NULL;
}

struct error *remote_login(struct api_call *c, const char *address, const char *user, const char *password, struct remote_pool *r)
{
    const struct value params[] = { value_string(user), value_string(password), value_string("2.21"), value_string("pool.join") };
    struct value session;

    *r = (struct remote_pool) {
        .c = c,
        .target = { .address = arena_strdup(c->arena, address), .port = c->xapi->https_port, .tls = true },
    };
    TRY(call(r, "session.login_with_password", params, ARRAY_LEN(params), &session));
    if (session.kind != VALUE_STRING)
        return err_joining_host_service_failed(c->arena);
    r->session = session.s;
    return NULL;
}

void remote_logout(struct remote_pool *r)
{
    struct value ignored;
    struct error *error = remote_call(r, "session.logout", NULL, 0, &ignored);

    if (error != NULL)
        log_debug("logging out: %s", error_text(r->c->arena, error));
}

struct error *remote_call(struct remote_pool *r, const char *method, const struct value *params, unsigned n, struct value *result_r)
{
    struct value all[PARAMS_MAX] = { value_string(r->session) };

    if (n >= PARAMS_MAX)
        return err_internal(r->c->arena, "%s with too many parameters", method);
    for (unsigned i = 0; i < n; i++)
        all[i + 1] = params[i];
    return call(r, method, all, n + 1, result_r);
}

struct error *remote_records(struct remote_pool *r, const char *class_name, struct value *records_r)
{
    TRY(remote_call(r, arena_printf(r->c->arena, "%s.get_all_records", class_name), NULL, 0, records_r));
    return records_r->kind == VALUE_MAP ? NULL : err_joining_host_service_failed(r->c->arena);
}
