/* One connection from us to a peer, non-blocking underneath, that waits with a call's deadline and
 * cancel. Used by client.c only. */
#ifndef RPC_HTTP_PEER_LINK_H
#define RPC_HTTP_PEER_LINK_H

#include <sys/uio.h>

#include "rpc/http/client.h"
#include "rpc/http/tls_session.h"

struct peer_link {
    int fd;
    struct tls_session *tls;   /* NULL: plain */
    char *key;                 /* what target it goes to, for the pool */
    struct peer_link *next;    /* in the pool … */
    int64_t idle_since_ms;     /* … since then */
};

/* Text that is equal for targets that may share connections. */
char *peer_link_key(const struct http_target *);
/* 0, or -errno; -EKEYREJECTED for the wrong certificate. Takes the key. */
NODISCARD int peer_link_open(struct call *, struct tls_context *, const struct http_target *, char *key, struct peer_link **link_r);
void peer_link_close(struct peer_link *); /* NULL is fine */
/* True if the peer has neither closed nor sent anything. */
bool peer_link_quiet(struct peer_link *);

NODISCARD int peer_link_write(struct call *, struct peer_link *, const void *, size_t);
NODISCARD ssize_t peer_link_read(struct call *, struct peer_link *, void *, size_t); /* 0 at the end */
/* The raw duplex stream; takes the link. */
struct byte_stream *peer_link_stream(struct peer_link *);

#endif
