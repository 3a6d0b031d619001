/* Periodic work of the core: ages of sessions and tasks, progress, the heartbeat of event.next. */
#ifndef XAPI_CORE_HOUSEKEEPING_H
#define XAPI_CORE_HOUSEKEEPING_H

#include "xapi/core/xapi.h"

void housekeeping_start(struct xapi *); /* ends with xapi->timers */

#endif
