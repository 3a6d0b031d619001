/* GET /metrics: what migrations did and do, as Prometheus text (exposition format 0.0.4,
 * https://prometheus.io/docs/instrumenting/exposition_formats/).
 *
 * For a session (query or cookie session_id), user and password (Basic), the pool secret or local root; any role that may read.
 * A member answers 302 to its coordinator. The sums are kept in memory (ledger_totals.h). */
#ifndef XAPI_MIGRATE_METRICS_H
#define XAPI_MIGRATE_METRICS_H

#include "rpc/base/text.h"
#include "rpc/http/server.h"
#include "xapi/core/xapi.h"

/* ctx: struct xapi. */
http_handler_fn metrics_http;

/* The text alone. May block on disk. */
NODISCARD struct error *metrics_write(struct arena *, struct xapi *, struct text *);

#endif
