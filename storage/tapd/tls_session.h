/* TLS over a non-blocking socket for bulk data: what the NBD server and the NBD client of tapd speak through
 * (storage/tapd/nbd_wire.h puts it and plain sockets behind one face).
 *
 * TLS 1.3 with AES-128-GCM first, 1.2 allowed. Ciphertext is received up to 256 KiB at a time and sent up to
 * 256 KiB at a time, whatever the size of the calls. The descriptor stays the caller's. One thread. After
 * creation nothing here allocates but OpenSSL's handshake. Errors are -errno; -EAGAIN: see disk_tls_wants. */
#ifndef STORAGE_TAPD_TLS_SESSION_H
#define STORAGE_TAPD_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "rpc/base/attributes.h"

struct disk_tls_context; /* counted: sessions hold references of their own */
/* Certificate and key in one PEM file, as the front's. 0, -errno of the file, or -EINVAL: no use in it. Blocks. */
NODISCARD int disk_tls_server(const char *pem_path, struct disk_tls_context **);
NODISCARD int disk_tls_client(struct disk_tls_context **);
struct disk_tls_context *disk_tls_ref(struct disk_tls_context *);
void disk_tls_unref(struct disk_tls_context *); /* NULL is fine */

struct disk_tls;
/* By the kind of the context a server's or a client's session over fd (non-blocking). Client: server_name for SNI
 * (NULL or an address: none), fingerprint "SHA256 AA:BB:…" or "AA:BB…" or bare hex (NULL: whoever answers is trusted). */
struct disk_tls *disk_tls_new(struct disk_tls_context *, int fd, const char *server_name, const char *fingerprint);
void disk_tls_free(struct disk_tls *); /* sends nothing; NULL is fine */

/* 0: done; -EAGAIN; -EKEYREJECTED: not the fingerprint; -EPROTO and others: no session comes of it. */
NODISCARD int disk_tls_handshake(struct disk_tls *);
/* At least 1 byte of plaintext, as many as there are; 0 at the end. Never waits. */
NODISCARD ssize_t disk_tls_readv(struct disk_tls *, const struct iovec *, int n);
/* Takes at least 1 byte, perhaps not all, and sends what is encrypted. What is taken may be reused at once but is
 * sent only when disk_tls_unsent() is 0: while it is not, call disk_tls_flush when the socket is writable. */
NODISCARD ssize_t disk_tls_writev(struct disk_tls *, const struct iovec *, int n);
NODISCARD int disk_tls_flush(struct disk_tls *); /* 0: all sent */
size_t disk_tls_unsent(const struct disk_tls *);
bool disk_tls_pending(const struct disk_tls *); /* there may be plaintext without the socket becoming readable */
unsigned disk_tls_wants(const struct disk_tls *); /* EPOLLIN and/or EPOLLOUT, after -EAGAIN */
void disk_tls_close_notify(struct disk_tls *);    /* best effort */

#endif
