/* The calling half of the agent: one operation on a peer, or the same function here. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/pool/agent_wire.h"
#include "xapi/pool/membership.h"

LOG_MODULE(agent_client);

#define ANSWER_MAX ((size_t)64 << 20)
#define ONE_POST_MS 20000     /* more than any wait_ms, less than patience */
#define LOST_CONTACT_MS 10000 /* how long a running operation is asked after in vain */
#define AFTER_CANCEL_MS 120000
#define PAUSE_MS 200

/* One operation under way; 'scratch' is the memory of one post. */
struct exchange {
    struct call *c;
    struct xapi *xapi;
    const struct http_target *target;
    const char *headers, *method, *id;
    const struct value *args;
    bool joining, cancel_sent;
    int64_t last_contact_ms, cancelled_at_ms;
};

static int64_t now_ms(const struct exchange *x)
{
    return clock_ms(x->c->clock);
}

/* One post on a call of its own: it must go on after the caller's cancel. 0 or -errno, -EPROTO. */
static int post(struct exchange *x, struct arena *scratch, const char *method, const struct value *param, struct value *answer_r)
{
    struct call sub = {
        .arena = scratch,
        .clock = x->c->clock,
        .deadline_ms = now_ms(x) + ONE_POST_MS,
        .cancel = x->cancel_sent ? NULL : x->c->cancel,
        .id = x->c->id,
    };
    struct http_answer answer;
    AUTO_TEXT body = TEXT_INIT;
    const char *reason;
    int error;

    xmlrpc_write_call(&body, method, param, 1);
    error = http_client_post(&sub, x->xapi->client, x->target, x->target->cookie != NULL ? AGENT_FOREIGN_PATH : AGENT_PATH, "text/xml", x->headers, body.bytes, body.len, ANSWER_MAX, &answer);
    if (error != 0)
        return error;
    if (answer.status == 403)
        return -EACCES;
    if (answer.status == 503)
        return -EBUSY;
    if (answer.status != 200 || !xmlrpc_parse_answer(scratch, answer.body, answer.body_len, answer_r, &reason))
        return -EPROTO;
    return 0;
}

static int ask(struct exchange *x, struct arena *scratch, struct value *answer_r)
{
    const struct member members[] = {
        member_of("operation", value_string(x->id)),
        member_of("join", value_bool(x->joining)),
        member_of("wait_ms", value_int(AGENT_WAIT_MS)),
        member_of("args", *x->args),
    };
    struct value param = value_map(members, x->joining ? 3 : 4);

    return post(x, scratch, x->method, &param, answer_r);
}

static void send_cancel(struct exchange *x)
{
    AUTO_ARENA scratch = arena_new();
    const struct member members[] = { member_of("operation", value_string(x->id)) };
    struct value param = value_map(members, 1), answer;

    x->cancel_sent = true;
    x->cancelled_at_ms = now_ms(x);
    if (post(x, scratch, "agent.cancel", &param, &answer) != 0)
        log_warn("%s %s: the cancellation did not arrive", x->method, x->id);
}

/* The failure in an answer, in the caller's arena; NULL when it is none. */
static struct error *answer_error(struct exchange *x, const struct value *answer)
{
    const struct value *list = value_get(answer, "ErrorDescription");
    const char **params;

    if (strcmp(value_get_string(answer, "Status", "Success"), "Failure") != 0)
        return NULL;
    if (list == NULL || list->kind != VALUE_SET || list->len == 0 || list->items[0].kind != VALUE_STRING)
        return err_internal(x->c->arena, "a peer failed without saying how");
    params = arena_calloc(x->c->arena, list->len, sizeof(*params));
    for (unsigned i = 1; i < list->len; i++)
        params[i - 1] = list->items[i].kind == VALUE_STRING ? list->items[i].s : "";
    return error_from_strings(x->c->arena, list->items[0].s, list->len - 1, params);
}

/* Or until cancelled. */
static void pause_ms(struct exchange *x, int ms)
{
    struct pollfd fd = { .fd = x->c->cancel == NULL || x->cancel_sent ? -1 : cancel_fd(x->c->cancel), .events = POLLIN };

    (void)poll(&fd, 1, ms);
}

/* Is a failed post worth another one with the same id? Connection refused at the start is final. */
static bool worth_repeating(struct exchange *x, int error)
{
    if (error == -EACCES || error == -EKEYREJECTED || error == -EPROTO)
        return false;
    if (!x->joining && (error == -ECONNREFUSED || error == -EHOSTUNREACH || error == -ENETUNREACH))
        return false;
    return now_ms(x) - x->last_contact_ms < LOST_CONTACT_MS;
}

/* One round: true when the operation is over (*error_r and *result_r say how). */
static bool exchange_round(struct exchange *x, struct value *result_r, struct error **error_r, bool *unreachable_r)
{
    AUTO_ARENA scratch = arena_new();
    struct value answer = value_void();
    const struct value *value, *result;
    int error = ask(x, scratch, &answer);

    *error_r = NULL;
    if (error == -ECANCELED && !x->cancel_sent)
        return false; /* the caller sends the cancellation */
    if (error != 0 && worth_repeating(x, error)) {
        pause_ms(x, PAUSE_MS);
        return false;
    }
    if (error != 0) {
        *unreachable_r = true;
        *error_r = err_internal(x->c->arena, "%s on %s: %s", x->method, x->target->address, strerror(-error));
        return true;
    }
    x->last_contact_ms = now_ms(x);
    *error_r = answer_error(x, &answer);
    *unreachable_r = error_is(*error_r, AGENT_LOST);
    if (*error_r != NULL)
        return true;
    value = value_get(&answer, "Value");
    if (value != NULL && strcmp(value_get_string(value, "state", ""), "pending") == 0) {
        x->joining = true;
        call_progress(x->c, value_get_float(value, "progress", 0));
        return false;
    }
    result = value == NULL ? NULL : value_get(value, "result");
    *result_r = result == NULL ? value_void() : value_dup(x->c->arena, result);
    return true;
}

