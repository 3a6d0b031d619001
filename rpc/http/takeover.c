#include "rpc/http/takeover.h"

#include <stdio.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "rpc/http/connection.h"
#include "rpc/http/loop.h"
#include "rpc/http/reply.h"

LOG_MODULE(http);

/* Counted by the server and by each stream, since a stream may outlive both its thread and the server. */
struct takeover_list {
    atomic_uint refs;
    struct lock lock;
    struct cond ended;
    struct link streams;
    unsigned running;
    bool aborting;
    pthread_t *finished; /* ended, not joined */
    unsigned n_finished, cap_finished;
};

/* What fn gets: the bytes that came with the head, then the socket's. */
struct takeover_stream {
    struct byte_stream stream;
    struct byte_stream *inner;
    struct takeover_list *list;
    struct link link; /* in list->streams until closed */
    struct input early;
    int listener_id;
};

struct takeover {
    struct http_exchange *exchange;
    struct http_server *server;
    struct byte_stream *stream;
    bool counted;
    bool say_continue;
};

/* --- the list ------------------------------------------------------------------------------------- */

struct takeover_list *takeover_list_new(void)
{
    struct takeover_list *l = xcalloc(1, sizeof *l);

    atomic_init(&l->refs, 1);
    lock_init(&l->lock, LOCK_HTTP);
    cond_init(&l->ended);
    link_init(&l->streams);
    return l;
}

static void unref(struct takeover_list *l)
{
    if (atomic_fetch_sub(&l->refs, 1) > 1)
        return;
    xfree(l->finished);
    cond_release(&l->ended);
    lock_release(&l->lock);
    xfree(l);
}

static void abort_streams(struct takeover_list *l, int listener_id)
{
    LOCK_SCOPE(&l->lock);
    if (listener_id == 0)
        l->aborting = true;
    for (struct link *i = l->streams.next; i != &l->streams; i = i->next) {
        struct takeover_stream *s = CONTAINER_OF(i, struct takeover_stream, link);

        if (listener_id == 0 || s->listener_id == listener_id)
            bytes_abort(s->inner); /* shuts down, does not wait */
    }
}

void takeover_list_abort(struct takeover_list *l) { abort_streams(l, 0); }
void takeover_list_cut(struct takeover_list *l, int listener_id) { abort_streams(l, listener_id); }

/* Joins threads that have ended, or are about to. */
static void reap(struct takeover_list *l)
{
    lock_take(&l->lock);
    pthread_t *threads = l->finished;
    unsigned n = l->n_finished;

    l->finished = NULL;
    l->n_finished = l->cap_finished = 0;
    lock_drop(&l->lock);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    xfree(threads);
}

void takeover_list_free(struct takeover_list *l)
{
    if (l == NULL)
        return;
    takeover_list_abort(l);
    lock_take(&l->lock);
    while (l->running > 0)
        cond_wait(&l->ended, &l->lock);
    lock_drop(&l->lock);
    reap(l);
    unref(l);
}

static void thread_began(struct takeover_list *l)
{
    LOCK_SCOPE(&l->lock);
    l->running++;
}

static void thread_ends(struct takeover_list *l)
{
    LOCK_SCOPE(&l->lock);
    if (l->n_finished == l->cap_finished) {
        l->cap_finished = 2 * l->cap_finished + 4;
        l->finished = xrealloc(l->finished, l->cap_finished * sizeof *l->finished);
    }
    l->finished[l->n_finished++] = pthread_self();
    l->running--;
    cond_broadcast(&l->ended);
}

/* --- the stream ----------------------------------------------------------------------------------- */

static ssize_t stream_read(struct byte_stream *b, void *buffer, size_t n)
{
    struct takeover_stream *s = (struct takeover_stream *)b;
    size_t have = input_len(&s->early);

    if (have == 0)
        return bytes_read(s->inner, buffer, n);
    if (n > have)
        n = have;
    memcpy(buffer, input_bytes(&s->early), n);
    input_consume(&s->early, n);
    if (n == have)
        input_release(&s->early);
    return (ssize_t)n;
}

static int stream_writev(struct byte_stream *b, struct iovec *v, int n)
{
    return bytes_writev(((struct takeover_stream *)b)->inner, v, n);
}

