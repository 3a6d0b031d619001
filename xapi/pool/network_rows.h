/* Networks and PIFs: the rows of a fresh host, and finding networks that PIFs belong to. */
#ifndef XAPI_POOL_NETWORK_ROWS_H
#define XAPI_POOL_NETWORK_ROWS_H

#include "xapi/core/api_call.h"

#define MANAGEMENT_BRIDGE "xenbr0"
#define INTERNAL_BRIDGE "xenapi" /* host internal management network */

/* The network of a bridge, made if there is none; *ref_r in the arena. */
NODISCARD struct error *network_of_bridge(struct txn *, struct arena *, const char *bridge, const char *name_label, const char **ref_r);
/* "Host internal management network" of a fresh pool. */
NODISCARD struct error *network_internal_create(struct txn *, struct arena *);

struct pif_spec {
    const char *device, *mac, *bridge, *ip, *netmask, *gateway, *dns, *mode /* "None", "DHCP", "Static" */;
    int64_t mtu, vlan; /* -1: untagged */
    bool physical, management;
};
/* A PIF with its metrics on the network of spec->bridge. */
NODISCARD struct error *pif_create(struct txn *, struct arena *, const char *host_ref, const struct pif_spec *, const char **ref_r);
/* eth0 (management, with the address) to eth<n-1> of a fresh host. */
NODISCARD struct error *pifs_create(struct txn *, struct arena *, const char *host_ref, const char *host_uuid, const char *address, unsigned n);
/* The management PIF of a host; NULL if there is none. */
const struct row *pif_management(struct txn *, const struct row *host);

#endif
