/* The mirror: a layer that follows the guest's writes while it copies what is below it to a target.
 *
 * Modes
 *   mirror  copy everything, follow writes, switch on demand (VDI.pool_migrate, moves to other hosts)
 *   copy    as mirror, over something nobody writes: ends as 'done' when all is copied and proven
 *   point   the target becomes the disk as it is now: a block the guest writes is copied before the write
 *           goes through (snapshots of thick images). Ends as 'done'
 *   merge   only what the image itself holds is copied into its parent (coalescing a leaf); then as mirror
 *
 * Rule (design §9): a guest write is acknowledged when the source has it and its dirty bit is set; flush and
 * FUA when stable on the source. No guest write waits for the target in mode mirror. Dirty bits are of
 * 4,096 bytes; neighbours are merged into requests of up to 1 MiB; zeros are sent as zeros, holes stay holes.
 *
 * Proof: a block is *unproven* until hashes of what was read back from both media agree, with no write to it
 * in between; any write unproves it. A difference is repaired (copied again, counted) and proven again;
 * three times in a row in one place is an error. The switch begins when dirty and unproven bytes fit the
 * budget at the measured rates (once it follows, a budget that cannot be kept doubles every five seconds of wanting the switch, a few times); it holds the guest's requests, sends and proves the rest, flushes the target,
 * commits (spec is replaced), and only then lets the guest go on, on the target.
 *
 * An attempt that does not keep to the budget is given up before 'commit', the guest goes on on the source, and
 * it is tried again; from the fifth attempt on the pause may grow.
 *
 * Hand-over (mode mirror): nobody writes any more (the caller holds the guest above the layer). The rest is copied without
 * a bandwidth limit and proven, both media are flushed, 'commit' makes it durable, and it is 'done': the source stays what
 * the layer is on. There is no budget; mirror_pause_us tells how long it took. Until commit it can be taken back.
 *
 * Mode point cannot read its moment twice, so there the proof compares the hash of what was read for the copy
 * with the hash of what is read back from the target; the guest's write waits for that too, so that after a
 * kill whatever is unproven still stands unchanged in the source.
 *
 * A lost target (end of file, reset, I/O error, or silence for silence_us with requests in flight) is
 * reported at once as 'failed' with the reason, unless the target can be reached again: a target by nbd is
 * connected again for reconnect_us and goes on from the map (status says so in 'error' meanwhile). Nothing is sent
 * twice but what was in flight; what the target had not made stable is proven again. The guest never notices.
 * In mode point a lost target is 'failed' at once: the guest's writes wait for it.
 *
 * Once switched the target is the disk: a target by nbd that is lost then is connected again for ever, and the
 * guest's requests wait for it.
 *
 * Fault points: mirror.read, mirror.write, mirror.flush, mirror.commit (error), mirror.hash (any word: a wrong hash),
 * mirror.corrupt-target (any word: one wrong byte is written). */
#ifndef STORAGE_TAPD_MIRROR_H
#define STORAGE_TAPD_MIRROR_H

#include "storage/tapd/block.h"

struct mirror_remote; /* storage/tapd/mirror_target.h */

enum mirror_mode { MIRROR_FOLLOW, MIRROR_COPY, MIRROR_POINT, MIRROR_MERGE };
enum mirror_state { MIRROR_NONE, MIRROR_COPYING, MIRROR_FOLLOWING /* fits the budget */, MIRROR_SWITCHING, MIRROR_SWITCHED, MIRROR_DONE, MIRROR_FAILED };

struct mirror_options {
    enum mirror_mode mode;
    int64_t bandwidth;      /* bytes/s to the target; 0: unlimited */
    int64_t budget_us;      /* longest pause at the switch (0: 10,000) */
    int64_t silence_us;     /* 0: 2,000,000 */
    int64_t reconnect_us;   /* how long a lost nbd target is tried again; 0: 30,000,000 */
    bool proof;
    const char *map_path;   /* where the bits live; NULL: in memory only. Nothing there: a new mirror, and the target of
                               mirror, copy and point is fresh, it reads as zeros (so whoever starts one removes an old
                               map first). A map of this mirror: it goes on from there. Anything else there: everything
                               is copied, holes too (point: failed) */
    const char *source, *target; /* what they are, "format:path", for the map to tell; NULL: "" */
    const struct mirror_remote *remote; /* NULL: nbd's for a target by nbd, else none (tests have their own) */
};
struct mirror_status {
    enum mirror_state state;
    int64_t total, copied, dirty, unproven, sent; /* bytes */
    int64_t rate, write_rate;                     /* bytes/s, measured */
    int64_t eta_us;                               /* -1: will not converge */
    int64_t left;                                 /* with eta_us -1: what would stay dirty for ever */
    unsigned passes, repaired;
    int64_t proven, pause_us, lost_us;
    double fraction;                              /* of the whole, proof included; never goes back; 1 when switched or done */
    bool lost;                   /* the target, just now: it is connected again */
    char error[256];                              /* failed: why; else what is the matter just now, or "" */
};

/* A layer over 'below' (which stays the source); both are taken. Events: 'changed' on every change of state and
 * when the target is lost or found again, on the loop. What cannot start (a target
 * that is too small, no map) is 'failed' from the beginning. Strings and options are copied. */
struct block *mirror_layer(struct arena *, struct block *below, struct block *target, const struct mirror_options *, void (*changed)(void *), void *ctx);
void mirror_get(const struct block *, struct mirror_status *);
bool mirror_is(const struct block *);             /* made by mirror_layer */
void mirror_set(struct block *, int64_t bandwidth, int64_t budget_us); /* -1: as it is */
/* Wants the switch as soon as it fits. The layer holds the guest's requests, drains, sends, proves, flushes,
 * then calls 'commit' (which makes the switch durable: 0 or -errno; on failure all goes on as before), then is
 * 'switched': requests go to the target from then on. */
void mirror_switch(struct block *, int (*commit)(void *ctx), void *ctx);
/* Hands the disk over: nothing may come from above until it is 'done', failed or taken back. When 'commit' fails the
 * mirror goes on as before ('changed', with the reason in 'error'). Mode mirror only; while it runs. */
void mirror_hand_over(struct block *, int (*commit)(void *ctx), void *ctx);
void mirror_hand_back(struct block *); /* not any more; once it is 'done' it is too late: nothing happens */
bool mirror_hands_over(const struct block *);
/* Ends it; calls 'ended' (on the loop) when nothing of the mirror's own is in flight; the guest goes on. Before the
 * switch the source remains below; after it, the target (one by nbd that is lost just then: whoever takes it has to
 * keep it, see nbd_keep). The map is removed. When the guest's requests are drained
 * too, mirror_take gives the remaining block, and the layer may then be closed. A layer closed while it mirrors
 * waits for its own requests and leaves the map for a later resume. */
void mirror_stop(struct block *, void (*ended)(void *), void *ctx);
struct block *mirror_take(struct block *); /* the block that goes on; the other one is closed */

#endif
