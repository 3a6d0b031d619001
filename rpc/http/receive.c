/* Reading requests: head, route, body, handler. */
#include <errno.h>
#include <string.h>

#include "rpc/http/connection.h"
#include "rpc/http/loop.h"
#include "rpc/http/reply.h"

#define READ_LEAST 4096u
#define BODY_STEP (64u * 1024)

void exchange_free(struct http_exchange *ex)
{
    if (ex == NULL)
        return;
    text_release(&ex->body);
    arena_free(ex->arena); /* and the exchange itself */
}

/* More bytes into the input: true, or false after it waits or closed. */
static bool read_more(struct connection *c)
{
    size_t room;

    if (!c->can_read)
        return false;
    char *at = input_room(&c->in, c->loop->scratch, SCRATCH_SIZE, READ_LEAST, &room);
    ssize_t got = connection_read(c, at, room);

    if (got > 0) {
        input_added(&c->in, (size_t)got);
        return true;
    }
    if (got != -EAGAIN)
        connection_close(c);
    return false;
}

static enum step run_handler(struct connection *c)
{
    struct http_exchange *ex = c->exchange;

    if (ex->route->body == HTTP_BODY_BUFFER) {
        ex->request.body = ex->body.bytes != NULL ? ex->body.bytes : "";
        ex->request.body_len = ex->body.len;
    }
    connection_enter(c, CONN_HANDLING);
    c->answered = false;
    c->in_handler = true;
    ex->route->handler(ex, ex->route->ctx); /* another thread may have answered before this returns */
    c->in_handler = false;
    if (!c->answered)
        return STEP_WAIT;
    connection_answer(c, ex);
    c->answered = false;
    return STEP_AGAIN;
}

static bool said_continue(struct connection *c)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec v = { .iov_base = (void *)line, .iov_len = sizeof line - 1 };

    /* the socket is empty: the reply before this one has gone */
    return connection_writev(c, &v, 1) == (ssize_t)v.iov_len;
}

static enum step begin_body(struct connection *c)
{
    struct http_exchange *ex = c->exchange;

    connection_enter(c, CONN_BODY);
    if (ex->expect_continue && c->minor >= 1 && input_len(&c->in) == 0 && !said_continue(c)) {
        connection_close(c);
        return STEP_WAIT;
    }
    return STEP_AGAIN;
}

static void fill_request(struct connection *c, struct http_exchange *ex, const struct head *h)
{
    ex->request = (struct http_request){
        .method = h->method,
        .target = h->target,
        .path = h->path,
        .query = h->query,
        .minor = h->minor,
        .headers = h->headers,
        .n_headers = h->n_headers,
        .content_length = h->content_length,
        .peer = arena_strdup(ex->arena, c->peer),
        .tls = c->tls != NULL,
        .unix_socket = c->unix_socket,
        .uid = c->uid,
    };
    ex->chunked = h->chunked;
    ex->expect_continue = h->expect_continue;
    ex->body_left = h->content_length > 0 ? h->content_length : 0;
    c->minor = (uint8_t)h->minor;
    c->keep_alive = h->keep_alive;
    c->head_only = ex->head_only = strcmp(h->method, "HEAD") == 0;
    c->body_unread = ex->chunked || ex->body_left > 0;
}

/* A complete head of n bytes stands at the front of the input. */
static enum step begin_request(struct connection *c, size_t n)
{
    struct http_server *server = c->loop->server;
    struct arena *arena = arena_new();
    struct http_exchange *ex = arena_alloc(arena, sizeof *ex);
    struct head h;

    ex->arena = arena;
    ex->server = server;
    ex->connection = c;
    c->exchange = ex;
    c->head_only = false;
    c->scan = (struct head_scan){ 0 };
    int status = head_parse_request(arena, input_bytes(&c->in), n, &h);

    if (status != 0)
        return connection_refuse(c, status);
    input_consume(&c->in, n);
    atomic_fetch_add_explicit(&server->n_requests, 1, memory_order_relaxed);
    fill_request(c, ex, &h);
    ex->route = route_find(&server->routes, h.method, h.path, &status);
    if (ex->route == NULL)
        return connection_refuse(c, status);
    if (ex->route->body == HTTP_BODY_TAKEOVER) {
        if (strcmp(h.method, "PUT") == 0 || strcmp(h.method, "POST") == 0)
            c->body_unread = true; /* up to the end of the stream, for all we know */
        return run_handler(c);
    }
    if ((uint64_t)ex->body_left > server->limits.body_bytes)
        return connection_refuse(c, 413);
    return c->body_unread ? begin_body(c) : run_handler(c);
}

enum step receive_head(struct connection *c)
{
    const struct http_limits *l = &c->loop->server->limits;
    struct head_limits limits = { .bytes = l->header_bytes, .lines = l->header_lines };

    do {
        if (input_len(&c->in) == 0)
            continue;
        long n = head_scan(&c->scan, input_bytes(&c->in), input_len(&c->in), &limits);

        if (n < 0)
            return connection_refuse(c, (int)-n);
        if (n > 0)
            return begin_request(c, (size_t)n);
    } while (read_more(c));
    return STEP_WAIT;
}

static enum step body_complete(struct connection *c)
{
    c->body_unread = false;
    return run_handler(c);
}

/* A body with a length: reads into its own memory, and never beyond its end. */
static enum step receive_length(struct connection *c, struct http_exchange *ex)
{
    size_t n = input_len(&c->in);

    if (n > 0) {
        if ((uint64_t)n > (uint64_t)ex->body_left)
            n = (size_t)ex->body_left;
        text_add_len(&ex->body, input_bytes(&c->in), n);
        input_consume(&c->in, n);
        ex->body_left -= (int64_t)n;
        c->wait = WAIT_NONE;
    }
    while (ex->body_left > 0 && c->can_read) {
        size_t want = ex->body.len > BODY_STEP ? ex->body.len : BODY_STEP; /* doubles: a claim is no memory */

        if ((uint64_t)want > (uint64_t)ex->body_left)
            want = (size_t)ex->body_left;
        text_grow(&ex->body, want);
        ssize_t got = connection_read(c, ex->body.bytes + ex->body.len, want);

        if (got == -EAGAIN)
            break;
        if (got <= 0) {
            connection_close(c);
            return STEP_WAIT;
        }
        ex->body.len += (size_t)got;
        ex->body.bytes[ex->body.len] = '\0';
        ex->body_left -= got;
        c->wait = WAIT_NONE;
    }
    return ex->body_left == 0 ? body_complete(c) : STEP_WAIT;
}

static enum step receive_chunks(struct connection *c, struct http_exchange *ex)
{
    do {
        while (input_len(&c->in) > 0 && ex->chunks.state != CHUNK_DONE) {
            size_t used, n;
            const char *data;

            if (!chunk_decode(&ex->chunks, input_bytes(&c->in), input_len(&c->in), &used, &data, &n))
                return connection_refuse(c, 400);
            if (n > c->loop->server->limits.body_bytes - ex->body.len)
                return connection_refuse(c, 413);
            if (n > 0)
                text_add_len(&ex->body, data, n);
            input_consume(&c->in, used);
            c->wait = WAIT_NONE;
        }
        if (ex->chunks.state == CHUNK_DONE)
            return body_complete(c);
    } while (read_more(c));
    return STEP_WAIT;
}

enum step receive_body(struct connection *c)
{
    struct http_exchange *ex = c->exchange;

    return ex->chunked ? receive_chunks(c, ex) : receive_length(c, ex);
}
