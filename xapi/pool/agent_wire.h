/* How one agent talks to another: an operation is started, joined, and asked for again and again.
 *
 *   POST /services/agent   Cookie: pool_secret=…   XML-RPC "agent.<verb>" with one struct:
 *     operation  id, chosen by the caller        args    map, only when not joining
 *     join       true: it must be known already   wait_ms how long the answer may be held back
 *   answer: success { state: "done", result } or { state: "pending", progress }, or the verb's error.
 *
 * The answer to "pending" is the same request with join = true: so progress arrives twice a second,
 * nothing depends on a connection that stays open for hours, and a lost answer is asked for again.
 * "agent.cancel" { operation } raises the flag of a running one. A finished operation's answer is
 * kept for AGENT_KEEP_MS. An unknown id with join is AGENT_OPERATION_LOST: the host restarted. */
#ifndef XAPI_POOL_AGENT_WIRE_H
#define XAPI_POOL_AGENT_WIRE_H

#include "xapi/core/agent.h"

#define AGENT_PATH "/services/agent"
#define AGENT_FOREIGN_PATH "/services/xenops" /* with a credential of the migration instead of the secret */
#define AGENT_WAIT_MS 500
#define AGENT_KEEP_MS 600000
#define AGENT_LOST "AGENT_OPERATION_LOST"

/* Looks the verb up; NULL when there is none. */
const struct agent_verb *agent_verb_find(const char *name);

/* Serves one request of the protocol, whose sender was let in: answers the exchange now or later, does not block. foreign:
 * only verbs with that flag (others are MESSAGE_METHOD_UNKNOWN), and only operations begun so. */
void agent_serve(struct http_exchange *, struct xapi *, bool foreign);
/* Answers with a failure, as a verb's own would be. */
void agent_reply_error(struct http_exchange *, const struct error *);

/* One operation on a peer, from start to end. secret NULL: this pool's. *unreachable_r: the error is
 * one of the transport (its text says what), not the verb's. */
NODISCARD struct error *agent_exchange(struct call *c, struct xapi *, const struct http_target *, const char *secret, const char *verb,
                                       const struct value *args, struct value *result_r, bool *unreachable_r);

#endif
