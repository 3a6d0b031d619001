#include "xenops/sim/guest/disk_medium.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "rpc/base/arena.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/nbd/nbd_client.h"

#define RETRY_MS 50

/* --- files --------------------------------------------------------------------------------------------- */

static int file_open(struct disk_medium *m, bool writable, bool direct)
{
    m->fd = open(m->path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | (direct ? O_DIRECT : 0));
    return m->fd < 0 ? -errno : 0;
}

static int medium_file_read(struct disk_medium *m, void *to, uint32_t n, int64_t at) { return fd_pread_all(m->fd, to, n, at); }
static int medium_file_write(struct disk_medium *m, const void *from, uint32_t n, int64_t at) { return fd_pwrite_all(m->fd, from, n, at); }
static int file_flush(struct disk_medium *m) { return fdatasync(m->fd) < 0 ? -errno : 0; }
static bool file_close(struct disk_medium *m, int watch)
{
    fd_close(&m->fd);
    return true;
}

static const struct medium_ops file_ops = {
    .open = file_open, .read = medium_file_read, .write = medium_file_write, .flush = file_flush, .close = file_close,
};

/* --- NBD ------------------------------------------------------------------------------------------------- */

static int remote_open(struct disk_medium *m, bool writable, bool direct)
{
    AUTO_ARENA a = arena_new();
    struct nbd_uri uri;

    return nbd_uri_parse(a, m->path, &uri) ? 0 : -EINVAL;
}

/* What only the end of the connection says: the request may be repeated on the next. */
static bool is_lost(const struct disk_medium *m) { return nbd_client_gone(m->client); }

/* A connection, however long it takes. */
static int connect_to(struct disk_medium *m)
{
    AUTO_ARENA a = arena_new();
    struct nbd_uri uri;
    struct nbd_export export;

    CHECK(nbd_uri_parse(a, m->path, &uri));
    for (;;) {
        struct pollfd stop = { .fd = m->stop_fd, .events = POLLIN };
        int rc = nbd_client_open(&uri, m->stop_fd, &m->client, &export);

        if (rc == 0 || rc == -ECANCELED || rc == -EOPNOTSUPP)
            return rc;
        if (poll(&stop, 1, RETRY_MS) > 0)
            return -ECANCELED;
    }
}

/* One request, repeated over new connections until it is answered. */
struct remote_request { enum { REMOTE_READ, REMOTE_WRITE, REMOTE_FLUSH } op; void *to; const void *from; uint32_t length; uint64_t offset; };

static int remote_try(struct disk_medium *m, const struct remote_request *r)
{
    switch (r->op) {
    case REMOTE_READ:
        return nbd_read(m->client, r->to, r->length, r->offset);
    case REMOTE_WRITE:
        return nbd_write(m->client, r->from, r->length, r->offset, false);
    case REMOTE_FLUSH:
        break;
    }
    return nbd_flush(m->client);
}

static int remote_do(struct disk_medium *m, const struct remote_request *r)
{
    int rc = m->client == NULL ? connect_to(m) : 0;

    while (rc == 0) {
        rc = remote_try(m, r);
        if (rc == 0 || rc == -ECANCELED || !is_lost(m))
            return rc;
        rc = nbd_client_reconnect(m->client, m->stop_fd);
    }
    return rc;
}

static int remote_read(struct disk_medium *m, void *to, uint32_t n, int64_t at)
{
    return remote_do(m, &(struct remote_request){ .op = REMOTE_READ, .to = to, .length = n, .offset = (uint64_t)at });
}

static int remote_write(struct disk_medium *m, const void *from, uint32_t n, int64_t at)
{
    return remote_do(m, &(struct remote_request){ .op = REMOTE_WRITE, .from = from, .length = n, .offset = (uint64_t)at });
}

static int remote_flush(struct disk_medium *m)
{
    if (m->client == NULL)
        return 0; /* nothing was written over a connection of ours */
    return remote_do(m, &(struct remote_request){ .op = REMOTE_FLUSH });
}

/* A flush error was the writes': nothing is lost that was not counted. */
static bool remote_close(struct disk_medium *m, int watch)
{
    struct epoll_event hung_up = { .events = EPOLLRDHUP };
    struct pollfd timer = { .fd = m->timer_fd, .events = POLLIN };

    if (watch >= 0)
        CHECK(epoll_ctl(m->stop_fd, EPOLL_CTL_ADD, watch, &hung_up) == 0);
    int rc = remote_flush(m);
    if (watch >= 0)
        CHECK(epoll_ctl(m->stop_fd, EPOLL_CTL_DEL, watch, NULL) == 0);
    if (rc == -ECANCELED && poll(&timer, 1, 0) == 0)
        return false;
    nbd_client_close(m->client);
    m->client = NULL;
    return true;
}

static const struct medium_ops remote_ops = {
    .open = remote_open, .read = remote_read, .write = remote_write, .flush = remote_flush, .close = remote_close,
};

/* --- either ---------------------------------------------------------------------------------------------- */

void medium_init(struct disk_medium *m, const char *path)
{
    bool remote = nbd_uri_is(path);

    *m = (struct disk_medium){ .ops = remote ? &remote_ops : &file_ops, .path = path, .fd = -1, .timer_fd = -1, .stop_fd = -1, .flushes = remote };
    if (remote) {
        struct epoll_event over = { .events = EPOLLIN };

        m->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        m->stop_fd = epoll_create1(EPOLL_CLOEXEC);
        CHECK(m->timer_fd >= 0 && m->stop_fd >= 0 && epoll_ctl(m->stop_fd, EPOLL_CTL_ADD, m->timer_fd, &over) == 0);
    }
}

void medium_release(struct disk_medium *m)
{
    CHECK(!m->open);
    if (m->ops != NULL) {
        fd_close(&m->timer_fd);
        fd_close(&m->stop_fd);
    }
    *m = (struct disk_medium){ .fd = -1, .timer_fd = -1, .stop_fd = -1 };
}

bool medium_is_remote(const struct disk_medium *m) { return m->ops == &remote_ops; }

int medium_open(struct disk_medium *m, bool writable, bool direct)
{
    int rc = m->open ? 0 : m->path[0] == '\0' ? -ENOMEDIUM : m->ops->open(m, writable, direct);

    m->open = rc == 0;
    return rc;
}

int medium_read(struct disk_medium *m, void *to, uint32_t n, int64_t at) { return m->open ? m->ops->read(m, to, n, at) : -ENOMEDIUM; }
int medium_write(struct disk_medium *m, const void *from, uint32_t n, int64_t at) { return m->open ? m->ops->write(m, from, n, at) : -ENOMEDIUM; }
int medium_flush(struct disk_medium *m) { return m->open ? m->ops->flush(m) : 0; }

bool medium_close(struct disk_medium *m, int watch)
{
    if (m->open)
        m->open = !m->ops->close(m, watch);
    return !m->open;
}

void medium_give_up(struct disk_medium *m, int64_t ms)
{
    const struct itimerspec t = { .it_value = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 + 1 } };

    if (m->timer_fd >= 0)
        CHECK(timerfd_settime(m->timer_fd, 0, &t, NULL) == 0);
}
