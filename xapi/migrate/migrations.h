/* The migrations this host takes part in: what the HTTP handlers, verbs and recovery share. Private to
 * xapi/migrate. */
#ifndef XAPI_MIGRATE_MIGRATIONS_H
#define XAPI_MIGRATE_MIGRATIONS_H

#include "rpc/base/lock.h"
#include "rpc/http/client.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/journal.h"
#include "xapi/migrate/migrate.h"

struct incoming;

/* A thread that works on a migration, and the streams that it may be blocked on: stopping the daemon
 * aborts them and waits for the thread. */
struct migration_worker { struct migration_worker *next; struct byte_stream *vm, *mem; };

struct migrations {
    struct xapi *xapi;
    struct journal *journal;
    struct lock lock;          /* class MIGRATE: the list, and the state of each incoming migration */
    struct cond changed;
    struct incoming *incoming; /* linked list */
    struct migration_worker *workers;
    bool stopping;
    unsigned recovering;       /* threads that still ask a destination */
};

/* Registers a worker (zeroed by the caller, who keeps it until leave); false when the daemon stops. */
bool migrations_enter(struct migrations *, struct migration_worker *);
void migrations_leave(struct migrations *, struct migration_worker *);
/* Puts a stream into one of the worker's two slots, or takes it out (NULL) before it is closed. */
void migrations_stream(struct migrations *, struct byte_stream **slot, struct byte_stream *);

/* The uuid a domain has while it is not (yet, or any more) the VM: 24 characters of the VM's uuid and a
 * side mark, so that a move to the same host works (specs §8.2 step 0). out has UUID_LEN + 1 bytes. */
void migration_temp_uuid(const char *vm_uuid, enum journal_side, char *out);

/* Waits ms, less when the daemon stops; false then. */
bool migrations_pause(struct migrations *, int64_t ms);

/* "destination" as agents pass it: { address, port, tls, fingerprint, cookie }. */
NODISCARD struct error *migration_target(struct arena *, const struct value *, struct http_target *);
struct value migration_target_value(struct arena *, const struct http_target *);

/* Asks the destination what became of a migration until it knows: true committed, false aborted. An error
 * only when the daemon stops. Blocks as long as the destination cannot be reached. */
NODISCARD struct error *migration_resolve(struct call *, struct migrations *, const char *migration_id, const struct http_target *, bool *committed_r);

/* After a restart: finishes or rolls back everything the journal says is unfinished (recovery.c). */
NODISCARD struct error *migrations_recover(struct arena *, struct migrations *);

/* receiver.c */
void incoming_free_all(struct migrations *);

#endif
