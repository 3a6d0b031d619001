/* An NBD server as the block at the bottom of a chain: nbd_open of block.h, and what only NBD has.
 *
 * Asynchronous, on the loop's thread; many requests in flight, replies straight into the requests' buffers,
 * nothing allocated on the I/O path. nbd_open connects and negotiates while it turns the loop (it blocks, up
 * to NBD_CONNECT_US); everything after that is asynchronous but 'extents', which waits for one exchange of
 * its own (replies to others that arrive meanwhile are reported by the next turn of the loop).
 *
 * A request's error keeps its errno (ENOSPC, EIO, EPERM, EINVAL, EOVERFLOW -> EIO, …). What the server cannot
 * do is done otherwise: FUA by a flush after the write, ZERO by writing zeros, DISCARD and FLUSH by nothing.
 *
 * Loss: end of file, reset, bytes that are not the protocol, or silence (requests in flight and not one byte
 * from the server for silence_us) lose all connections at once: every request in flight and every later one
 * fails with -ECONNRESET, or -ETIMEDOUT after silence, then 'lost' is called, once. nbd_reconnect tries again. While one
 * that is kept is lost, 'extents' says -EAGAIN: once a read is done it may be asked again.
 *
 * Through an HTTP front (how a tapd reaches one of another host; xapi/migrate/disk_sink.h):
 *   nbds://ADDRESS:443/?tls=first&fingerprint=HEX&put=%2Fservices%2FSM%2Fnbd%2F…&cookie=migration_key%3D…
 *   nbd://ADDRESS:80/?put=…&cookie=…        (no TLS)
 * TCP; TLS at once, the certificate pinned where there is a fingerprint; "PUT <put> HTTP/1.1" with Host and Cookie; the
 * head of the answer (nbd_front.h); NBD right behind it. Every connection, also one again, does so. 401 and 403 are
 * -EACCES, 404 is -ENOENT, other answers -ECONNREFUSED. Build such a URI with disk_sink_uri; it holds a secret: show
 * nbd_uri_shown of it.
 *
 * The server is not believed: lengths, offsets, cookies and types are checked; a breach is a loss. */
#ifndef STORAGE_TAPD_NBD_CLIENT_H
#define STORAGE_TAPD_NBD_CLIENT_H

#include "storage/tapd/block.h"

#define NBD_CONNECT_US 10000000  /* connecting and negotiating takes at most this long */
#define NBD_SILENCE_US 30000000  /* when nobody said otherwise */
#define NBD_CONNECTIONS_MAX 4u

struct nbd_options {
    unsigned connections;   /* where the server allows several (0: 1); at most NBD_CONNECTIONS_MAX */
    int64_t silence_us;     /* 0: NBD_SILENCE_US */
    bool keep;              /* after a loss requests wait, those unanswered are sent again after nbd_reconnect */
    int64_t retry_us;       /* with 'keep': connects again by itself, so often, for as long as it takes; nobody calls
                               nbd_reconnect. 0: no */
    int64_t later_size;     /* not 0: opens at once, as one that is lost (of this size, until it knows better: a smaller
                               server is -ESTALE); nbd_reconnect connects it. Not with 'keep' */
    void (*lost)(void *ctx, int reason); /* -errno; on the loop, never inside a call of ours; NULL: nobody */
    void *ctx;
};
/* nbd_open with options; nbd_open itself takes none of them. */
NODISCARD struct error *nbd_open_with(struct arena *, const struct block_open *, const struct nbd_options *, struct block **block_r);

bool nbd_is(const struct block *); /* made by nbd_open: the functions below take only such a block */
/* Later than opening; silence_us 0: as it is. */
void nbd_watch(struct block *, int64_t silence_us, void (*lost)(void *ctx, int reason), void *ctx);
bool nbd_is_lost(const struct block *);
/* 'keep' and 'retry_us' from now on, also when it is lost already. An nbd_reconnect under way is given up: its 'done'
 * is not called. */
void nbd_keep(struct block *, int64_t retry_us);
/* One try to connect all of it again, after a loss; 'done' is called on the loop with 0 or -errno (-ESTALE: it has
 * another size now or became read-only; -ETIMEDOUT after NBD_CONNECT_US), never inside this call. One at a time. */
void nbd_reconnect(struct block *, void (*done)(void *ctx, int result), void *ctx);
/* After a loss with 'keep': it will not be tried again. What waits and all that comes fails with 'reason'. */
void nbd_abandon(struct block *, int reason);

/* Hashes made by the server of what it reads from its medium (xapi:hash of nbd_protocol.h). Embed it. */
struct nbd_hash {
    int64_t offset;
    uint32_t length;          /* multiples of 4,096 but at the end of the disk; at most NBD_HASH_MAX */
    uint8_t (*digests)[16];   /* room for one of each NBD_HASH_BLOCK begun */
    int result;               /* 0 or -errno, valid in done */
    void (*done)(struct nbd_hash *); /* once, on the loop; may be inside nbd_hash */
    void *owner;
    struct nbd_hash *next;    /* ours while it is in flight */
};
bool nbd_can_hash(const struct block *);
void nbd_hash(struct block *, struct nbd_hash *); /* -EOPNOTSUPP where the server cannot */

/* Bytes of payload and headers sent and received since opening; for tests and status. */
void nbd_traffic(const struct block *, uint64_t *sent_r, uint64_t *received_r);

#endif
