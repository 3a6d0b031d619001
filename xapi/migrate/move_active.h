/* Which moves this process works on just now: recovery leaves those alone. Private to move*.c. */
#ifndef XAPI_MIGRATE_MOVE_ACTIVE_H
#define XAPI_MIGRATE_MOVE_ACTIVE_H

#include "xapi/core/xapi.h"

void move_active_begin(struct xapi *, const char *id);
void move_active_end(struct xapi *, const char *id);
bool move_is_active(struct xapi *, const char *id);

#endif
