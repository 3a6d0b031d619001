/* The source's rows and disks once the VM is at its destination, for move.c and its recovery. All idempotent. */
#ifndef XAPI_MIGRATE_MOVE_SOURCE_H
#define XAPI_MIGRATE_MOVE_SOURCE_H

#include "xapi/migrate/move.h"

/* The destination's rows, then the source's: another pool's VM goes from this one, with its snapshots, unless it is a copy or
 * is kept (then it is Halted). */
NODISCARD struct error *move_source_commit(struct api_call *, struct move *, const char *power, int domid);
/* Mirrors end, old disks go (or into quarantine), the hosts forget the attempt, the ledger's row ends. */
NODISCARD struct error *move_source_clean(struct api_call *, struct move *);
/* Both hosts may forget this attempt. Failures are logged. */
void move_source_forget(struct api_call *, const struct move *);
/* Recovery looks at what is open again, soon. */
void moves_later(struct xapi *);

#endif
