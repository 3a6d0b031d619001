/* The far side of a mirror: errors, loss, silence, connecting again, making stable.
 *
 * A target by nbd that is lost is connected again, every RETRY_US for reconnect_us, and the mirror goes on from
 * the map. Any other error of a target, and silence of one that cannot be connected again, ends the mirror. */
#ifndef STORAGE_TAPD_MIRROR_TARGET_H
#define STORAGE_TAPD_MIRROR_TARGET_H

#include "storage/tapd/nbd_client.h"

/* What only a remote block can do; signatures and contracts of storage/tapd/nbd_client.h. */
struct mirror_remote {
    bool (*is_lost)(const struct block *);
    void (*watch)(struct block *, int64_t silence_us, void (*lost)(void *ctx, int reason), void *ctx);
    void (*reconnect)(struct block *, void (*done)(void *ctx, int result), void *ctx);
    bool (*can_hash)(const struct block *);
    void (*hash)(struct block *, struct nbd_hash *);
};
extern const struct mirror_remote mirror_remote_nbd;

struct mirror;
void mirror_target_init(struct mirror *);
/* A request goes to the target; one has come back (also with an error). Errors are for mirror_target_error. */
void mirror_target_sent(struct mirror *);
void mirror_target_heard(struct mirror *, int result);
/* A request to the target failed; what it was about is already dirty or unproven again. what: "write", "flush". */
void mirror_target_error(struct mirror *, const char *what, int result);
void mirror_target_tick(struct mirror *); /* looks for silence */
void mirror_target_stop(struct mirror *);

/* Makes the target stable, then done(m, 0 or -errno); the map knows. One at a time. */
void mirror_target_flush(struct mirror *, void (*done)(struct mirror *, int result));

#endif
