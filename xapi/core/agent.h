/* A host's own hands: verbs that act on this host's domains, storage and files, for the coordinator.
 *
 * Declared here because core works through it; implemented in xapi/pool (agent_client.c, agent_server.c,
 * agent_verbs.c), as handlers are reached through the generated table.
 *
 * The coordinator orchestrates (it alone writes the database) and calls verbs on hosts; for its own
 * host the same function runs in-process, for a member it is POST /services/agent over TLS with the
 * pool secret and the certificate recorded when it joined (an XML-RPC call "agent.<verb>" with one
 * struct). Verbs are idempotent, named by an operation id: a repeated call after a lost reply gets the
 * recorded answer. Progress and cancellation travel: the caller passes "task" and may call
 * agent.cancel; the callee reports progress by agent.progress polls.
 * Errors keep code and parameters byte for byte. HOST_OFFLINE [host] when not live; CANNOT_CONTACT_HOST
 * [host] when the connection fails. May block. */
#ifndef XAPI_CORE_AGENT_H
#define XAPI_CORE_AGENT_H

#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

/* A verb runs on the acting host. args: a map. The arena of c holds the result. */
typedef struct error *agent_verb_fn(struct call *c, struct xapi *, const struct value *args, struct value *result_r);
/* foreign: also for the hosts of another pool that have to do with a migration (xapi/migrate/credentials.h). */
struct agent_verb { const char *name; agent_verb_fn *run; bool foreign; };
extern const struct agent_verb agent_verbs[]; /* agent_verbs.c; ends { NULL } */

struct agent *agent_new(struct xapi *);
/* Refuses new operations, cancels those that run and waits for them. NULL is fine. */
void agent_drain(struct agent *);
void agent_free(struct agent *);

/* On the coordinator: runs 'verb' on the host. */
NODISCARD struct error *agent_call(struct api_call *c, const char *host_ref, const char *verb, const struct value *args, struct value *result_r);
/* The same to an address instead of a host row, from any host, without the database: host to host
 * (migrations) and member to coordinator. VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED [] when it cannot be
 * reached. Repeats nothing by itself. A target with a cookie is asked with that credential at /services/xenops, and only
 * for verbs that are 'foreign'; else with the pool's secret. */
NODISCARD struct error *agent_call_at(struct call *c, struct xapi *, const struct http_target *, const char *verb,
                                      const struct value *args, struct value *result_r);
/* On the coordinator: where a host's agent listens and which certificate it must show, from its rows;
 * strings in c's arena. */
NODISCARD struct error *agent_target(struct api_call *c, const char *host_ref, struct http_target *target_r);
/* On a member: runs a "coordinator.…" verb there. HOST_NOT_LIVE [] when it cannot be reached. */
NODISCARD struct error *agent_call_coordinator(struct call *c, struct xapi *, const char *verb, const struct value *args,
                                               struct value *result_r);
/* HTTP route handler for POST /services/agent. */
void agent_http(struct http_exchange *, void *xapi);

#endif
