/* The coordinator's table of hosts: when each was last heard, and its newest report waiting to be taken in. */
#ifndef XAPI_POOL_LIVENESS_H
#define XAPI_POOL_LIVENESS_H

#include "xapi/core/xapi.h"

struct liveness;
struct liveness *liveness_new(struct xapi *);
void liveness_free(struct liveness *); /* waits for the jobs; NULL is fine */

void liveness_heard(struct liveness *, const char *host_ref, const struct value *domains, int64_t memory_total, int64_t memory_free);
void liveness_down(struct liveness *, const char *host_ref);
void liveness_up(struct liveness *, const char *host_ref); /* hello: the end of 'down' */
void liveness_forget(struct liveness *, const char *host_ref);
/* Writes host_metrics.live of all hosts. Blocks for a commit where something changed. */
void liveness_tick(struct liveness *, int64_t dead_ms);

#endif
