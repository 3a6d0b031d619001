#include "rpc/nbd/nbd_client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/nbd/nbd_endian.h"
#include "rpc/nbd/nbd_handshake.h"

#define RETRY_FIRST_MS 10
#define RETRY_LAST_MS 500
#define ZEROS (256u << 10)
#define EXTENTS_MAX (1u << 16)   /* in one reply we take */
#define STATUS_STEP (1u << 30)   /* asked for at once */
#define ERROR_TEXT_MAX 4096u

struct nbd_client {
    int fd;                     /* our own socket, or -1: */
    struct byte_stream *stream; /* a given one */
    int stop_fd;
    bool gone;                  /* nothing more may be sent or received */
    struct nbd_shaken shaken;
    uint64_t cookie;
    char *socket, *host, *name; /* where it is, to connect again */
    unsigned port;
    void *zeros;                /* for servers that cannot write zeroes */
    struct nbd_handshake shake;
};

/* --- bytes ------------------------------------------------------------------------------------------- */

/* The socket is ready, or stop. */
static int wait_for(const struct nbd_client *c, int fd, short events)
{
    struct pollfd p[] = { { .fd = fd, .events = events }, { .fd = c->stop_fd, .events = POLLIN } };
    int rc = poll(p, ARRAY_LEN(p), -1);

    if (rc < 0 && errno != EINTR)
        return -errno;
    return rc > 0 && p[1].revents != 0 ? -ECANCELED : 0;
}

/* What the end of a connection looks like. */
static int lost(int error) { return error == -EPIPE || error == -ECONNABORTED || error == -ETIMEDOUT || error == 0 ? -ECONNRESET : error; }

static int send_socket(struct nbd_client *c, struct iovec *v, int n)
{
    while (n > 0) {
        struct msghdr message = { .msg_iov = v, .msg_iovlen = (size_t)n };
        ssize_t put = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (put < 0) {
            int rc = wait_for(c, c->fd, POLLOUT);
            if (rc < 0)
                return rc;
            continue;
        }
        while (n > 0 && (size_t)put >= v->iov_len) {
            put -= (ssize_t)v->iov_len;
            v++;
            n--;
        }
        if (n > 0) {
            v->iov_base = (char *)v->iov_base + put;
            v->iov_len -= (size_t)put;
        }
    }
    return 0;
}

/* Both: 0, or -errno and the connection is gone. */
static int put(struct nbd_client *c, struct iovec *v, int n)
{
    int rc = c->gone ? -ECONNRESET : c->stream != NULL ? bytes_writev(c->stream, v, n) : send_socket(c, v, n);

    c->gone = c->gone || rc < 0;
    return rc < 0 ? lost(rc) : 0;
}

static int get(struct nbd_client *c, void *to, size_t n)
{
    int rc = c->gone ? -ECONNRESET : 0;

    while (n > 0 && rc == 0) {
        ssize_t got;

        if (c->stream != NULL) {
            rc = bytes_wait(c->stream, c->stop_fd, -1);
            got = rc < 0 ? rc : bytes_read(c->stream, to, n);
        } else {
            got = recv(c->fd, to, n, MSG_DONTWAIT);
            got = got < 0 ? -errno : got;
        }
        rc = 0;
        if (got > 0) {
            to = (char *)to + got;
            n -= (size_t)got;
        } else if (got == -EAGAIN || got == -EINTR) {
            rc = wait_for(c, c->fd, POLLIN);
        } else {
            rc = lost((int)got);
        }
    }
    c->gone = c->gone || rc < 0;
    return rc;
}

static int broken(struct nbd_client *c)
{
    c->gone = true;
    return -EPROTO;
}

/* --- connecting ---------------------------------------------------------------------------------------- */

static int negotiate(struct nbd_client *c, const char *name)
{
    const struct nbd_wish wish = { .name = name, .structured = true, .contexts = { NBD_CONTEXT_ALLOCATION } };
    struct nbd_handshake *h = &c->shake;
    int rc = 0;

    nbd_handshake_init(h, &wish);
    while (rc == 0)
        switch (nbd_handshake_step(h)) {
        case NBD_SHAKE_SEND: {
            struct iovec v = { .iov_base = h->out, .iov_len = h->out_len };
            rc = put(c, &v, 1);
            break;
        }
        case NBD_SHAKE_RECV:
            rc = get(c, h->in, h->want);
            break;
        case NBD_SHAKE_DONE:
            c->shaken = h->result;
            return 0;
        case NBD_SHAKE_TLS: /* not asked for */
        case NBD_SHAKE_FAILED:
            c->gone = true;
            return h->error != 0 ? h->error : -EPROTO;
        }
    return rc;
}

