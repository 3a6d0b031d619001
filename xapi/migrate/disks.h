/* The disks of a VM that moves, on either host: closed at the source before GO, opened at the destination once it has
 * committed, opened again at the source when the move failed. Private to xapi/migrate.
 *
 * 'disks' is a set of maps { sr: uuid, location, hand_over }: those that the guest writes to. hand_over (false when absent): a
 * mirror leads to another host, where the disk goes on (disk_send.h). It travels in the arguments of migrate.send and
 * migrate.prepare and stands in the journals' facts. NULL or void: none. All of them are worked on at once, so that it
 * takes as long as the slowest. */
#ifndef XAPI_MIGRATE_DISKS_H
#define XAPI_MIGRATE_DISKS_H

#include "xapi/migrate/migrations.h"

/* Before the guest is suspended: waits until every mirror of those with hand_over follows, for two minutes at most.
 * SR_BACKEND_FAILURE with the cause when one has failed or does not get there; TASK_CANCELLED. */
NODISCARD struct error *migration_disks_ready(struct call *, struct xapi *, const struct value *disks);
/* Handed over where that is asked for, then drained, flushed and closed. The first error when one could not be; the others may be
 * closed then. */
NODISCARD struct error *migration_disks_close(struct call *, struct xapi *, const struct value *disks);
/* At the destination: whoever sent these disks is cut off, then all of them serve. The first error when some could not be
 * opened. One that is open is fine. */
NODISCARD struct error *migration_disks_open(struct call *, struct xapi *, const struct value *disks);
/* The way back: tries, and goes on trying in a thread of its own until they are open or the daemon stops. Until then
 * the guest's requests wait. A target they were handed over to is forgotten. */
void migration_disks_reopen(struct call *, struct migrations *, const char *migration_id, const struct value *disks);

#endif
