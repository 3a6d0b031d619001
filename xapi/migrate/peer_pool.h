/* The coordinator of another pool as a migration talks to it: XenAPI calls over JSON-RPC with the session of the token that
 * host.migrate_receive gave (specs/migration-semantics.md §1.4). TLS without certificate check, as xapi between pools.
 *
 * Kept in the arena of the call that opened it, like everything it answers; used by one thread. A thread of its own touches
 * the session every five minutes while the move goes on (peer_pool_keep). */
#ifndef XAPI_MIGRATE_PEER_POOL_H
#define XAPI_MIGRATE_PEER_POOL_H

#include "rpc/http/client.h"
#include "xapi/core/api_call.h"

struct peer_pool;

/* What the token says. host_target: the destination host's front by the token's xenops URL; master: the coordinator's; both
 * with cookie "session_id=…". The port: the URL's own; without one, this daemon's. With migration-https-only http becomes
 * https, and the usual plain port (80, or this daemon's) becomes this daemon's https-port. */
struct migration_token {
    const char *host, *session;      /* refs there */
    struct http_target master, host_target;
};
/* All five keys are needed and must parse: INTERNAL_ERROR naming the one that does not, never its value. */
NODISCARD struct error *migration_token_read(struct api_call *, const struct value *map, struct migration_token *);
/* "http://10.0.0.2:8080/…", "https://[fe80::1]/…": address and port (0: none). False: not understood. */
NODISCARD bool migration_url_read(struct arena *, const char *url, bool *tls_r, const char **address_r, int *port_r);
/* The form that migration_url_read reads, with what follows the authority: "http://[::1]:8080" + path. port 80: left out. */
char *migration_url(struct arena *, const char *address, int port, const char *path);

/* Connects nowhere yet. The token may go. */
NODISCARD struct error *peer_pool_open(struct api_call *, const struct migration_token *, struct peer_pool **);
/* One XenAPI call with the session put first, and up to 8 more parameters. Blocks. The peer's own error, or
 * CANNOT_CONTACT_HOST [address]. */
NODISCARD struct error *peer_pool_call(struct api_call *, struct peer_pool *, const char *method, const struct value *params, unsigned n,
                                   struct value *result_r);
/* Class.get_record and get_by_uuid; a HANDLE_INVALID or UUID_INVALID is *found_r = false. */
NODISCARD struct error *peer_pool_record(struct api_call *, struct peer_pool *, const char *class_name, const char *ref, struct value *record_r, bool *found_r);
NODISCARD struct error *peer_pool_by_uuid(struct api_call *, struct peer_pool *, const char *class_name, const char *uuid, const char **ref_r, bool *found_r);
/* Class.get_all_records: a map by ref. Read once, then remembered. */
NODISCARD struct error *peer_pool_records(struct api_call *, struct peer_pool *, const char *class_name, const struct value **records_r);
/* An agent verb on that coordinator ("incoming.*") by POST /services/xenops with the token's session; once the migration's key
 * is known there, use a target with that cookie and agent_call_at. VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED []. */
NODISCARD struct error *peer_pool_verb(struct api_call *, struct peer_pool *, const char *verb, const struct value *args, struct value *result_r);
const struct http_target *peer_pool_master(const struct peer_pool *); /* cookie: the session */
const char *peer_pool_session(const struct peer_pool *);
void peer_pool_keep(struct peer_pool *, struct xapi *);    /* starts touching the session; twice is once */
void peer_pool_release(struct peer_pool *);                /* stops it and waits for it, at the latest when the arena goes. NULL is fine */

#endif
