/* A connected socket, plain or TLS, without waiting: what NBD connections of tapd read and write through.
 *
 * Embed it. The caller watches the descriptor for nbd_wire_wants() and, after each read that gave all it was
 * asked for, reads again while nbd_wire_pending(). -EAGAIN and other -errno as read and write. */
#ifndef STORAGE_TAPD_NBD_WIRE_H
#define STORAGE_TAPD_NBD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "storage/tapd/tls_session.h"

struct nbd_wire {
    int fd;
    struct disk_tls *tls; /* NULL: plain */
    bool shaken;          /* TLS: the handshake is done */
};

/* Takes the descriptor: non-blocking, larger socket buffers, TCP_NODELAY. */
void nbd_wire_init(struct nbd_wire *, int fd);
void nbd_wire_close(struct nbd_wire *); /* close_notify if it fits; closes the descriptor */
/* From now on TLS; nothing may be unread or unsent. See disk_tls_new. */
NODISCARD int nbd_wire_tls(struct nbd_wire *, struct disk_tls_context *, const char *server_name, const char *fingerprint);
/* 0: ready to carry data; -EAGAIN. Plain: always 0. */
NODISCARD int nbd_wire_handshake(struct nbd_wire *);
NODISCARD ssize_t nbd_wire_readv(struct nbd_wire *, struct iovec *, int n);  /* 0: the end */
NODISCARD ssize_t nbd_wire_writev(struct nbd_wire *, struct iovec *, int n); /* no SIGPIPE */
NODISCARD int nbd_wire_flush(struct nbd_wire *); /* 0: nothing unsent */
bool nbd_wire_unsent(const struct nbd_wire *);
bool nbd_wire_pending(const struct nbd_wire *);
/* EPOLLIN and EPOLLOUT as the wire itself needs them on top of what the caller wants. */
unsigned nbd_wire_wants(const struct nbd_wire *);

#endif
