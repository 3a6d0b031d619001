/* The serving half of the agent: operations in flight, those who wait for them, answers on record. */
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "rpc/wire/envelope.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/session.h"
#include "xapi/pool/agent_wire.h"

LOG_MODULE(agent);

#define THREADS 64u
#define QUEUE 256u
#define ON_RECORD 4096u /* finished operations remembered at most */
#define TICK_MS 50

struct waiter { struct waiter *next; struct http_exchange *exchange; int64_t until_ms; };

/* One operation; owned by the table. 'call' and 'args' belong to the thread that runs it. */
struct operation {
    struct operation *next;
    struct agent *agent;
    struct arena *arena;
    const struct agent_verb *verb;
    const char *id;
    struct value args;
    struct call call;
    struct cancel *cancel;
    atomic_uint progress; /* millionths */
    bool done;
    int64_t done_at_ms;
    struct text answer;   /* once done: immutable */
    struct waiter *waiters;
};

struct agent {
    struct xapi *xapi;
    struct lock lock;
    struct cond wake;
    struct operation *operations;
    unsigned n_operations, n_waiters;
    struct work_pool *pool;
    pthread_t ticker;
    bool stopping; /* starts nothing new */
    bool gone;     /* the ticker ends */
};

const struct agent_verb *agent_verb_find(const char *name)
{
    for (const struct agent_verb *v = agent_verbs; v->name != NULL; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}

/* --- answers ---------------------------------------------------------------------------------------- */
static const struct wire_call wire = { .format = WIRE_XMLRPC };

void agent_reply_error(struct http_exchange *exchange, const struct error *error)
{
    struct text body = TEXT_INIT;

    wire_write_failure(&body, &wire, error);
    http_reply(exchange, 200, wire_content_type(WIRE_XMLRPC), NULL, &body);
}

static void reply_status(struct http_exchange *exchange, int status)
{
    struct text body = TEXT_INIT;

    http_reply(exchange, status, "text/plain", NULL, &body);
}

static void answer_pending(struct text *body, const struct operation *op)
{
    const struct member members[] = {
        member_of("state", value_string("pending")),
        member_of("progress", value_float((double)atomic_load(&op->progress) / 1e6)),
    };
    struct value value = value_map(members, ARRAY_LEN(members));

    wire_write_success(body, &wire, &value);
}

static void answer_result(struct text *body, const struct error *error, const struct value *result)
{
    const struct member members[] = {
        member_of("state", value_string("done")),
        member_of("result", *result),
    };
    struct value value = value_map(members, ARRAY_LEN(members));

    if (error != NULL)
        wire_write_failure(body, &wire, error);
    else
        wire_write_success(body, &wire, &value);
}

/* Takes the waiters whose time has come (or all) off an operation; they are answered without the lock. */
static struct waiter *waiters_take_locked(struct agent *agent, struct operation *op, int64_t now)
{
    struct waiter *taken = NULL;

    for (struct waiter **at = &op->waiters; *at != NULL;) {
        struct waiter *w = *at;

        if (w->until_ms > now) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = taken;
        taken = w;
        agent->n_waiters--;
    }
    return taken;
}

static void waiters_answer(struct waiter *waiters, const struct text *answer)
{
    while (waiters != NULL) {
        struct waiter *w = waiters;
        struct text body = TEXT_INIT;

        waiters = w->next;
        text_add_len(&body, answer->bytes, answer->len);
        http_reply(w->exchange, 200, wire_content_type(WIRE_XMLRPC), NULL, &body);
        xfree(w);
    }
}

/* --- running ------------------------------------------------------------------------------------------ */
static void operation_progress(struct call *c, double fraction)
{
    struct operation *op = c->progress_ctx;

    atomic_store(&op->progress, (unsigned)(fraction < 0 ? 0 : fraction > 1 ? 1e6 : fraction * 1e6));
}

static void operation_run(void *arg)
{
    struct operation *op = arg;
    struct agent *agent = op->agent;
    struct value result = value_void();
    struct call *outer = call_enter(&op->call);
    struct error *error = op->verb->run(&op->call, agent->xapi, &op->args, &result);
    struct waiter *waiters;
    struct text answer = TEXT_INIT;

    if (error != NULL)
        log_debug("%s %s: %s", op->verb->name, op->id, error_text(op->arena, error));
    answer_result(&answer, error, &result);
    (void)call_enter(outer);

    lock_take(&agent->lock);
    op->answer = answer;
    op->done_at_ms = clock_ms(agent->xapi->clock);
    op->done = true;
    waiters = waiters_take_locked(agent, op, INT64_MAX);
    lock_drop(&agent->lock);
    /* the answer stays: only the ticker frees finished operations, and not before AGENT_KEEP_MS */
    waiters_answer(waiters, &answer);
}

static void operation_free(struct operation *op)
{
    cancel_unref(op->cancel);
    text_release(&op->answer);
    arena_free(op->arena);
    xfree(op);
}

static struct operation *operation_find_locked(struct agent *agent, const char *id)
{
    for (struct operation *op = agent->operations; op != NULL; op = op->next)
        if (strcmp(op->id, id) == 0)
            return op;
    return NULL;
}

/* The arena already holds 'id' and 'args'. */
static struct operation *operation_new(struct agent *agent, struct arena *arena, const struct agent_verb *verb, const char *id,
                                       const struct value *args)
{
    struct operation *op = xcalloc(1, sizeof(*op));

    op->agent = agent;
    op->arena = arena;
    op->verb = verb;
    op->id = id;
    op->args = args == NULL ? value_map(NULL, 0) : *args;
    op->cancel = cancel_new();
    op->call = (struct call) {
        .arena = arena,
        .clock = agent->xapi->clock,
        .cancel = op->cancel,
        .id = arena_printf(arena, "A:%.8s", id),
        .progress = operation_progress,
        .progress_ctx = op,
    };
    return op;
}

/* --- the ticker: late answers and forgetting ------------------------------------------------------------ */
static struct operation *forget_locked(struct agent *agent, int64_t now)
{
    struct operation *gone = NULL;
    int64_t keep = agent->n_operations > ON_RECORD ? AGENT_KEEP_MS / 20 : AGENT_KEEP_MS;

    for (struct operation **at = &agent->operations; *at != NULL;) {
        struct operation *op = *at;

        if (!op->done || now - op->done_at_ms < keep) {
            at = &op->next;
            continue;
        }
        *at = op->next;
        op->next = gone;
        gone = op;
        agent->n_operations--;
    }
    return gone;
}

struct late { struct waiter *waiters; struct text answer; };

/* One operation with waiters whose time has come. */
static bool late_take_locked(struct agent *agent, int64_t now, struct late *late)
{
    for (struct operation *op = agent->operations; op != NULL; op = op->next) {
        late->waiters = waiters_take_locked(agent, op, now);
        if (late->waiters != NULL) {
            answer_pending(&late->answer, op);
            return true;
        }
    }
    return false;
}

static void tick(struct agent *agent)
{
    struct late late = { 0 };
    struct operation *gone;
    bool found;

    do {
        lock_take(&agent->lock);
        found = late_take_locked(agent, clock_ms(agent->xapi->clock), &late);
        lock_drop(&agent->lock);
        waiters_answer(late.waiters, &late.answer);
        text_release(&late.answer);
        late.waiters = NULL;
    } while (found);
    lock_take(&agent->lock);
    gone = forget_locked(agent, clock_ms(agent->xapi->clock));
    lock_drop(&agent->lock);
    while (gone != NULL) {
        struct operation *op = gone;

        gone = op->next;
        operation_free(op);
    }
}

static void *ticker_main(void *arg)
{
    struct agent *agent = arg;

    for (;;) {
        bool stop;

        lock_take(&agent->lock);
        if (!agent->gone)
            (void)cond_wait_ms(&agent->wake, &agent->lock, agent->n_waiters > 0 ? TICK_MS : 1000);
        stop = agent->gone;
        lock_drop(&agent->lock);
        if (stop)
            return NULL;
        tick(agent);
    }
}

struct agent *agent_new(struct xapi *xapi)
{
    struct agent *agent = xcalloc(1, sizeof(*agent));

    agent->xapi = xapi;
    lock_init(&agent->lock, LOCK_POOL);
    cond_init(&agent->wake);
    agent->pool = work_pool_new("agent", THREADS, QUEUE);
    agent->ticker = thread_start("agent-tick", ticker_main, agent);
    return agent;
}

void agent_drain(struct agent *agent)
{
    struct work_pool *pool;

    if (agent == NULL)
        return;
    lock_take(&agent->lock);
    agent->stopping = true;
    for (struct operation *op = agent->operations; op != NULL; op = op->next)
        cancel_raise(op->cancel);
    pool = agent->pool;
    agent->pool = NULL;
    lock_drop(&agent->lock);
    work_pool_free(pool);
}

void agent_free(struct agent *agent)
{
    if (agent == NULL)
        return;
    agent_drain(agent);
    lock_take(&agent->lock);
    agent->gone = true;
    cond_broadcast(&agent->wake);
    lock_drop(&agent->lock);
    pthread_join(agent->ticker, NULL);
    while (agent->operations != NULL) {
        struct operation *op = agent->operations;

        agent->operations = op->next;
        operation_free(op);
    }
    cond_release(&agent->wake);
    lock_release(&agent->lock);
    xfree(agent);
}

/* --- requests -------------------------------------------------------------------------------------------- */
/* A parsed request; everything in 'arena', which becomes the operation's if it starts one. */
struct request {
    struct arena *arena;
    const char *verb, *id;
    bool join;
    int64_t wait_ms;
    const struct value *args;
};

static bool request_parse(const struct http_request *http, struct request *r)
{
    const char *method, *reason;
    struct value params;

    if (http->body == NULL || !xmlrpc_parse_request(r->arena, http->body, http->body_len, &method, &params, &reason))
        return false;
    if (strncmp(method, "agent.", 6) != 0 || params.kind != VALUE_SET || params.len != 1)
        return false;
    r->verb = method + 6;
    r->id = value_get_string(&params.items[0], "operation", "");
    r->join = value_get_bool(&params.items[0], "join", false);
    r->wait_ms = value_get_int(&params.items[0], "wait_ms", AGENT_WAIT_MS);
    r->args = value_get(&params.items[0], "args");
    if (r->args != NULL && r->args->kind != VALUE_MAP)
        r->args = NULL; /* an empty one */
    return r->id[0] != '\0' && r->wait_ms >= 0 && r->wait_ms <= 60000;
}

static void serve_cancel(struct agent *agent, const struct request *r, struct http_exchange *exchange)
{
    struct text body = TEXT_INIT;
    struct value done = value_void();
    struct operation *op;

    lock_take(&agent->lock);
    op = operation_find_locked(agent, r->id);
    if (op != NULL)
        cancel_raise(op->cancel);
    lock_drop(&agent->lock);
    answer_result(&body, NULL, &done);
    http_reply(exchange, 200, wire_content_type(WIRE_XMLRPC), NULL, &body);
}

static void waiter_add_locked(struct agent *agent, struct operation *op, struct http_exchange *exchange, int64_t wait_ms)
{
    struct waiter *w = xcalloc(1, sizeof(*w));

    w->exchange = exchange;
    w->until_ms = clock_ms(agent->xapi->clock) + wait_ms;
    w->next = op->waiters;
    op->waiters = w;
    if (agent->n_waiters++ == 0)
        cond_signal(&agent->wake);
}

/* Starts the operation, or finds it, and answers or waits. True when r->arena went to the operation. */
static bool serve_operation(struct agent *agent, const struct request *r, const struct agent_verb *verb, struct http_exchange *exchange)
{
    struct text body = TEXT_INIT;
    struct operation *op, *fresh = NULL;

    lock_take(&agent->lock);
    op = operation_find_locked(agent, r->id);
    if (op == NULL && !r->join && !agent->stopping) {
        op = fresh = operation_new(agent, r->arena, verb, r->id, r->args);
        if (work_pool_post(agent->pool, operation_run, op)) {
            op->next = agent->operations;
            agent->operations = op;
            agent->n_operations++;
        } else
            op = NULL;
    }
    if (op != NULL && !op->done)
        waiter_add_locked(agent, op, exchange, r->wait_ms);
    else if (op != NULL)
        text_add_len(&body, op->answer.bytes, op->answer.len);
    lock_drop(&agent->lock);

    if (body.len > 0)
        http_reply(exchange, 200, wire_content_type(WIRE_XMLRPC), NULL, &body);
    else if (op == NULL && r->join)
        agent_reply_error(exchange, error_from_strings(r->arena, AGENT_LOST, 1, (const char *[]) { r->id }));
    else if (op == NULL)
        reply_status(exchange, 503);
    if (op == NULL && fresh != NULL) { /* the queue was full: the arena stays the request's */
        cancel_unref(fresh->cancel);
        xfree(fresh);
        fresh = NULL;
    }
    return fresh != NULL;
}

static bool secret_fits(struct xapi *xapi, struct http_exchange *exchange)
{
    const char *given = http_cookie(http_arena(exchange), http_request(exchange), "pool_secret");

    return given != NULL && xapi->pool_secret != NULL && secret_equal(given, xapi->pool_secret);
}

/* Operations of other pools' hosts have names of their own: they neither join nor cancel those of this pool. */
static bool foreign_verb(struct request *r, const struct agent_verb **verb_r)
{
    r->id = arena_printf(r->arena, "%s@peer", r->id);
    return *verb_r != NULL && (*verb_r)->foreign;
}

void agent_serve(struct http_exchange *exchange, struct xapi *xapi, bool foreign)
{
    struct request r = { .arena = arena_new() };
    const struct agent_verb *verb = NULL;
    bool parsed = request_parse(http_request(exchange), &r), cancel = parsed && strcmp(r.verb, "cancel") == 0;

    if (parsed && !cancel)
        verb = agent_verb_find(r.verb);
    if (parsed && foreign && !foreign_verb(&r, &verb))
        verb = NULL;
    if (!parsed)
        reply_status(exchange, 400);
    else if (cancel)
        serve_cancel(xapi->agent, &r, exchange);
    else if (verb == NULL)
        agent_reply_error(exchange, err_message_method_unknown(r.arena, r.verb));
    else if (serve_operation(xapi->agent, &r, verb, exchange))
        return;
    arena_free(r.arena);
}

void agent_http(struct http_exchange *exchange, void *ctx)
{
    struct xapi *xapi = ctx;
    const struct http_request *http = http_request(exchange);
    bool safe = http->tls || http->unix_socket || !config_bool(xapi->config, "migration-https-only"); /* the last: the operator's choice */

    if (!safe || !secret_fits(xapi, exchange)) {
        log_warn_rl("refused an agent call from %s", http->peer);
        reply_status(exchange, 403);
        return;
    }
    agent_serve(exchange, xapi, false);
}
