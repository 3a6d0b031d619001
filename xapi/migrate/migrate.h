/* Moving VMs between hosts: the engine's public face.
 *
 * The coordinator checks (checks.h), reserves and marks; the source host does the work (sender.c) as
 * agent verb "migrate.send"; the destination serves the PUTs (receiver.c). The switch is two-phase
 * (wire.h) and every step is in the journals of both hosts (journal.h). */
#ifndef XAPI_MIGRATE_MIGRATE_H
#define XAPI_MIGRATE_MIGRATE_H

#include "rpc/http/server.h"
#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

/* Opens the journal, finishes or rolls back what a crash left, readies the receiver. After xenops, before
 * the agent and the front. */
NODISCARD struct error *migrate_start(struct arena *, struct xapi *);
/* First thing of a stop: takes no more, breaks the streams of migrations in flight (they roll back, or
 * leave what recovery needs in the journal). Does not wait. */
void migrate_quiesce(struct xapi *);
/* Waits for what migrate_quiesce ended, and frees: when nobody can call a verb any more. */
void migrate_stop(struct xapi *);

/* Takeover route of PUT /services/xenops/…; pool secret or a session of the pool. */
void migrate_http_put(struct http_exchange *, void *ctx); /* ctx: struct xapi */

/* Agent verbs (xapi/pool/agent_verbs.c lists them): args and results are documented in sender.c and
 * receiver.c, sender_control.c (status, control) and outcome.c (outcome, settled). */
struct error *migrate_verb_prepare(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_send(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_ask(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_abort(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_outcome(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_settled(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_status(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_control(struct call *, struct xapi *, const struct value *args, struct value *result_r);
struct error *migrate_verb_list(struct call *, struct xapi *, const struct value *args, struct value *result_r);

#endif