static int connect_tcp(const char *host, unsigned port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    char service[12];
    int on = 1, rc = -EHOSTUNREACH;

    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return -EHOSTUNREACH;
    for (const struct addrinfo *a = list; a != NULL && rc < 0; a = a->ai_next) {
        AUTO_FD fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            rc = -errno;
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        rc = fd_steal(&fd);
    }
    freeaddrinfo(list);
    return rc;
}

static int connect_once(struct nbd_client *c)
{
    fd_close(&c->fd);
    c->fd = c->socket != NULL ? unix_connect(c->socket) : connect_tcp(c->host, c->port);
    if (c->fd < 0) {
        int rc = c->fd;
        c->fd = -1;
        return rc;
    }
    c->gone = false;
    return negotiate(c, c->name);
}

static void tell(const struct nbd_client *c, struct nbd_export *e)
{
    *e = (struct nbd_export){ .size = (int64_t)c->shaken.size, .flags = c->shaken.flags, .has_status = c->shaken.has_context[0] };
}

int nbd_client_open(const struct nbd_uri *u, int stop_fd, struct nbd_client **client_r, struct nbd_export *export_r)
{
    if (u->tls)
        return -EOPNOTSUPP;
    struct nbd_client *c = xcalloc(1, sizeof *c);

    c->fd = -1;
    c->stop_fd = stop_fd;
    c->socket = u->socket != NULL ? xstrdup(u->socket) : NULL;
    c->host = u->host != NULL ? xstrdup(u->host) : NULL;
    c->name = xstrdup(u->name);
    c->port = u->port;
    int rc = connect_once(c);
    if (rc < 0) {
        nbd_client_close(c);
        return rc;
    }
    tell(c, export_r);
    *client_r = c;
    return 0;
}

int nbd_client_on(struct byte_stream *stream, const char *name, int stop_fd, struct nbd_client **client_r, struct nbd_export *export_r)
{
    struct nbd_client *c = xcalloc(1, sizeof *c);

    c->fd = -1;
    c->stream = stream;
    c->stop_fd = stop_fd;
    int rc = negotiate(c, name);
    if (rc < 0) {
        nbd_client_close(c);
        return rc;
    }
    tell(c, export_r);
    *client_r = c;
    return 0;
}

