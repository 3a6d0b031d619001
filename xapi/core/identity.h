/* Who this host is: the small files under <dir> that exist before any database does.
 *
 *   pool.conf   "master" or "slave:ADDRESS"
 *   ptoken      the pool secret: three uuids joined by '/', mode 0600
 *   host_uuid   made at the first start, kept for ever
 *
 * A missing file is made: a fresh directory is a pool of one. Every write is durable. */
#ifndef XAPI_CORE_IDENTITY_H
#define XAPI_CORE_IDENTITY_H

#include <stdbool.h>

#include "rpc/base/error.h"

struct identity {
    bool is_coordinator;
    const char *coordinator_address; /* of a member; NULL on a coordinator */
    const char *secret;
    const char *host_uuid;
};

NODISCARD struct error *identity_load(struct arena *, const char *dir, struct identity *identity_r);
/* The role after the next restart. address NULL: coordinator. */
NODISCARD struct error *identity_set_role(struct arena *, const char *dir, const char *coordinator_address);
NODISCARD struct error *identity_set_secret(struct arena *, const char *dir, const char *secret);
NODISCARD struct error *identity_set_host_uuid(struct arena *, const char *dir, const char *uuid);
/* A new pool secret, in the arena. */
char *identity_new_secret(struct arena *);

#endif
