/* TLS over a non-blocking socket, without waiting: what both sides of rpc/http build on. The only
 * files that know OpenSSL's SSL objects are tls_*.c.
 *
 * A session belongs to one thread at a time (tls_stream.c adds a lock). Where a call gives -EAGAIN,
 * *events_r says what to poll for (POLLIN or POLLOUT). SIGPIPE is never raised: the socket is written
 * with MSG_NOSIGNAL through a BIO of our own. */
#ifndef RPC_HTTP_TLS_SESSION_H
#define RPC_HTTP_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rpc/base/bytes.h"
#include "rpc/http/tls.h"

struct tls_session;

struct tls_context *tls_context_ref(struct tls_context *);

/* A server's or a client's session, by the kind of the context. The descriptor stays the caller's and
 * must be non-blocking. server_name: for SNI, or NULL. NULL when out of memory. */
struct tls_session *tls_session_new(struct tls_context *, int fd, const char *server_name);
void tls_session_free(struct tls_session *); /* NULL is fine; sends nothing */

NODISCARD int tls_session_handshake(struct tls_session *, short *events_r);
NODISCARD ssize_t tls_session_read(struct tls_session *, void *, size_t, short *events_r); /* 0: the end */
NODISCARD ssize_t tls_session_write(struct tls_session *, const void *, size_t, short *events_r); /* > 0: so many */
size_t tls_session_pending(struct tls_session *); /* readable at once */
bool tls_session_drained(struct tls_session *);     /* nothing pending, and the socket was empty at the last look */
void tls_session_close_notify(struct tls_session *); /* best effort */
/* Larger read-ahead, for bulk transfer. */
void tls_session_bulk(struct tls_session *);

/* The peer's certificate has this fingerprint ("SHA256 AA:BB:…" or "AA:BB:…", any case). */
bool tls_session_peer_is(struct tls_session *, const char *fingerprint);
const char *tls_session_peer_fingerprint(struct tls_session *, struct arena *); /* NULL: no certificate */

/* A blocking duplex stream over an established session; takes both. One reader and one writer may use
 * it at the same time. */
struct byte_stream *tls_stream_new(struct tls_session *, int fd);

#endif
