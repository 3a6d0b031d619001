/* The disks of a move on their way: mirrors and copies from the source host's tapds to the destination's, for move.c.
 *
 * The source host is driven by vdi.* verbs (agent_verbs.h): vdi.attach with user "send-<migration id>", vdi.mirror_start
 * with a URI, vdi.mirror_status/_set, vdi.mirror_abort. A mirror goes on when xapi dies; recovery aborts it. */
#ifndef XAPI_MIGRATE_DISK_SEND_H
#define XAPI_MIGRATE_DISK_SEND_H

#include "xapi/migrate/move.h"

/* Copies what is MOVE_DISK_COPY, smallest first, a few at once; returns when each is proven equal. Progress from..to of the
 * call. The task's "bandwidth" is followed. MIRROR_FAILED [vdi] with the cause in the task (migrate:error); TASK_CANCELLED. */
NODISCARD struct error *disk_send_copy(struct api_call *, struct move *, double from, double to);
/* Starts the mirrors of all MOVE_DISK_MIRROR disks, in parallel within the move's bandwidth, and returns when all follow. */
NODISCARD struct error *disk_send_mirror(struct api_call *, struct move *, double from, double to);
/* Of a VM that does not run: every mirror is drained, proven and ended ("vdi.hand_over"). */
NODISCARD struct error *disk_send_hand_over(struct api_call *, struct move *);
/* Ends all mirrors and gives the disks' tapds up; of a move that is over, whichever way. Idempotent; failures are logged. */
void disk_send_end(struct api_call *, struct move *);
/* The "disks" argument of migrate.send: set of { sr, location, hand_over } of what the guest writes to. */
struct value disk_send_closing(struct api_call *, const struct move *);
/* What was measured: bytes, proven, repaired per disk, into task and ledger (move_facts). */
void disk_send_tell(struct api_call *, const struct move *);

#endif
