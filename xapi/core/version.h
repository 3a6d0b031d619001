/* Comparing the versions of hosts, and the rolling-upgrade flag (specs §1.9). */
#ifndef XAPI_CORE_VERSION_H
#define XAPI_CORE_VERSION_H

#include "xapi/core/api_call.h"

/* True while pool.other_config has rolling_upgrade_in_progress. */
bool version_upgrade_in_progress(struct api_call *c);
/* platform_version, xapi_build and xen of 'to' are each not lower than those of 'from'. */
bool version_not_decreasing(const struct row *from_host, const struct row *to_host);
/* No host of the pool has a newer version. */
bool version_is_highest(struct api_call *c, const struct row *host);
/* Its platform_version is the coordinator's. */
bool version_is_coordinators(struct api_call *c, const struct row *host);
/* During a rolling upgrade a VM may not go to an older host: NOT_SUPPORTED_DURING_UPGRADE []. */
NODISCARD struct error *version_check_upgrade(struct api_call *c, const char *from_host, const char *to_host);

/* Versions split at '.' and '-' and compared number by number: -1, 0, 1. */
int version_compare(const char *, const char *);

#endif
