/* What handlers call to answer, from any thread. */
#include "rpc/base/check.h"
#include "rpc/http/connection.h"
#include "rpc/http/loop.h"
#include "rpc/http/reply.h"

const struct http_request *http_request(struct http_exchange *ex) { return &ex->request; }
struct arena *http_arena(struct http_exchange *ex) { return ex->arena; }

static void deliver(struct loop *l, struct mail *m)
{
    struct http_exchange *ex = CONTAINER_OF(m, struct http_exchange, mail);
    struct connection *c = ex->connection;

    CHECK(c->loop == l && c->state == CONN_HANDLING && c->exchange == ex);
    connection_answer(c, ex);
    connection_serve(c);
}

/* On the I/O thread, inside this exchange's handler, the connection looks when the handler returns. */
static void answered(struct http_exchange *ex, enum answer_kind kind)
{
    struct connection *c = ex->connection;

    CHECK(ex->answer == ANSWER_NONE); /* answered twice */
    ex->answer = kind;
    if (loop_current() == c->loop && c->in_handler) {
        c->answered = true;
    } else {
        ex->mail.deliver = deliver;
        loop_send(c->loop, &ex->mail);
    }
}

static struct reply_context context_of(const struct http_exchange *ex)
{
    return (struct reply_context){
        .server = ex->server,
        .minor = ex->request.minor,
        .head_only = ex->head_only,
    };
}

void http_reply(struct http_exchange *ex, int status, const char *content_type, const char *extra, struct text *body)
{
    struct reply_context context = context_of(ex);

    ex->out = reply_text(&context, status, content_type, extra, body);
    answered(ex, ANSWER_REPLY);
}

void http_reply_pieces(struct http_exchange *ex, int status, const char *content_type, const struct http_piece *pieces, unsigned n,
                       void (*release)(void *ctx), void *ctx)
{
    struct reply_context context = context_of(ex);

    ex->out = reply_pieces(&context, status, content_type, pieces, n, release, ctx);
    answered(ex, ANSWER_REPLY);
}

void http_reply_stream(struct http_exchange *ex, int status, const char *content_type, struct http_producer producer)
{
    struct reply_context context = context_of(ex);

    ex->out = reply_stream(&context, status, content_type, producer);
    answered(ex, ANSWER_REPLY);
}

void http_takeover(struct http_exchange *ex, void (*fn)(struct http_exchange *, struct byte_stream *, void *ctx), void *ctx)
{
    ex->takeover = fn;
    ex->takeover_ctx = ctx;
    answered(ex, ANSWER_TAKEOVER);
}

void http_park(struct http_exchange *ex, struct http_parked *parked)
{
    ex->parked = parked;
    answered(ex, ANSWER_PARK);
}

/* --- from poll() of a parked connection ------------------------------------------------------------ */

static struct connection *unpark(struct http_parked *p, struct reply_context *context_r)
{
    struct connection *c = p->connection;

    CHECK(loop_current() == c->loop && c->parked == p);
    *context_r = (struct reply_context){ .server = c->loop->server, .minor = c->minor, .head_only = c->head_only };
    park_end(c);
    return c;
}

void http_parked_reply(struct http_parked *p, int status, const char *content_type, struct text *body)
{
    struct reply_context context;
    struct connection *c = unpark(p, &context);

    c->out = reply_text(&context, status, content_type, NULL, body);
}

void http_parked_reply_pieces(struct http_parked *p, int status, const char *content_type, const struct http_piece *pieces, unsigned n,
                              void (*release)(void *ctx), void *ctx)
{
    struct reply_context context;
    struct connection *c = unpark(p, &context);

    c->out = reply_pieces(&context, status, content_type, pieces, n, release, ctx);
}
