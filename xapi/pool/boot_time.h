/* When this host booted and when its xapi started: clients tell a reboot by it.
 *
 * On real hardware the kernel knows. A simulated host "boots" at its first start and whenever the last
 * shutdown of its xapi was a host.reboot or host.shutdown: <dir>/boot_time holds the time, and the
 * file <dir>/rebooting says that a reboot is under way. */
#ifndef XAPI_POOL_BOOT_TIME_H
#define XAPI_POOL_BOOT_TIME_H

#include "xapi/core/xapi.h"

NODISCARD struct error *boot_time_of(struct arena *, const struct xapi *, bool simulated, int64_t *wall_r);
/* The next start is a boot of the simulated host. */
NODISCARD struct error *boot_time_mark(struct arena *, const struct xapi *);
/* Wall seconds of the first call in this process. */
int64_t boot_agent_start(const struct xapi *);

#endif
