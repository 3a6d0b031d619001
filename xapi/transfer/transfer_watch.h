/* One thread of a host that looks after all its imports and exports once a second: tells the coordinator that they live and
 * how far they are, and ends those that were cancelled, whose daemon stops, or that move nothing for transfer-silence-s
 * (xapi.conf): first by raising the job's cancel, which whoever works on it notices between two chunks; a second later, for
 * who is blocked on a client that neither reads nor sends, by breaking the stream.
 *
 * What moves: bytes that the client has acknowledged or sent (TCP_INFO), and steps of the work. Lock class TASK. */
#ifndef XAPI_TRANSFER_TRANSFER_WATCH_H
#define XAPI_TRANSFER_TRANSFER_WATCH_H

#include "rpc/base/bytes.h"
#include "xapi/transfer/transfer.h"

/* Of one job: filled up to 'cancel' by who does it, the rest is the watch's; lives until transfer_watch_remove. */
struct transfer_watched {
    const struct transfer *transfer;
    struct byte_stream *stream;
    struct cancel *cancel;
    atomic_uint steps;          /* counted up by the worker */
    atomic_uint millionths;     /* of the way, told by the worker */
    struct transfer_watched *next;
    uint64_t seen;              /* what had moved … */
    int64_t seen_ms;            /* … when it last changed */
    bool busy;                  /* the thread looks at it now, without the lock */
    struct arena *arena;
    struct error *error;        /* why it is to end; in 'arena' */
};

struct transfer_watch;
struct transfer_watch *transfer_watch_new(void);
void transfer_watch_free(struct transfer_watch *); /* ends its thread; nothing is watched any more; NULL is fine */
void transfer_watch_add(struct transfer_watch *, struct xapi *, struct transfer_watched *);
/* Afterwards the thread does not touch the stream any more (close it then). Why the job was ended, in the arena; NULL where
 * it was not. */
struct error *transfer_watch_remove(struct arena *, struct transfer_watch *, struct transfer_watched *);

#endif
