/* What a host says of itself, and the rows that stand for it.
 *
 * The description is a map of plain values, made on the host (at its start, and for hello, join and
 * host.describe) and applied by the coordinator: uuid, address, hostname, software_version (map),
 * capabilities (set), cpu_info, chipset_info, bios_strings (maps), memory_total, memory_free,
 * boot_time, agent_start_time, control_domain_uuid, certificate, https_only, api_major, api_minor. */
#ifndef XAPI_POOL_HOST_RECORD_H
#define XAPI_POOL_HOST_RECORD_H

#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

#define API_MAJOR 2
#define API_MINOR 21
/* Key of host.other_config: "true" after host.disable(auto_enable=false); a start leaves the host disabled. */
#define HOST_STAYS_DISABLED "stays_disabled"

NODISCARD struct error *host_describe(struct call *, struct xapi *, struct value *description_r);
/* "product_version" and the rest of software_version, from the configuration. */
struct value software_version(struct arena *, const struct xapi *, const char *hostname, const char *hypervisor);
/* The licence of an unrestricted host, and the same as pool.restrictions: maps of strings. */
struct value license_params(struct arena *);
struct value license_restrictions(struct arena *);

/* Makes the rows of a host inside a transaction: host, host_metrics, host_cpus, control domain with
 * metrics and console, certificate. Not its PIFs and PBDs. enabled and live are false. */
NODISCARD struct error *host_rows_create(struct txn *, struct arena *, const struct value *description, const char *name_label,
                                         const char **host_ref_r);
/* Brings the rows up to what the host says now: after each start of its xapi. */
NODISCARD struct error *host_rows_update(struct txn *, struct arena *, const char *host_ref, const struct value *description);
/* Removes them, with the PIFs, PBDs and local SRs (and their VDIs' rows) of the host; what pointed at it is cleared. */
NODISCARD struct error *host_rows_destroy(struct txn *, struct arena *, const char *host_ref);
/* pool.cpu_info: what all hosts have. */
NODISCARD struct error *pool_cpu_update(struct txn *, struct arena *);

/* The one pool row; NULL before there is one. */
const struct row *pool_row(struct txn *);

#endif
