/* The stream wrappers, and streams over descriptors.
 *
 * A socket is tried without blocking first and polled only when it has nothing; abort shuts it down,
 * which wakes the poll. A pipe (or a device) has no shutdown: an eventfd is polled beside it. A file
 * never waits. */
#include "rpc/base/bytes.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

/* One thread counts in each direction; others may look. */
static void count(uint64_t *counter, uint64_t n) { __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED); }

ssize_t bytes_read(struct byte_stream *s, void *buffer, size_t n)
{
    CHECK(n > 0);
    ssize_t got = s->ops->read(s, buffer, n);
    if (got > 0)
        count(&s->bytes_in, (uint64_t)got);
    return got;
}

int bytes_read_all(struct byte_stream *s, void *buffer, size_t n)
{
    char *at = buffer;

    while (n > 0) {
        ssize_t got = bytes_read(s, at, n);
        if (got <= 0)
            return got < 0 ? (int)got : -EPIPE;
        at += got;
        n -= (size_t)got;
    }
    return 0;
}

int bytes_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    size_t total = 0;

    for (int i = 0; i < n; i++)
        total += parts[i].iov_len;
    if (total == 0)
        return 0;
    int rc = s->ops->writev(s, parts, n);
    if (rc == 0)
        count(&s->bytes_out, total);
    return rc;
}

int bytes_write(struct byte_stream *s, const void *bytes, size_t n)
{
    struct iovec part = { .iov_base = (void *)bytes, .iov_len = n };

    return bytes_writev(s, &part, 1);
}

int bytes_finish(struct byte_stream *s) { return s->ops->finish(s); }
void bytes_abort(struct byte_stream *s) { s->ops->abort(s); }

void bytes_close(struct byte_stream *s)
{
    if (s != NULL)
        s->ops->close(s);
}

int bytes_wait(struct byte_stream *s, int cancel_fd, int timeout_ms)
{
    struct pollfd p[] = {
        { .fd = s->ops->fd(s), .events = POLLIN },
        { .fd = cancel_fd, .events = POLLIN },
        { .fd = s->ops->abort_fd != NULL ? s->ops->abort_fd(s) : -1, .events = POLLIN },
    };

    if (s->ops->pending(s) > 0)
        timeout_ms = 0;
    int rc = poll(p, ARRAY_LEN(p), timeout_ms);
    if (rc < 0 && errno != EINTR)
        return -errno;
    if (rc > 0 && p[1].revents != 0)
        return -ECANCELED;
    if (rc > 0 && p[2].revents != 0)
        return -ECONNABORTED;
    if (s->ops->pending(s) > 0)
        return 1;
    return rc; /* a signal: as if the time had run out, the caller looks at its clock anyway */
}

/* --- descriptors --- */

struct fd_stream {
    struct byte_stream stream; /* first member */
    int fd;
    bool is_socket, is_file;
    int abort_fd; /* an eventfd, where shutdown does not work; or -1 */
    atomic_bool aborted;
};

static int wait_for(const struct fd_stream *f, short events)
{
    struct pollfd p[] = { { .fd = f->fd, .events = events }, { .fd = f->abort_fd, .events = POLLIN } };

    if (poll(p, ARRAY_LEN(p), -1) < 0 && errno != EINTR)
        return -errno;
    return atomic_load(&f->aborted) ? -ECONNABORTED : 0;
}

static ssize_t fd_stream_read(struct byte_stream *s, void *buffer, size_t n)
{
    struct fd_stream *f = (struct fd_stream *)s;

    for (;;) {
        if (atomic_load(&f->aborted))
            return -ECONNABORTED;
        ssize_t got = f->is_socket ? recv(f->fd, buffer, n, MSG_DONTWAIT) : read(f->fd, buffer, n);
        if (got == 0 && atomic_load(&f->aborted))
            return -ECONNABORTED;
        if (got >= 0)
            return got;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        int rc = wait_for(f, POLLIN);
        if (rc < 0)
            return rc;
    }
}

/* Steps over what was written; true while something is left. */
static bool advance(struct iovec **parts, int *n, size_t done)
{
    while (*n > 0 && done >= (*parts)->iov_len) {
        done -= (*parts)->iov_len;
        (*parts)++;
        (*n)--;
    }
    if (*n == 0)
        return false;
    (*parts)->iov_base = (char *)(*parts)->iov_base + done;
    (*parts)->iov_len -= done;
    return true;
}

#define PARTS_MAX 1024 /* IOV_MAX of Linux */

static ssize_t put_some(const struct fd_stream *f, struct iovec *parts, int n)
{
    if (n > PARTS_MAX)
        n = PARTS_MAX;
    if (!f->is_socket)
        return writev(f->fd, parts, n);
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = (size_t)n };
    return sendmsg(f->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int fd_stream_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    struct fd_stream *f = (struct fd_stream *)s;
    bool more = advance(&parts, &n, 0);

    while (more) {
        if (atomic_load(&f->aborted))
            return -ECONNABORTED;
        ssize_t put = put_some(f, parts, n);
        if (put >= 0) {
            more = advance(&parts, &n, (size_t)put);
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return atomic_load(&f->aborted) ? -ECONNABORTED : -errno;
        int rc = wait_for(f, POLLOUT);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int fd_stream_finish(struct byte_stream *s)
{
    const struct fd_stream *f = (const struct fd_stream *)s;

    if (!f->is_socket)
        return 0; /* closing is all the end that a pipe or a file has */
    return shutdown(f->fd, SHUT_WR) < 0 ? -errno : 0;
}

static void fd_stream_abort(struct byte_stream *s)
{
    struct fd_stream *f = (struct fd_stream *)s;

    atomic_store(&f->aborted, true);
    if (f->is_socket)
        shutdown(f->fd, SHUT_RDWR);
    else if (f->abort_fd >= 0)
        CHECK(eventfd_write(f->abort_fd, 1) == 0);
}

static void fd_stream_close(struct byte_stream *s)
{
    struct fd_stream *f = (struct fd_stream *)s;

    fd_close(&f->fd);
    fd_close(&f->abort_fd);
    xfree(f);
}

static int fd_stream_fd(const struct byte_stream *s) { return ((const struct fd_stream *)s)->fd; }
static int fd_stream_abort_fd(const struct byte_stream *s) { return ((const struct fd_stream *)s)->abort_fd; }
static size_t fd_stream_pending(const struct byte_stream *s) { return 0; }

static const struct byte_stream_ops fd_stream_ops = {
    .name = "fd",
    .read = fd_stream_read,
    .writev = fd_stream_writev,
    .finish = fd_stream_finish,
    .abort = fd_stream_abort,
    .close = fd_stream_close,
    .fd = fd_stream_fd,
    .pending = fd_stream_pending,
    .abort_fd = fd_stream_abort_fd,
};

struct byte_stream *bytes_from_fd(int fd)
{
    struct fd_stream *f = xcalloc(1, sizeof(*f));
    struct stat st;

    CHECK(fstat(fd, &st) == 0);
    f->stream.ops = &fd_stream_ops;
    f->fd = fd;
    f->abort_fd = -1;
    f->is_socket = S_ISSOCK(st.st_mode);
    f->is_file = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
    atomic_init(&f->aborted, false);
    if (!f->is_socket && !f->is_file) {
        f->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); /* -1 when out of descriptors: then abort does not wake */
        CHECK(fd_set_nonblock(fd, true) == 0);
    }
    return &f->stream;
}