struct error *agent_exchange(struct call *c, struct xapi *xapi, const struct http_target *target, const char *secret, const char *verb,
                             const struct value *args, struct value *result_r, bool *unreachable_r)
{
    struct value none = value_map(NULL, 0);
    struct exchange x = {
        .c = c,
        .xapi = xapi,
        .target = target,
        .headers = target->cookie != NULL ? arena_printf(c->arena, "Cookie: %s\r\n", target->cookie)
                                          : arena_printf(c->arena, "Cookie: pool_secret=%s\r\n", secret != NULL ? secret : xapi->pool_secret),
        .method = arena_printf(c->arena, "agent.%s", verb),
        .id = uuid_make(c->arena),
        .args = args == NULL ? &none : args,
        .last_contact_ms = clock_ms(c->clock),
    };
    struct error *error;

    *unreachable_r = false;
    *result_r = value_void();
    for (;;) {
        if (exchange_round(&x, result_r, &error, unreachable_r))
            return error;
        if (call_cancelled(c) && !x.cancel_sent)
            send_cancel(&x);
        if (x.cancel_sent && now_ms(&x) - x.cancelled_at_ms > AFTER_CANCEL_MS)
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    }
}

struct error *agent_call_at(struct call *c, struct xapi *xapi, const struct http_target *target, const char *verb,
                            const struct value *args, struct value *result_r)
{
    bool unreachable;
    struct error *error = agent_exchange(c, xapi, target, NULL, verb, args, result_r, &unreachable);

    if (!unreachable)
        return error;
    log_warn("%s", error_text(c->arena, error));
    return err_vm_migrate_contact_remote_service_failed(c->arena);
}

struct error *agent_call_coordinator(struct call *c, struct xapi *xapi, const char *verb, const struct value *args, struct value *result_r)
{
    struct http_target target;
    bool unreachable;
    struct error *error;

    TRY(membership_coordinator(c->arena, xapi, &target));
    error = agent_exchange(c, xapi, &target, NULL, verb, args, result_r, &unreachable);
    if (!unreachable)
        return error;
    log_debug("%s", error_text(c->arena, error));
    return err_host_not_live(c->arena);
}

/* The fingerprint of a host's certificate, from its rows; NULL when none is on record. */
static const char *host_fingerprint(struct api_call *c, const struct row *host)
{
    const struct value *refs = row_value(host, F_host_certificates);

    for (unsigned i = 0; i < refs->len; i++) {
        const struct row *certificate = db_get(c->db, c->arena, &model_classes[CLASS_Certificate], refs->items[i].s);

        if (certificate != NULL && strcmp(row_string(certificate, F_Certificate_type), "host") == 0)
            return row_string(certificate, F_Certificate_fingerprint);
    }
    return NULL;
}

struct error *agent_target(struct api_call *c, const char *host_ref, struct http_target *target_r)
{
    const struct row *host;

    TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
    *target_r = (struct http_target) {
        .address = row_string(host, F_host_address),
        .port = c->xapi->https_port,
        .tls = true,
        .fingerprint = host_fingerprint(c, host),
    };
    if (target_r->fingerprint == NULL) {
        log_err("host %s has no certificate on record", row_string(host, F_host_uuid));
        return err_cannot_contact_host(c->arena, host_ref);
    }
    return NULL;
}

static bool host_live(struct api_call *c, const char *host_ref)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], host_ref), *metrics;

    if (host == NULL)
        return false;
    metrics = db_get(c->db, c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    return metrics != NULL && row_bool(metrics, F_host_metrics_live);
}

/* What a storage driver reports with a number clients know by a code of its own: SR_BACKEND_FAILURE_44 [stdout; text; ""]. */
static struct error *backend_error(struct api_call *c, struct error *e)
{
    uint64_t number;

    if (!error_is(e, "SR_BACKEND_FAILURE") || e->n_params != 3 || !text_to_uint(e->params[0], &number))
        return e;
    return error_make(c->arena, e->file, e->line, arena_printf(c->arena, "SR_BACKEND_FAILURE_%s", e->params[0]), 3, e->params[1], e->params[2], "");
}

struct error *agent_call(struct api_call *c, const char *host_ref, const char *verb, const struct value *args, struct value *result_r)
{
    struct value none = value_map(NULL, 0);
    struct http_target target;
    bool unreachable;
    struct error *error;

    *result_r = value_void();
    if (strcmp(host_ref, c->xapi->host_ref) == 0) {
        const struct agent_verb *here = agent_verb_find(verb);

        if (here == NULL)
            return err_internal(c->arena, "no agent verb '%s'", verb);
        return backend_error(c, here->run(&c->call, c->xapi, args == NULL ? &none : args, result_r));
    }
    TRY(agent_target(c, host_ref, &target));
    if (!host_live(c, host_ref))
        return err_host_offline(c->arena, host_ref);
    error = agent_exchange(&c->call, c->xapi, &target, NULL, verb, args, result_r, &unreachable);
    if (!unreachable)
        return backend_error(c, error);
    log_warn("%s", error_text(c->arena, error));
    return err_cannot_contact_host(c->arena, host_ref);
}
