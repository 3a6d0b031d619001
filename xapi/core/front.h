/* The daemon's front: listeners, routes, and RPC requests on their way to dispatch.c and back.
 *
 *   POST anything      XML-RPC (also /, /RPC2, /xmlrpc, /json)     POST /jsonrpc   JSON-RPC
 *   GET /   a small page                                          OPTIONS   CORS preflight
 * Further routes come from startup.c.
 *
 * On an I/O thread: parsing, sessions, roles, arguments, reads, parking event.from. Everything that may
 * block goes to a pool of threads: log-ins, pool peers, tasks and the rest each have their own. A full
 * queue is an answer (TOO_MANY_PENDING_TASKS), not a wait. */
#ifndef XAPI_CORE_FRONT_H
#define XAPI_CORE_FRONT_H

#include "xapi/core/xapi.h"

/* Opens every listener that xapi.conf names and starts serving; xapi->http is set. port 0 in the
 * configuration stands for any: xapi->https_port and http_port tell. more: routes beside those of
 * RPC, ended by a NULL method; copied. NULL: none. */
NODISCARD struct error *front_start(struct arena *, struct xapi *, const struct http_route *more);
/* Stops accepting, waits for running calls; their delayed answers must have been let go (timers_stop). */
void front_stop(struct xapi *);

#define FRONT_RPC_HEADERS "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: X-Requested-With, Content-Type\r\n"

#endif