int nbd_client_reconnect(struct nbd_client *c, int stop_fd)
{
    struct pollfd stop = { .fd = stop_fd, .events = POLLIN };

    if (c->stream != NULL)
        return -EOPNOTSUPP;
    c->stop_fd = stop_fd;
    for (int wait_ms = RETRY_FIRST_MS;; wait_ms = wait_ms * 2 < RETRY_LAST_MS ? wait_ms * 2 : RETRY_LAST_MS) {
        int rc = connect_once(c);

        if (rc == 0 || rc == -ECANCELED)
            return rc;
        if (poll(&stop, 1, wait_ms) > 0)
            return -ECANCELED;
    }
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int send_request(struct nbd_client *c, unsigned type, unsigned flags, uint64_t offset, uint32_t length, const void *payload)
{
    unsigned char head[sizeof(struct nbd_request)];
    unsigned char *p = nbd_put32(head, NBD_MAGIC_REQUEST);

    p = nbd_put16(nbd_put16(p, (uint16_t)flags), (uint16_t)type);
    nbd_put32(nbd_put64(nbd_put64(p, ++c->cookie), offset), length);
    struct iovec v[] = { { .iov_base = head, .iov_len = sizeof head }, { .iov_base = (void *)payload, .iov_len = length } };
    return put(c, v, payload != NULL ? 2 : 1);
}

static int error_of(uint32_t wire)
{
    switch (wire) {
    case 0:
        return 0;
    case NBD_EPERM:
        return -EPERM;
    case NBD_ENOMEM:
        return -ENOMEM;
    case NBD_EINVAL:
        return -EINVAL;
    case NBD_ENOSPC:
        return -ENOSPC;
    case NBD_EOVERFLOW:
        return -EOVERFLOW;
    case NBD_ENOTSUP:
        return -EOPNOTSUPP;
    case NBD_ESHUTDOWN:
        return -ECONNRESET;
    default:
        return -EIO;
    }
}

/* What the answer to one request goes to. */
struct answer {
    char *to;            /* a read's */
    uint64_t offset;
    uint32_t length, got;
    void (*range)(void *ctx, uint64_t offset, uint64_t length, bool zero); /* block status */
    void *ctx;
    uint64_t covered;
    int error;
};

static int take_data(struct nbd_client *c, struct answer *a, uint32_t length, bool hole)
{
    unsigned char head[12];
    int rc = length < 9 || a->to == NULL || (hole && length != 12) ? broken(c) : get(c, head, hole ? 12 : 8);

    if (rc < 0)
        return rc;
    uint64_t offset = nbd_get64(head);
    uint32_t n = hole ? nbd_get32(head + 8) : length - 8;
    if (n == 0 || offset < a->offset || n > a->length - a->got || offset - a->offset > a->length - n)
        return broken(c);
    char *to = a->to + (offset - a->offset);
    if (hole)
        memset(to, 0, n);
    else
        rc = get(c, to, n);
    a->got += n;
    return rc;
}

static int take_error(struct nbd_client *c, struct answer *a, uint32_t length)
{
    unsigned char head[6], text[256];
    int rc = length < sizeof head || length > ERROR_TEXT_MAX ? broken(c) : get(c, head, sizeof head);

    if (rc < 0)
        return rc;
    a->error = error_of(nbd_get32(head));
    if (a->error == 0)
        return broken(c);
    length -= (uint32_t)sizeof head;
    for (uint32_t n; length > 0 && rc == 0; length -= n) {
        n = length < sizeof text ? length : (uint32_t)sizeof text;
        rc = get(c, text, n);
    }
    return rc;
}

static int take_status(struct nbd_client *c, struct answer *a, uint32_t length)
{
    unsigned char word[8];
    uint32_t n = length / 8;
    int rc = a->range == NULL || a->covered > 0 || length % 8 != 4 || n == 0 || n > EXTENTS_MAX ? broken(c) : get(c, word, 4);

    if (rc == 0 && nbd_get32(word) != c->shaken.context_id[0])
        return broken(c);
    for (; n > 0 && rc == 0; n--) {
        rc = get(c, word, sizeof word);
        if (rc < 0)
            return rc;
        uint64_t covered = nbd_get32(word), left = a->length - a->covered;
        if (covered == 0)
            return broken(c);
        covered = covered < left ? covered : left; /* the last one may reach beyond */
        if (covered > 0)
            a->range(a->ctx, a->offset + a->covered, covered, (nbd_get32(word + 4) & NBD_STATE_ZERO) != 0);
        a->covered += covered;
    }
    return rc;
}

static int take_chunk(struct nbd_client *c, struct answer *a, unsigned type, uint32_t length)
{
    if (type == NBD_REPLY_NONE)
        return length == 0 ? 0 : broken(c);
    if (type == NBD_REPLY_OFFSET_DATA || type == NBD_REPLY_OFFSET_HOLE)
        return take_data(c, a, length, type == NBD_REPLY_OFFSET_HOLE);
    if (type == NBD_REPLY_BLOCK_STATUS)
        return take_status(c, a, length);
    return type & 0x8000u ? take_error(c, a, length) : broken(c);
}

/* Chunks up to the last one; the head of the first is there up to its magic. */
static int take_chunks(struct nbd_client *c, struct answer *a)
{
    unsigned char head[sizeof(struct nbd_structured_reply)];

    for (bool first = true;; first = false) {
        int rc = first ? get(c, head + 4, sizeof head - 4) : get(c, head, sizeof head);

        if (rc < 0)
            return rc;
        if ((!first && nbd_get32(head) != NBD_MAGIC_STRUCTURED_REPLY) || nbd_get64(head + 8) != c->cookie)
            return broken(c);
        rc = take_chunk(c, a, nbd_get16(head + 6), nbd_get32(head + 16));
        if (rc < 0)
            return rc;
        if (nbd_get16(head + 4) & NBD_REPLY_FLAG_DONE)
            return a->error;
    }
}

static int take_answer(struct nbd_client *c, struct answer *a)
{
    unsigned char head[sizeof(struct nbd_simple_reply)];
    int rc = get(c, head, 4);

    if (rc < 0)
        return rc;
    if (nbd_get32(head) == NBD_MAGIC_STRUCTURED_REPLY && c->shaken.structured)
        rc = take_chunks(c, a);
    else if (nbd_get32(head) != NBD_MAGIC_SIMPLE_REPLY)
        return broken(c);
    else {
        rc = get(c, head + 4, sizeof head - 4);
        if (rc == 0 && nbd_get64(head + 8) != c->cookie)
            return broken(c);
        rc = rc == 0 ? error_of(nbd_get32(head + 4)) : rc;
        if (rc == 0 && a->to != NULL) {
            if (c->shaken.structured)
                return broken(c);
            a->got = a->length;
            rc = get(c, a->to, a->length);
        }
    }
    if (rc == -ECONNRESET) /* also a server that says it is going */
        c->gone = true;
    return rc;
}

/* --- the calls -------------------------------------------------------------------------------------------- */

static uint32_t longest(const struct nbd_client *c)
{
    uint32_t max = c->shaken.block_max < NBD_REQUEST_MAX ? c->shaken.block_max : NBD_REQUEST_MAX;

    return max > 4096 ? max & ~4095u : max;
}

int nbd_read(struct nbd_client *c, void *to, uint32_t length, uint64_t offset)
{
    for (uint32_t n; length > 0; length -= n, offset += n, to = (char *)to + n) {
        n = length < longest(c) ? length : longest(c);
        struct answer a = { .to = to, .offset = offset, .length = n };
        int rc = send_request(c, NBD_CMD_READ, 0, offset, n, NULL);

        if (rc == 0)
            rc = take_answer(c, &a);
        if (rc == 0 && a.got != n)
            rc = broken(c);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int simple(struct nbd_client *c, unsigned type, unsigned flags, uint64_t offset, uint32_t length, const void *payload)
{
    struct answer a = { .length = length };
    int rc = send_request(c, type, flags, offset, length, payload);

    return rc < 0 ? rc : take_answer(c, &a);
}

int nbd_write(struct nbd_client *c, const void *from, uint32_t length, uint64_t offset, bool fua)
{
    bool has_fua = (c->shaken.flags & NBD_TFLAG_SEND_FUA) != 0;

    for (uint32_t n; length > 0; length -= n, offset += n, from = (const char *)from + n) {
        n = length < longest(c) ? length : longest(c);
        int rc = simple(c, NBD_CMD_WRITE, fua && has_fua ? NBD_CMD_FLAG_FUA : 0u, offset, n, from);
        if (rc < 0)
            return rc;
    }
    return fua && !has_fua ? nbd_flush(c) : 0;
}

int nbd_flush(struct nbd_client *c)
{
    if ((c->shaken.flags & NBD_TFLAG_SEND_FLUSH) == 0)
        return c->gone ? -ECONNRESET : 0;
    return simple(c, NBD_CMD_FLUSH, 0, 0, 0, NULL);
}

int nbd_trim(struct nbd_client *c, uint32_t length, uint64_t offset)
{
    if ((c->shaken.flags & NBD_TFLAG_SEND_TRIM) == 0 || length == 0)
        return c->gone ? -ECONNRESET : 0;
    return simple(c, NBD_CMD_TRIM, 0, offset, length, NULL);
}

int nbd_zero(struct nbd_client *c, uint32_t length, uint64_t offset, bool no_hole)
{
    if (length == 0)
        return c->gone ? -ECONNRESET : 0;
    if (c->shaken.flags & NBD_TFLAG_SEND_WRITE_ZEROES)
        return simple(c, NBD_CMD_WRITE_ZEROES, no_hole ? NBD_CMD_FLAG_NO_HOLE : 0u, offset, length, NULL);
    if (c->zeros == NULL)
        c->zeros = xcalloc(1, ZEROS);
    for (uint32_t n; length > 0; length -= n, offset += n) {
        n = length < ZEROS ? length : ZEROS;
        int rc = nbd_write(c, c->zeros, n, offset, false);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int nbd_status(struct nbd_client *c, uint64_t offset, uint64_t length, void (*range)(void *ctx, uint64_t offset, uint64_t length, bool zero), void *ctx)
{
    if (!c->shaken.has_context[0]) {
        if (length > 0 && !c->gone)
            range(ctx, offset, length, false);
        return c->gone ? -ECONNRESET : 0;
    }
    while (length > 0) {
        uint32_t n = length < STATUS_STEP ? (uint32_t)length : STATUS_STEP;
        struct answer a = { .offset = offset, .length = n, .range = range, .ctx = ctx };
        int rc = send_request(c, NBD_CMD_BLOCK_STATUS, 0, offset, n, NULL);

        if (rc == 0)
            rc = take_answer(c, &a);
        if (rc == 0 && a.covered == 0)
            rc = broken(c);
        if (rc < 0)
            return rc;
        offset += a.covered;
        length -= a.covered;
    }
    return 0;
}

bool nbd_client_gone(const struct nbd_client *c) { return c->gone; }

void nbd_client_close(struct nbd_client *c)
{
    if (c == NULL)
        return;
    if (!c->gone && c->shaken.flags != 0)
        (void)!send_request(c, NBD_CMD_DISC, 0, 0, 0, NULL);
    fd_close(&c->fd);
    bytes_close(c->stream);
    xfree(c->socket);
    xfree(c->host);
    xfree(c->name);
    xfree(c->zeros);
    xfree(c);
}
