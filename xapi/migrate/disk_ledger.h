/* VDI.pool_migrate in the ledger: kind "VDI.pool_migrate", vm_* of the VM that has the disk (or ""), facts bytes, proven,
 * repaired, blackout_us (how long the disk stood still), sr_from, sr_to, vdi_name. */
#ifndef XAPI_MIGRATE_DISK_LEDGER_H
#define XAPI_MIGRATE_DISK_LEDGER_H

#include "xapi/core/api_call.h"
#include "xapi/migrate/disk_move.h"

/* Before the move: durable when it returns. vm may be NULL. */
NODISCARD struct error *disk_ledger_begin(struct api_call *, const char *id, const struct disk_move *, const struct row *vm);
/* After it; failure NULL: success. Errors are logged. */
void disk_ledger_end(struct api_call *, const char *id, const struct error *failure);

/* Once the coordinator serves, and then every few seconds: moves that an earlier life left unfinished and that their own recovery
 * (disk_move.h) has settled meanwhile get their end here. */
void disk_ledger_start(struct xapi *);

#endif
