/* One qemu-storage-daemon that serves one qcow2 image over a Unix socket of ours.
 *
 * We hold the listening socket and hand it to each daemon, so a client may connect at any time: it is answered
 * when the daemon is ready, and dropped when the daemon ends. The daemon ends with us (its parent's death is its
 * SIGTERM, at which it writes back what it holds); one that is still ending when we are started again is waited
 * for. The image is locked by qemu's own locks, which it checks at every start, and byte 0 by ours.
 *
 * Every write is stable when it is acknowledged (writethrough): what qemu holds in its memory would be lost with
 * it, and a guest that runs on must not lose anything it was told is written. */
#ifndef STORAGE_TAPD_QCOW2_DAEMON_H
#define STORAGE_TAPD_QCOW2_DAEMON_H

#include "storage/tapd/block.h"

struct qcow2_daemon;
/* Makes the socket, waits for an earlier daemon's end, starts nothing. Blocks. */
NODISCARD struct error *qcow2_daemon_new(struct arena *, const struct block_open *, void (*ended)(void *ctx), void *ctx, struct qcow2_daemon **);
/* Starts one; 'ended' is called on the loop when it ends by itself. 0 or -errno (-ENOENT: not installed). */
NODISCARD int qcow2_daemon_start(struct qcow2_daemon *, bool uring);
bool qcow2_daemon_runs(const struct qcow2_daemon *);
/* Asks it to end, waits for that. 0, or -EIO when it did not end well. */
int qcow2_daemon_stop(struct qcow2_daemon *);
void qcow2_daemon_free(struct qcow2_daemon *); /* stopped */
const char *qcow2_daemon_uri(const struct qcow2_daemon *);
/* What the last one said on its standard error, in the arena; "" if nothing. */
const char *qcow2_daemon_said(const struct qcow2_daemon *, struct arena *);

#endif
