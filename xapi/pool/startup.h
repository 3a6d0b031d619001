/* What of the pool there must be before clients are let in, at every start of xapi.
 *
 * A coordinator with an empty database makes a pool of one: roles, pool, this host, networks, SM rows,
 * default templates, a local SR. With a database it keeps every ref and uuid and brings its own rows
 * up to date. A member starts saying hello and does not wait for the answer. */
#ifndef XAPI_POOL_STARTUP_H
#define XAPI_POOL_STARTUP_H

#include "xapi/core/xapi.h"

/* After db, xenops, agent, tasks and operations exist; before listeners open. Sets xapi->host_ref (in the
 * arena, which lives as long as the daemon) and xapi->storage; starts the heartbeat. */
NODISCARD struct error *pool_start(struct arena *, struct xapi *);
/* When the front and the workers are gone, but agent, operations, tasks, xenops and db still are: drains
 * the agent, stops the heartbeat's threads and gives up the storage. */
void pool_stop(struct xapi *);

#endif
