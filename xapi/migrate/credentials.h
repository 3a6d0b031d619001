/* Who may talk to this host about a migration: the pool (its secret), a session that may migrate (vm-power-admin; of a
 * member its coordinator is asked), or the migration itself: its key, a random uuid that the sending coordinator makes and
 * the receiving one writes into its ledger. A key outlives the sessions, so a host can still ask what became of a migration
 * after every daemon was restarted.
 *
 * A key is good where this host's journal (facts "key") or its coordinator's ledger knows it (a row that is not done, or
 * ended less than a day ago); a positive answer is remembered for a minute, in a table of fixed size. */
#ifndef XAPI_MIGRATE_CREDENTIALS_H
#define XAPI_MIGRATE_CREDENTIALS_H

#include "rpc/base/call.h"
#include "rpc/http/server.h"
#include "xapi/core/agent.h"
#include "xapi/core/xapi.h"

struct credentials *credentials_new(void);
void credentials_free(struct credentials *); /* NULL is fine */

/* What a request offers, in cookie or query: pool_secret, session_id, migration_key; NULL where absent. In the arena;
 * cheap, does not block. */
struct credential { const char *pool_secret, *session, *key; };
void credential_read(struct arena *, const struct http_request *, struct credential *);
/* NULL when it may; one good credential of several is enough. SESSION_INVALID [session], RBAC_PERMISSION_DENIED, or
 * SESSION_AUTHENTICATION_FAILED [] for a secret or key nobody knows and for none at all.
 * May block (asks the coordinator): not on an I/O thread. */
NODISCARD struct error *credential_check(struct call *, struct xapi *, const struct credential *);
/* A target's cookie for a key. */
char *credential_cookie(struct arena *, const char *key);

/* Verb of the coordinator: coordinator.migration_key { key } or { session } -> nothing, or the error. */
agent_verb_fn credentials_verb_check;
/* POST /services/xenops: agent verbs with 'foreign' set, for who passes credential_check; else its error as the answer.
 * GET: 200 and a line of text. ctx: struct xapi. */
http_handler_fn credentials_http_xenops;

#endif
