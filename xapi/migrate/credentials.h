/* Who may talk to this host about a migration: the pool (its secret), a session that may migrate (vm-power-admin; of a
 * member its coordinator is asked), or the migration itself: its key, a random uuid that the sending coordinator makes and
 * the receiving one writes into its ledger. A key outlives the sessions, so a host can still ask what became of a migration
 * after every daemon was restarted.
 *
 * A key is good where this host's journal (facts "key") or its coordinator's ledger knows it; the coordinator's word is
 * remembered for a minute. */
#ifndef XAPI_MIGRATE_CREDENTIALS_H
#define XAPI_MIGRATE_CREDENTIALS_H

#include "rpc/base/call.h"
#include "rpc/http/server.h"
#include "xapi/core/agent.h"
#include "xapi/core/xapi.h"

/* Reads Cookie or query: pool_secret, session_id, migration_key. Cheap and non-blocking part: what was offered. */
struct credential { bool pool; const char *session, *key; };
void credential_read(struct arena *, const struct http_request *, struct credential *);
/* NULL when it may. SESSION_INVALID, RBAC_PERMISSION_DENIED, or SESSION_AUTHENTICATION_FAILED for a key nobody knows.
 * May block (asks the coordinator): not on an I/O thread. */
NODISCARD struct error *credential_check(struct call *, struct xapi *, const struct credential *);

/* Verb of the coordinator: coordinator.migration_key { key } or { session } -> nothing, or the error. */
agent_verb_fn credentials_verb_check;
/* POST /services/xenops: agent verbs with 'foreign' set, for who passes credential_check. GET: 200 and a line of text.
 * ctx: struct xapi. */
http_handler_fn credentials_http_xenops;

#endif
