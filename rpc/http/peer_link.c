#include "rpc/http/peer_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

/* Waits for events on fd: 0, -ECANCELED, -ETIMEDOUT or -errno. */
static int wait_for(struct call *c, int fd, short events)
{
    struct pollfd p[] = {
        { .fd = fd, .events = events },
        { .fd = c->cancel != NULL ? cancel_fd(c->cancel) : -1, .events = POLLIN },
    };

    for (;;) {
        int64_t left = c->deadline_ms != 0 ? c->deadline_ms - clock_ms(c->clock) : -1;

        if (c->cancel != NULL && cancel_raised(c->cancel))
            return -ECANCELED;
        if (c->deadline_ms != 0 && left <= 0)
            return -ETIMEDOUT;
        int rc = poll(p, 2, left > INT_MAX ? INT_MAX : (int)left);

        if (rc < 0 && errno != EINTR)
            return -errno;
        if (rc > 0 && p[1].revents == 0)
            return 0;
    }
}

char *peer_link_key(const struct http_target *t)
{
    return xprintf("%s|%d|%d|%s|%s", t->address, t->port, t->tls, t->fingerprint != NULL ? t->fingerprint : "",
                   t->bind_address != NULL ? t->bind_address : "");
}

/* --- connecting ------------------------------------------------------------------------------------- */

static struct addrinfo *resolve(const char *host, int port, int *rc_r)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char service[12], bare[64];
    size_t len = strlen(host);

    if (len > 2 && len < sizeof bare && host[0] == '[' && host[len - 1] == ']') {
        snprintf(bare, sizeof bare, "%.*s", (int)(len - 2), host + 1);
        host = bare;
    }
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &found);

    if (rc == EAI_NONAME) {
        hints.ai_flags = AI_NUMERICSERV;
        rc = getaddrinfo(host, service, &hints, &found);
    }
    *rc_r = rc == 0 ? 0 : rc == EAI_SYSTEM ? -errno : -EHOSTUNREACH;
    return rc == 0 ? found : NULL;
}

static int bind_to(int fd, const char *address)
{
    int rc;
    struct addrinfo *local = resolve(address, 0, &rc);

    if (local == NULL)
        return rc;
    rc = bind(fd, local->ai_addr, local->ai_addrlen) != 0 ? -errno : 0;
    freeaddrinfo(local);
    return rc;
}

/* Connects a non-blocking socket. */
static int connect_within(struct call *c, int fd, const struct sockaddr *a, socklen_t size)
{
    int error = 0;
    socklen_t error_size = sizeof error;

    if (connect(fd, a, size) == 0)
        return 0;
    if (errno == EAGAIN)
        return -ECONNREFUSED; /* a unix socket whose backlog is full */
    if (errno != EINPROGRESS && errno != EINTR)
        return -errno;
    int rc = wait_for(c, fd, POLLOUT);

    if (rc != 0)
        return rc;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size) != 0)
        return -errno;
    return -error;
}

static int connect_unix(struct call *c, const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (strlen(path) >= sizeof a.sun_path)
        return -ENAMETOOLONG;
    memcpy(a.sun_path, path, strlen(path) + 1);
    int rc = connect_within(c, fd, (struct sockaddr *)&a, sizeof a);

    return rc == 0 ? fd_steal(&fd) : rc;
}

static int connect_address(struct call *c, const struct addrinfo *a, const char *bind_address)
{
    int on = 1;
    AUTO_FD fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    int rc = bind_address != NULL ? bind_to(fd, bind_address) : 0;

    if (rc == 0)
        rc = connect_within(c, fd, a->ai_addr, a->ai_addrlen);
    return rc == 0 ? fd_steal(&fd) : rc;
}

