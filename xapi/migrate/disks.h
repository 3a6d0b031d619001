/* The disks of a VM that moves, on either host: closed at the source before GO, opened at the destination once it has
 * committed, opened again at the source when the move failed. Private to xapi/migrate.
 *
 * 'disks' is a set of maps { sr: uuid, location }: those that the guest writes to. It travels in the arguments of
 * migrate.send and migrate.prepare and stands in the journals' facts. NULL or void: none. */
#ifndef XAPI_MIGRATE_DISKS_H
#define XAPI_MIGRATE_DISKS_H

#include "xapi/migrate/migrations.h"

/* Drained, flushed and closed; stops at the first that fails. */
NODISCARD struct error *migration_disks_close(struct call *, struct xapi *, const struct value *disks);
/* All of them; the first error when some could not be opened. One that is open is fine. */
NODISCARD struct error *migration_disks_open(struct call *, struct xapi *, const struct value *disks);
/* The way back: tries, and goes on trying in a thread of its own until they are open or the daemon stops. Until then
 * the guest's requests wait. */
void migration_disks_reopen(struct call *, struct migrations *, const char *migration_id, const struct value *disks);

#endif
