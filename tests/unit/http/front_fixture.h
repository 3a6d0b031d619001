/* A front on a port of the kernel's choosing, and blocking clients that speak bytes to it. Waiting is
 * always for something that happens (an answer, a semaphore), never for time. */
#ifndef TESTS_UNIT_HTTP_FRONT_FIXTURE_H
#define TESTS_UNIT_HTTP_FRONT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/arena.h"
#include "rpc/base/text.h"
#include "rpc/http/server.h"

struct front {
    struct arena *arena;
    struct http_server *server;
    struct clock_fake clock;
    int port, id;
};

static inline void front_open(struct front *f, const struct http_route *routes, unsigned threads, const struct http_limits *limits)
{
    struct http_server_options o = { .clock = &f->clock.clock, .routes = routes, .threads = threads };

    memset(f, 0, sizeof *f);
    f->arena = arena_new();
    clock_fake_init(&f->clock, 1000);
    if (limits != NULL)
        o.limits = *limits;
    assert_null(http_server_new(f->arena, &o, &f->server));
    assert_null(http_listen_tcp(f->arena, f->server, "127.0.0.1", 0, NULL, &f->id, &f->port));
    assert_true(f->port > 0);
    http_server_start(f->server);
}

static inline void front_close(struct front *f)
{
    http_server_free(f->server);
    arena_free(f->arena);
}

/* Moves the fake clock and makes the loops look at it. */
static inline void front_advance(struct front *f, int64_t ms)
{
    static const uint64_t nothing[2];

    clock_fake_advance_ms(&f->clock, ms);
    http_server_wake(f->server, nothing);
}

static inline int front_dial(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct timeval patience = { .tv_sec = 60 }; /* so that a bug ends the test */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static inline void put(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, bytes, n, MSG_NOSIGNAL);

        if (done < 0) /* refused in the middle: what it answered is read next */
            return;
        bytes += done;
        n -= (size_t)done;
    }
}
static inline void say(int fd, const char *s) { put(fd, s, strlen(s)); }

/* What a client has read. */
struct wire { int fd; struct text in; };

/* False at the end of the stream. */
static inline bool wire_more(struct wire *w)
{
    char buffer[65536];
    ssize_t n = recv(w->fd, buffer, sizeof buffer, 0);

    if (n < 0 && errno == ECONNRESET)
        return false;
    assert_true(n >= 0);
    if (n > 0)
        text_add_len(&w->in, buffer, (size_t)n);
    return n > 0;
}

static inline void wire_drop(struct wire *w, size_t n)
{
    memmove(w->in.bytes, w->in.bytes + n, w->in.len - n + 1);
    w->in.len -= n;
}

/* One answer with Content-Length (or none): its status, the head and body copied out. */
static inline int wire_answer(struct wire *w, struct text *head, struct text *body, bool head_only)
{
    char *end, *length;

    while (w->in.len == 0 || (end = strstr(w->in.bytes, "\r\n\r\n")) == NULL)
        assert_true(wire_more(w));
    size_t head_len = (size_t)(end + 4 - w->in.bytes), n = 0;

    text_clear(head);
    text_add_len(head, w->in.bytes, head_len);
    wire_drop(w, head_len);
    length = strstr(head->bytes, "Content-Length: ");
    if (length != NULL && !head_only)
        n = strtoul(length + 16, NULL, 10);
    while (w->in.len < n)
        assert_true(wire_more(w));
    text_clear(body);
    text_add_len(body, "", 0);
    if (n > 0) {
        text_add_len(body, w->in.bytes, n);
        wire_drop(w, n);
    }
    return (int)strtol(head->bytes + 9, NULL, 10);
}

/* The connection ends with nothing more on it. */
static inline void wire_expect_end(struct wire *w)
{
    assert_int_equal(w->in.len, 0);
    assert_false(wire_more(w));
}

static inline void wire_close(struct wire *w)
{
    close(w->fd);
    text_release(&w->in);
}

/* One request and its answer on a connection. */
static inline int ask(struct wire *w, const char *request, struct text *body)
{
    struct text head = TEXT_INIT;

    say(w->fd, request);
    int status = wire_answer(w, &head, body, false);

    text_release(&head);
    return status;
}

/* A round trip through a front. (What others sent before may still be under way.) */
static inline void front_sync(struct front *f, const char *request)
{
    struct wire w = { .fd = front_dial(f->port) };
    struct text body = TEXT_INIT;

    assert_true(ask(&w, request, &body) > 0);
    wire_close(&w);
    text_release(&body);
}

/* A handler: "METHOD path body". */
static inline void front_echo(struct http_exchange *ex, void *ctx)
{
    const struct http_request *r = http_request(ex);
    struct text t = TEXT_INIT;

    text_printf(&t, "%s %s ", r->method, r->path);
    text_add_len(&t, r->body, r->body_len);
    http_reply(ex, 200, "text/plain", "X-Extra: 1\r\n", &t);
}

#endif
