/* What a member keeps on disk about its pool, besides identity.h: it must start, and know whom to
 * trust, while the coordinator is away.
 *
 *   <dir>/coordinator_certificate   fingerprint the coordinator's agent must show
 *   <dir>/host_ref                  this host's ref in the pool
 *   <dir>/hostname, https_only      as set by host.set_hostname_live, host.set_https_only
 *   <dir>/control_domain_uuid       of this host's dom0, made at the first start */
#ifndef XAPI_POOL_MEMBERSHIP_H
#define XAPI_POOL_MEMBERSHIP_H

#include "xapi/core/xapi.h"

/* One of the files above: its text without the final newline, in the arena; NULL when there is none. */
const char *membership_read(struct arena *, const struct xapi *, const char *name);
NODISCARD struct error *membership_write(struct arena *, const struct xapi *, const char *name, const char *text);
void membership_forget(const struct xapi *, struct arena *, const char *name);

/* Where the coordinator's agent listens. HOST_BROKEN [] when this host has no such record. */
NODISCARD struct error *membership_coordinator(struct arena *, const struct xapi *, struct http_target *target_r);

/* Is plain HTTP to stay closed (host.set_https_only, or no port for it)? */
bool membership_https_only(struct arena *, const struct xapi *);

/* Makes "control_domain_uuid" when it is missing. */
NODISCARD struct error *membership_control_domain(struct arena *, const struct xapi *, const char **uuid_r);

#endif
