/* pool.join on the joining host: checks in xapi's order (specs/migration-semantics.md §5.2), then the move. */
#ifndef XAPI_POOL_JOIN_H
#define XAPI_POOL_JOIN_H

#include "xapi/pool/remote_pool.h"

/* Both pools, read once. Remote ones are maps as they came off the wire. */
struct join {
    struct api_call *c;
    bool force;
    struct remote_pool *remote;
    struct value pool, hosts, metrics, sms, pifs, networks, certificates; /* remote: records by ref; 'pool' is the record */
    const char *master_ref;
    const struct value *master; /* record of the remote coordinator */
    const struct row *local;    /* this host */
    const struct row *management; /* its management PIF */
};

NODISCARD struct error *join_check(struct join *);
/* Rows of this host that go along, for coordinator.admit_host: see admit.c. */
NODISCARD struct error *join_describe(struct api_call *c, struct value *description_r);
NODISCARD struct error *pool_join(struct api_call *c, const char *address, const char *user, const char *password, bool force);

#endif
