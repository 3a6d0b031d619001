/* Which network a migration takes (requirements H3-16, H3-17, XE-63, SU-32): the network named in the call; else the pool's
 * migration network (pool.other_config:migration_network, a network's uuid or ref) where both hosts have an address on it;
 * else management, and that fallback is told (task other_config migrate:network_fallback, log; network_fallback() for the
 * ledger). */
#ifndef XAPI_MIGRATE_NETWORK_CHOICE_H
#define XAPI_MIGRATE_NETWORK_CHOICE_H

#include "rpc/http/client.h"
#include "xapi/migrate/move.h"

/* Within this pool: the target's front on the chosen network. options->network given: PIF_NOT_PRESENT [host; network],
 * REQUIRED_PIF_IS_UNPLUGGED [pif], INTERFACE_HAS_NO_IP [pif]. options->migrate_address wins over all. Certificates are
 * those on record; with migration-https-only=false the plain port. */
NODISCARD struct error *network_choose(struct api_call *, const char *from_host, const char *to_host, const struct move_options *, struct http_target *target_r);
/* Another host's address on a network, for host.migrate_receive: HOST_CANNOT_ATTACH_NETWORK [host; network],
 * PIF_HAS_NO_NETWORK_CONFIGURATION [pif], INTERFACE_HAS_NO_IP [pif]. IPv6 where the PIF's primary address is; not in brackets. */
NODISCARD struct error *network_receive_address(struct api_call *, const char *host, const char *network, const char **address_r);

/* The way back, for the pre-flight: the front of 'from_host' on the network that network_choose takes (management where it has
 * no address there, and for a move to another pool: to_host NULL). */
NODISCARD struct error *network_back(struct api_call *, const char *from_host, const char *to_host, const struct move_options *, struct http_target *target_r);
/* Why network_choose takes management; NULL where it does not. In the call's arena or static. */
const char *network_fallback(struct api_call *, const char *from_host, const char *to_host, const struct move_options *);

#endif
