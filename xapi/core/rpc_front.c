#include "xapi/core/rpc_front.h"

#include <string.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/work.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/call_log.h"
#include "xapi/core/event.h"
#include "xapi/core/proxy.h"
#include "xapi/core/session.h"
#include "xapi/core/timers.h"
#include "xapi/core/xapi.h"

#define STREAM_RECORDS 200 /* more members or items than this: the reply is written while it is sent */

/* --- replies ------------------------------------------------------------------------------------------- */

static void log_done(struct rpc *rpc, const struct error *e)
{
    call_log(&rpc->c, &rpc->r, e, clock_us(rpc->xapi->clock) - rpc->began_us);
}

static void send_failure(struct rpc *rpc, const struct error *e)
{
    struct text body = TEXT_INIT;

    wire_write_failure(&body, &rpc->call, e);
    http_reply(rpc->x, 200, wire_content_type(rpc->call.format), NULL, &body);
    text_release(&body);
}

struct late_failure { struct rpc *rpc; const struct error *e; };

static void late_failure_send(void *arg)
{
    struct late_failure *late = arg;

    send_failure(late->rpc, late->e);
}

/* Guessing passwords is made slow without a thread waiting. */
static void reply_failure(struct rpc *rpc, const struct error *e)
{
    log_done(rpc, e);
    if (!method_is_login(&rpc->r.method) || !error_is(e, "SESSION_AUTHENTICATION_FAILED")) {
        send_failure(rpc, e);
        return;
    }
    struct late_failure *late = arena_alloc(rpc->c.arena, sizeof(*late));
    *late = (struct late_failure){ rpc, e };
    timers_after(rpc->xapi->timers, config_int(rpc->xapi->config, "auth-fail-delay-ms"), late_failure_send, late);
}

struct streamed { struct wire_writer writer; struct value value; };

static bool stream_fill(void *ctx, struct text *out, size_t want)
{
    struct streamed *s = ctx;

    return wire_writer_fill(&s->writer, out, want);
}

static void stream_release(void *ctx) {}

static void reply_stream(struct rpc *rpc, const struct value *value)
{
    struct streamed *s = arena_alloc(rpc->c.arena, sizeof(*s));

    s->value = *value;
    wire_writer_init(&s->writer, &rpc->call, &s->value);
    http_reply_stream(rpc->x, 200, wire_content_type(rpc->call.format),
                      (struct http_producer){ .fill = stream_fill, .release = stream_release, .ctx = s, .length = -1 });
}

static bool is_large(const struct value *v)
{
    return v->kind == VALUE_MAP && v->len > STREAM_RECORDS && v->members[0].value.kind == VALUE_RECORD;
}

static void reply_value(struct rpc *rpc, const struct value *value)
{
    struct text body = TEXT_INIT;
    bool bare = rpc->r.method.kind == METHOD_LIST_METHODS || rpc->r.method.kind == METHOD_IS_ALIVE;

    log_done(rpc, NULL);
    if (is_large(value)) {
        reply_stream(rpc, value);
        return;
    }
    if (bare)
        wire_write_bare(&body, &rpc->call, value);
    else
        wire_write_success(&body, &rpc->call, value);
    http_reply(rpc->x, 200, wire_content_type(rpc->call.format), NULL, &body);
    text_release(&body);
}

static void reply(struct rpc *rpc, const struct error *e, const struct value *value)
{
    if (e != NULL)
        reply_failure(rpc, e);
    else
        reply_value(rpc, value);
}

/* --- running ----------------------------------------------------------------------------------------------- */

static void rpc_run(void *arg)
{
    struct rpc *rpc = arg;
    struct call *outer = call_enter(&rpc->c.call);
    struct value result = value_void();
    struct error *e;

    if (rpc->c.is_async)
        e = dispatch_async(&rpc->c, &rpc->call.params, &result);
    else
        e = dispatch_run(&rpc->c, &rpc->r, &result);
    reply(rpc, e, &result);
    call_enter(outer);
}

/* event.from answers at once when there is something, or the connection waits alone. */
static void rpc_event_from(struct rpc *rpc)
{
    struct api_call *c = &rpc->c;
    struct event_query q;
    unsigned n = 0;
    struct error *e = event_query_make(c, &rpc->r.values[0], rpc->r.values[1].s, rpc->r.values[2].f, &q);

    if (e != NULL) {
        reply_failure(rpc, e);
        return;
    }
    bool pace = event_must_pace(c->xapi->events, &q), late = q.deadline_ms <= clock_ms(c->call.clock);
    struct value batch = pace && !late ? value_void() : event_batch(c, &q, &n);
    if (n > 0 || late) {
        event_filter_unref(q.filter);
        reply_value(rpc, &batch);
        return;
    }
    log_done(rpc, NULL);
    event_park(c, rpc->x, &rpc->call, &q);
}

