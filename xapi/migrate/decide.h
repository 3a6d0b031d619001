/* An operator's decision about a guest that stays paused on its source, because the destination cannot be asked whether it has
 * committed (design §10; xapi-ctl migrations decide). Kept as a small file in <dir>/decisions, so that it also stands after a
 * restart of the daemon; whoever waits in migration_resolve looks for it each time it asks in vain. */
#ifndef XAPI_MIGRATE_DECIDE_H
#define XAPI_MIGRATE_DECIDE_H

#include "xapi/core/xapi.h"

/* Durable when it returns. committed: the guest is (or will be) at its destination, the copy here goes; else it goes on here.
 * OPERATION_NOT_ALLOWED [reason] unless the journal of this host, the source, stands at GO-SENT. */
NODISCARD struct error *decide_put(struct arena *, struct xapi *, const char *migration_id, bool committed);
/* Is there one? It is used up by that, once *committed_r has it. */
bool decide_take(struct xapi *, const char *migration_id, bool *committed_r);

#endif