static int stream_finish(struct byte_stream *b) { return bytes_finish(((struct takeover_stream *)b)->inner); }
static void stream_abort(struct byte_stream *b) { bytes_abort(((struct takeover_stream *)b)->inner); }

static int stream_fd(const struct byte_stream *b)
{
    const struct byte_stream *inner = ((const struct takeover_stream *)b)->inner;

    return inner->ops->fd(inner);
}

static size_t stream_pending(const struct byte_stream *b)
{
    const struct takeover_stream *s = (const struct takeover_stream *)b;

    return input_len(&s->early) + s->inner->ops->pending(s->inner);
}

static void stream_close(struct byte_stream *b)
{
    struct takeover_stream *s = (struct takeover_stream *)b;

    lock_take(&s->list->lock);
    link_remove(&s->link);
    lock_drop(&s->list->lock);
    unref(s->list);
    bytes_close(s->inner);
    input_release(&s->early);
    xfree(s);
}

static const struct byte_stream_ops takeover_stream_ops = {
    .name = "takeover",
    .read = stream_read,
    .writev = stream_writev,
    .finish = stream_finish,
    .abort = stream_abort,
    .close = stream_close,
    .fd = stream_fd,
    .pending = stream_pending,
};

/* Takes the descriptor and the session. */
static struct byte_stream *open_inner(int fd, struct tls_session *tls)
{
    if (tls != NULL) {
        tls_session_bulk(tls);
        return tls_stream_new(tls, fd);
    }
    CHECK(fd_set_nonblock(fd, false) == 0);
    return bytes_from_fd(fd);
}

static struct byte_stream *stream_new(struct takeover_list *l, struct byte_stream *inner, const struct input *early, int listener_id)
{
    struct takeover_stream *s = xcalloc(1, sizeof *s);

    s->stream.ops = &takeover_stream_ops;
    s->inner = inner;
    s->list = l;
    s->early = *early;
    s->listener_id = listener_id;
    atomic_fetch_add(&l->refs, 1);
    LOCK_SCOPE(&l->lock);
    link_append(&l->streams, &s->link);
    if (l->aborting)
        bytes_abort(inner);
    return &s->stream;
}

/* --- the thread ----------------------------------------------------------------------------------- */

static void *run(void *arg)
{
    struct takeover *t = arg;
    struct http_server *server = t->server;
    int rc = 0;

    if (t->say_continue)
        rc = bytes_write(t->stream, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    if (rc != 0)
        log_debug("the client went before its body was asked for");
    t->exchange->takeover(t->exchange, t->stream, t->exchange->takeover_ctx);
    connection_uncount(server, t->exchange->request.peer, t->counted);
    exchange_free(t->exchange);
    xfree(t);
    thread_ends(server->takeovers); /* the last use of the server */
    return NULL;
}

void takeover_begin(struct connection *c, struct http_exchange *ex)
{
    struct http_server *server = c->loop->server;
    struct takeover *t = xcalloc(1, sizeof *t);
    struct tls_session *tls;
    int fd;

    reap(server->takeovers);
    input_settle(&c->in);
    struct input early = c->in;

    c->in = (struct input){ 0 };
    *t = (struct takeover){
        .exchange = ex,
        .server = server,
        .counted = c->counted,
        .say_continue = ex->expect_continue && c->minor >= 1 && input_len(&early) == 0,
    };
    connection_detach(c, &fd, &tls);
    t->stream = stream_new(server->takeovers, open_inner(fd, tls), &early, c->listener_id);
    thread_began(server->takeovers);
    thread_start("http-takeover", run, t);
}

int http_write_head(struct byte_stream *s, int status, const char *extra)
{
    char line[128];
    int n = snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n", status, status_reason(status));
    struct iovec v[] = {
        { .iov_base = line, .iov_len = (size_t)n },
        { .iov_base = (void *)(extra != NULL ? extra : ""), .iov_len = extra != NULL ? strlen(extra) : 0 },
        { .iov_base = (void *)"\r\n", .iov_len = 2 },
    };

    return bytes_writev(s, v, 3);
}
