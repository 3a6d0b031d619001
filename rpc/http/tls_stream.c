/* Blocking streams over TLS sessions.
 *
 * OpenSSL's objects belong to one thread at a time, but a stream has a reader and a writer: a lock is
 * held around each SSL call on the non-blocking socket, and never while waiting for it. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "rpc/http/tls_private.h"

#define WRITE_MOST (256u * 1024) /* under one hold of the lock */

struct tls_stream {
    struct byte_stream stream; /* first member */
    struct tls_session *session;
    struct lock lock;
    int fd;
    atomic_bool aborted;
};

/* -EAGAIN from a session call: waits, then 0. Anything else is passed on. */
static int wait_for(const struct tls_stream *t, int rc, short events)
{
    struct pollfd p = { .fd = t->fd, .events = events };

    if (atomic_load(&t->aborted))
        return -ECONNABORTED;
    if (rc != -EAGAIN)
        return rc;
    if (poll(&p, 1, -1) < 0 && errno != EINTR)
        return -errno;
    return atomic_load(&t->aborted) ? -ECONNABORTED : 0;
}

static ssize_t stream_read(struct byte_stream *b, void *buffer, size_t n)
{
    struct tls_stream *t = (struct tls_stream *)b;

    for (;;) {
        short events = 0;

        lock_take(&t->lock);
        ssize_t got = tls_session_read(t->session, buffer, n, &events);
        lock_drop(&t->lock);

        if (got > 0 || (got == 0 && !atomic_load(&t->aborted)))
            return got;
        int rc = wait_for(t, (int)got, events);

        if (rc != 0)
            return rc;
    }
}

/* Several records under one hold, as far as the socket takes them. */
static ssize_t write_some(struct tls_stream *t, const char *bytes, size_t n, short *events_r)
{
    size_t done = 0;

    LOCK_SCOPE(&t->lock);
    if (n > WRITE_MOST)
        n = WRITE_MOST;
    while (done < n) {
        ssize_t put = tls_session_write(t->session, bytes + done, n - done, events_r);

        if (put < 0)
            return done > 0 ? (ssize_t)done : put;
        done += (size_t)put;
    }
    return (ssize_t)done;
}

static int write_all(struct tls_stream *t, const char *bytes, size_t n)
{
    while (n > 0) {
        short events = 0;
        ssize_t put = write_some(t, bytes, n, &events);

        if (put > 0) {
            bytes += put;
            n -= (size_t)put;
            continue;
        }
        int rc = wait_for(t, (int)put, events);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static int stream_writev(struct byte_stream *b, struct iovec *v, int n)
{
    struct tls_stream *t = (struct tls_stream *)b;

    for (int i = 0; i < n; i++) {
        int rc = write_all(t, v[i].iov_base, v[i].iov_len);

        if (rc != 0)
            return rc;
    }
    return 0;
}

static int stream_finish(struct byte_stream *b)
{
    struct tls_stream *t = (struct tls_stream *)b;

    lock_take(&t->lock);
    tls_session_close_notify(t->session);
    lock_drop(&t->lock);
    return shutdown(t->fd, SHUT_WR) == 0 || errno == ENOTCONN ? 0 : -errno;
}

static void stream_abort(struct byte_stream *b)
{
    struct tls_stream *t = (struct tls_stream *)b;

    atomic_store(&t->aborted, true);
    shutdown(t->fd, SHUT_RDWR);
}

static void stream_close(struct byte_stream *b)
{
    struct tls_stream *t = (struct tls_stream *)b;

    if (!atomic_load(&t->aborted))
        tls_session_close_notify(t->session);
    tls_session_free(t->session);
    lock_release(&t->lock);
    fd_close(&t->fd);
    xfree(t);
}

static int stream_fd(const struct byte_stream *b) { return ((const struct tls_stream *)b)->fd; }

static size_t stream_pending(const struct byte_stream *b)
{
    struct tls_stream *t = (struct tls_stream *)b;

    LOCK_SCOPE(&t->lock);
    return tls_session_pending(t->session);
}

static const struct byte_stream_ops tls_stream_ops = {
    .name = "tls",
    .read = stream_read,
    .writev = stream_writev,
    .finish = stream_finish,
    .abort = stream_abort,
    .close = stream_close,
    .fd = stream_fd,
    .pending = stream_pending,
};

struct byte_stream *tls_stream_new(struct tls_session *session, int fd)
{
    struct tls_stream *t = xcalloc(1, sizeof *t);

    t->stream.ops = &tls_stream_ops;
    t->session = session;
    t->fd = fd;
    lock_init(&t->lock, LOCK_LEAF);
    atomic_init(&t->aborted, false);
    return &t->stream;
}

/* --- connecting ------------------------------------------------------------------------------------- */

static int handshake(struct tls_session *s, int fd, const char *expect)
{
    for (;;) {
        short events = 0;
        int rc = tls_session_handshake(s, &events);

        if (rc == 0)
            return expect != NULL && !tls_session_peer_is(s, expect) ? -EKEYREJECTED : 0;
        if (rc != -EAGAIN)
            return rc;
        struct pollfd p = { .fd = fd, .events = events };

        if (poll(&p, 1, -1) < 0 && errno != EINTR)
            return -errno;
    }
}

struct byte_stream *tls_connect(struct tls_context *c, int taken, const char *server_name, const char *expect_fingerprint, int *error)
{
    AUTO_FD fd = taken;
    struct tls_session *s;

    *error = fd_set_nonblock(fd, true);
    if (*error != 0)
        return NULL;
    s = tls_session_new(c, fd, server_name);
    *error = s != NULL ? handshake(s, fd, expect_fingerprint) : -ENOMEM;
    if (*error != 0) {
        tls_session_free(s);
        return NULL;
    }
    tls_session_bulk(s);
    return tls_stream_new(s, fd_steal(&fd));
}

const char *tls_peer_fingerprint(struct arena *arena, struct byte_stream *b)
{
    if (b->ops != &tls_stream_ops)
        return NULL;
    struct tls_stream *t = (struct tls_stream *)b;

    LOCK_SCOPE(&t->lock);
    return tls_session_peer_fingerprint(t->session, arena);
}