static bool is_event_from(const struct rpc *rpc)
{
    return rpc->r.method.kind == METHOD_MESSAGE && rpc->r.method.message->id == M_event_from;
}

static struct work_pool *pool_for(const struct rpc *rpc)
{
    if (method_is_login(&rpc->r.method))
        return rpc->xapi->login_workers;
    return rpc->c.session_kind == SESSION_POOL ? rpc->xapi->peer_workers : rpc->xapi->workers;
}

static void rpc_start(struct rpc *rpc)
{
    struct method m = method_find(rpc->call.method);

    request_init(&rpc->r, &m, &rpc->call.params);
    if (proxy_wanted(rpc)) {
        proxy_start(rpc);
        return;
    }
    struct error *e = dispatch_enter(&rpc->c, &rpc->r);
    if (e != NULL)
        reply_failure(rpc, e);
    else if (is_event_from(rpc))
        rpc_event_from(rpc);
    else if (method_is_inline(&rpc->r.method))
        rpc_run(rpc);
    else if (!work_pool_post(pool_for(rpc), rpc_run, rpc))
        reply_failure(rpc, err_too_many_pending_tasks(rpc->c.arena));
}

/* --- from the wire --------------------------------------------------------------------------------------------- */

enum rpc_trust rpc_trust(struct http_exchange *x, const struct xapi *xapi)
{
    const struct http_request *request = http_request(x);
    const char *secret = http_cookie(http_arena(x), request, "pool_secret");

    if (secret == NULL)
        secret = http_query(http_arena(x), request, "pool_secret");
    if (secret != NULL && secret_equal(secret, xapi->pool_secret))
        return RPC_PEER;
    if (request->unix_socket && (request->uid == 0 || request->uid == geteuid()))
        return RPC_ROOT;
    return RPC_STRANGER;
}

/* A header that may end up in the database: plain ASCII or nothing. */
static const char *plain_header(const struct http_request *request, const char *name)
{
    const char *value = http_header(request, name);

    for (const char *s = value; s != NULL && *s != '\0'; s++)
        if (*s < ' ' || *s > '~')
            return NULL;
    return value;
}

static struct rpc *rpc_new(struct http_exchange *x, struct xapi *xapi, const struct wire_call *call)
{
    const struct http_request *request = http_request(x);
    struct rpc *rpc = arena_alloc(http_arena(x), sizeof(*rpc));
    enum rpc_trust trust = rpc_trust(x, xapi);

    rpc->xapi = xapi;
    rpc->x = x;
    rpc->call = *call;
    rpc->began_us = clock_us(xapi->clock);
    api_call_init(&rpc->c, xapi, http_arena(x), call->method);
    rpc->c.trusted = trust != RPC_STRANGER;
    if (trust == RPC_PEER) {
        rpc->c.session_kind = SESSION_POOL;
        rpc->c.superuser = true;
        rpc->c.user = "pool";
    }
    rpc->c.peer = request->peer;
    rpc->c.originator = plain_header(request, "user-agent");
    rpc->c.subtask_of = plain_header(request, "subtask-of");
    return rpc;
}

static void reply_malformed(struct http_exchange *x, const struct wire_call *call, const char *reason)
{
    struct text body = TEXT_INIT;
    bool json = call->format != WIRE_XMLRPC;

    wire_write_malformed(&body, call, reason);
    http_reply(x, json ? 200 : 500, json ? wire_content_type(call->format) : "text/plain", NULL, &body);
    text_release(&body);
}

static void rpc_handle(struct http_exchange *x, struct xapi *xapi, struct wire_call *call)
{
    struct rpc *rpc = rpc_new(x, xapi, call);
    struct call *outer = call_enter(&rpc->c.call);

    rpc_start(rpc); /* may give the exchange, and rpc with it, away */
    call_enter(outer);
}

void rpc_http_xml(struct http_exchange *x, void *xapi)
{
    const struct http_request *request = http_request(x);
    struct wire_call call = { .format = WIRE_XMLRPC };
    const char *reason = "";

    if (xmlrpc_parse_request(http_arena(x), request->body, request->body_len, &call.method, &call.params, &reason))
        rpc_handle(x, xapi, &call);
    else
        reply_malformed(x, &call, reason);
}

void rpc_http_json(struct http_exchange *x, void *xapi)
{
    const struct http_request *request = http_request(x);
    struct wire_call call = { .format = WIRE_JSON2 };
    const char *reason = "";

    if (wire_parse_jsonrpc(http_arena(x), request->body, request->body_len, &call, &reason))
        rpc_handle(x, xapi, &call);
    else
        reply_malformed(x, &call, reason);
}
