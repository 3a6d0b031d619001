#include "storage/tapd/nbd_wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"

#define UNIX_BUFFER (1 << 20) /* a unix socket's own is small: a megabyte of data then takes five turns */

void nbd_wire_init(struct nbd_wire *w, int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    int on = 1, size = UNIX_BUFFER;

    *w = (struct nbd_wire){ .fd = fd };
    (void)!fd_set_nonblock(fd, true);
    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return;
    if (address.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* its buffers grow by themselves */
    else if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

void nbd_wire_close(struct nbd_wire *w)
{
    if (w->tls != NULL && w->shaken)
        disk_tls_close_notify(w->tls);
    disk_tls_free(w->tls);
    w->tls = NULL;
    fd_close(&w->fd);
}

int nbd_wire_tls(struct nbd_wire *w, struct disk_tls_context *context, const char *server_name, const char *fingerprint)
{
    if (w->tls != NULL)
        return -EALREADY;
    w->tls = disk_tls_new(context, w->fd, server_name, fingerprint);
    w->shaken = false;
    return 0;
}

int nbd_wire_handshake(struct nbd_wire *w)
{
    if (w->tls == NULL || w->shaken)
        return 0;
    int rc = disk_tls_handshake(w->tls);

    w->shaken = rc == 0;
    return rc;
}

ssize_t nbd_wire_readv(struct nbd_wire *w, struct iovec *iov, int n)
{
    ssize_t got;

    if (w->tls != NULL)
        return disk_tls_readv(w->tls, iov, n);
    do
        got = n == 1 ? recv(w->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT) : readv(w->fd, iov, n);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t nbd_wire_writev(struct nbd_wire *w, struct iovec *iov, int n)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = (size_t)n };
    ssize_t put;

    if (w->tls != NULL)
        return disk_tls_writev(w->tls, iov, n);
    do
        put = sendmsg(w->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

int nbd_wire_flush(struct nbd_wire *w) { return w->tls != NULL ? disk_tls_flush(w->tls) : 0; }
bool nbd_wire_unsent(const struct nbd_wire *w) { return w->tls != NULL && disk_tls_unsent(w->tls) > 0; }
bool nbd_wire_pending(const struct nbd_wire *w) { return w->tls != NULL && w->shaken && disk_tls_pending(w->tls); }

unsigned nbd_wire_wants(const struct nbd_wire *w)
{
    if (w->tls == NULL)
        return 0;
    return w->shaken ? disk_tls_wants(w->tls) & EPOLLOUT : disk_tls_wants(w->tls);
}