/* A connected descriptor or -errno; tries each address of a name. */
static int connect_target(struct call *c, const struct http_target *t)
{
    int rc;

    if (t->port == 0)
        return connect_unix(c, t->address);
    struct addrinfo *all = resolve(t->address, t->port, &rc);

    for (const struct addrinfo *a = all; a != NULL; a = a->ai_next) {
        rc = connect_address(c, a, t->bind_address);
        if (rc >= 0 || rc == -ECANCELED || rc == -ETIMEDOUT)
            break;
    }
    if (all != NULL)
        freeaddrinfo(all);
    return rc;
}

static int handshake(struct call *c, struct peer_link *l, const char *fingerprint)
{
    for (;;) {
        short events = 0;
        int rc = tls_session_handshake(l->tls, &events);

        if (rc == 0)
            return fingerprint != NULL && !tls_session_peer_is(l->tls, fingerprint) ? -EKEYREJECTED : 0;
        if (rc == -EAGAIN)
            rc = wait_for(c, l->fd, events);
        if (rc != 0)
            return rc;
    }
}

int peer_link_open(struct call *c, struct tls_context *context, const struct http_target *t, char *key, struct peer_link **link_r)
{
    int rc, fd = connect_target(c, t);

    if (fd < 0) {
        xfree(key);
        return fd;
    }
    struct peer_link *l = xcalloc(1, sizeof *l);

    l->fd = fd;
    l->key = key;
    if (t->tls) {
        l->tls = tls_session_new(context, fd, t->address);
        rc = l->tls != NULL ? handshake(c, l, t->fingerprint) : -ENOMEM;
        if (rc != 0) {
            peer_link_close(l);
            return rc;
        }
    }
    *link_r = l;
    return 0;
}

void peer_link_close(struct peer_link *l)
{
    if (l == NULL)
        return;
    if (l->tls != NULL)
        tls_session_close_notify(l->tls);
    tls_session_free(l->tls);
    fd_close(&l->fd);
    xfree(l->key);
    xfree(l);
}

/* --- using ------------------------------------------------------------------------------------------ */

bool peer_link_quiet(struct peer_link *l)
{
    char byte;
    short events;

    if (l->tls != NULL) /* a session ticket may have come in the meantime: that is not an answer */
        return tls_session_read(l->tls, &byte, 1, &events) == -EAGAIN;
    return recv(l->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static ssize_t try_write(struct peer_link *l, const void *bytes, size_t n, short *events_r)
{
    ssize_t put;

    if (l->tls != NULL)
        return tls_session_write(l->tls, bytes, n, events_r);
    *events_r = POLLOUT;
    do
        put = send(l->fd, bytes, n, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

static ssize_t try_read(struct peer_link *l, void *buffer, size_t n, short *events_r)
{
    ssize_t got;

    if (l->tls != NULL)
        return tls_session_read(l->tls, buffer, n, events_r);
    *events_r = POLLIN;
    do
        got = recv(l->fd, buffer, n, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

int peer_link_write(struct call *c, struct peer_link *l, const void *bytes, size_t n)
{
    const char *at = bytes;

    while (n > 0) {
        short events = 0;
        ssize_t put = try_write(l, at, n, &events);

        if (put > 0) {
            at += put;
            n -= (size_t)put;
            continue;
        }
        int rc = put == -EAGAIN ? wait_for(c, l->fd, events) : (int)put;

        if (rc != 0)
            return rc;
    }
    return 0;
}

ssize_t peer_link_read(struct call *c, struct peer_link *l, void *buffer, size_t n)
{
    for (;;) {
        short events = 0;
        ssize_t got = try_read(l, buffer, n, &events);

        if (got != -EAGAIN)
            return got;
        int rc = wait_for(c, l->fd, events);

        if (rc != 0)
            return rc;
    }
}

struct byte_stream *peer_link_stream(struct peer_link *l)
{
    struct byte_stream *s;
    int fd = fd_steal(&l->fd);

    if (l->tls != NULL) {
        tls_session_bulk(l->tls);
        s = tls_stream_new(l->tls, fd);
        l->tls = NULL;
    } else {
        CHECK(fd_set_nonblock(fd, false) == 0);
        s = bytes_from_fd(fd);
    }
    peer_link_close(l);
    return s;
}
