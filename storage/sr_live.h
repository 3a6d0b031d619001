/* struct vdi_live as one call of a driver sees it. Private to storage/. */
#ifndef STORAGE_SR_LIVE_H
#define STORAGE_SR_LIVE_H

#include "storage/sr_table.h"

/* VDIs that are paused keep their turn until they are resumed, so that nobody attaches or activates them on a
 * chain that is being changed. */
struct live {
    struct vdi_live live; /* what the driver gets */
    struct storage *storage;
    const char *sr, *location; /* of the verb, which holds that turn */
    struct live_turn { struct live_turn *next; struct turn turn; bool taken; } *turns; /* in the call's arena */
};
void live_init(struct live *, struct storage *, const char *sr, const char *location);
/* Gives back what the driver forgot. */
void live_release(struct live *);

/* Before an SR is attached by a fresh process: copies that were under way when the last one died are given up. Only
 * mirrors that somebody may ask for (tap_lead) go on. */
void live_give_up(struct call *, struct storage *, const char *sr);
/* After it: the driver hears which of its VDIs are in use, and a tapd that stands paused goes on with the chain the
 * driver names now (what a dead operation left). Failures are logged. The caller holds no turn. */
void live_repair(struct call *, struct storage *, const char *sr);

#endif
