/* Keeping SR and VDI rows true while nobody asks (coordinator only).
 *
 * Every sr-watch-interval-ms: SRs with other_config:dirty (disks were destroyed, or a client asks) are cleared up
 * (agent verb sr.clean: coalescing) and scanned; what failed is tried again when it refreshes. Every sr-refresh-interval-ms: SRs with other_config:auto-scan=true
 * are scanned; of the others the sizes are read, and the space that disks take which VMs write to.
 * The first round, and those that refresh, also remove disks that a coordinator which died had not finished making, and
 * suspend images that nobody needs any more, and
 * resume guests that it had suspended for a checkpoint.
 * One round at a time, on a task worker; failures are logged. */
#ifndef XAPI_POOL_SR_WATCH_H
#define XAPI_POOL_SR_WATCH_H

#include "xapi/core/api_call.h"

struct sr_watch;
struct sr_watch *sr_watch_start(struct xapi *); /* its timer runs on until xapi->timers end */
void sr_watch_stop(struct sr_watch *);          /* after the workers have ended; NULL is fine */

/* Names this start of the coordinator: what carries another name was left by one that died. */
const char *sr_watch_start_id(struct xapi *);
/* Marks the SR dirty in a transaction of the caller's. */
NODISCARD struct error *sr_watch_dirty(struct txn *, const char *sr_ref);
/* One round now, in the caller: for tests. */
void sr_watch_round(struct xapi *, bool refresh);

#endif
