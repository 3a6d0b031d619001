/* A move that needs no other host: a VM whose disks go to other storage of a host that sees both (its own, while it runs; any,
 * while it does not). No memory is sent and no second domain is made: every disk is mirrored and switched where it is
 * (disk_move.h). */
#ifndef XAPI_MIGRATE_DISKS_ONLY_H
#define XAPI_MIGRATE_DISKS_ONLY_H

#include "xapi/migrate/move.h"

/* Can this move be made so? */
bool disks_only_can(struct api_call *, const struct move *);
/* Moves them, one after another; those that were moved stay moved when a later one fails (each is a whole move of its own), and
 * the error is that one's. The caller holds the VM's operation. Ledger, task and progress as move_run. Blocks. */
NODISCARD struct error *disks_only_run(struct api_call *, struct move *);

#endif
