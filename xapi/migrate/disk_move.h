/* Moving one disk to another SR while it may be in use: the coordinator's part of VDI.pool_migrate.
 *
 * A new VDI is made in the target SR; the disk's tapd on 'host' mirrors to it (storage/tapd/mirror.h), proves it
 * equal and goes over to it between two requests of the guest; then the VBDs point at the new VDI and the old one
 * is destroyed, or kept for a while (quarantine). Halted or running makes no difference.
 *
 * Write-ahead: the new VDI is provisional (xapi/pool/vdi_make.h) until, in one transaction, it becomes one and the
 * source row says in sm_config (DISK_MOVE_KEY) what is being done, where and by which task. That note stands until the
 * old image is gone; recovery finishes or rolls back by what the host's tapd did: once it has gone over to the target
 * the move is finished, else it never happened. */
#ifndef XAPI_MIGRATE_DISK_MOVE_H
#define XAPI_MIGRATE_DISK_MOVE_H

#include "xapi/core/api_call.h"
#include "xapi/migrate/move_options.h"

#define DISK_MOVE_KEY "move"                 /* in sm_config of the source */
#define DISK_QUARANTINE_KEY "quarantine_until" /* in other_config of a source that is kept: epoch seconds */

struct disk_move {
    const char *vdi, *sr;    /* refs; the caller holds the VDI's "mirror" mark */
    const char *host;        /* ref: has both SRs plugged, and runs whatever uses the disk */
    const char *format;      /* of the new image, "": the SR's own choice */
    int64_t bandwidth;       /* bytes/s; 0: unlimited. other_config:bandwidth of the task changes it (MiB/s or a word) */
    int64_t budget_us;       /* longest pause of the guest's disk at the switch; 0: the datapath's default */
    int64_t quarantine_s;    /* how long the old disk is kept; 0: not at all */
    const struct move_options *options; /* its window and hold are kept before the switch; NULL: neither */
    const char *target;      /* result: ref of the new VDI */
};

/* Blocks for as long as it takes; progress never goes back; cancelled at any time before the switch it leaves the
 * source and both SRs as they were. What was measured goes into the task's other_config (migrate:*).
 * MIRROR_FAILED [vdi] with the cause in the log and in the task; SR_FULL and its like; TASK_CANCELLED [task]. */
NODISCARD struct error *disk_move_run(struct api_call *, struct disk_move *);

/* A host on which both SRs are plugged, the wanted one if it can be (NULL: any). VM_REQUIRES_SR-like refusals are the
 * caller's: NULL in *host_r when there is none. */
void disk_move_host(struct api_call *, const char *from_sr, const char *to_sr, const char *wanted, const char **host_r);

/* "medium" 20, "fast" 30, "unlimited" 0, or MiB/s; false: not understood. */
NODISCARD bool disk_move_bandwidth(const char *text, int64_t *bytes_per_s_r);

/* Finishes or rolls back what an earlier life of this daemon left unfinished on a host that is live; then destroys old
 * disks whose quarantine is over. Works in the background; what cannot be settled yet is tried again every minute. */
void disk_moves_host_up(struct xapi *, const char *host_ref);
/* Once the coordinator serves: its own host is up, and the minutes begin to count. */
void disk_moves_start(struct xapi *);

#endif
