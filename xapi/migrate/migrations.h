/* The migrations this host takes part in: what the HTTP handlers, verbs and recovery share. Private to
 * xapi/migrate. */
#ifndef XAPI_MIGRATE_MIGRATIONS_H
#define XAPI_MIGRATE_MIGRATIONS_H

#include "rpc/base/lock.h"
#include "rpc/http/client.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/journal.h"
#include "xapi/migrate/migrate.h"
#include "xenops/stream/fan.h"

struct incoming;
struct sender;

/* A thread that works on a migration, and the streams that it may be blocked on: stopping the daemon
 * aborts them and waits for the thread. */
struct migration_worker { struct migration_worker *next; struct byte_stream *vm, *mem[FAN_MAX]; };

/* An id whose records at the source one thread writes at a time. */
struct migration_claim { struct migration_claim *next; const char *id; };

struct migrations {
    struct xapi *xapi;
    struct journal *journal;
    struct lock lock;          /* class MIGRATE: the list, and the state of each incoming migration */
    struct cond changed;
    struct incoming *incoming; /* linked list */
    struct sender *outgoing;   /* linked list */
    struct migration_claim *claims;
    struct migration_worker *workers;
    bool stopping;
    unsigned recovering;       /* threads of our own: they end when 'stopping' is set */
};

/* Registers a worker (zeroed by the caller, who keeps it until leave); false when the daemon stops. */
bool migrations_enter(struct migrations *, struct migration_worker *);
void migrations_leave(struct migrations *, struct migration_worker *);
/* The id is this claim's until it is given back; false when it is taken. The string is the caller's. */
bool migrations_claim(struct migrations *, struct migration_claim *, const char *id);
void migrations_unclaim(struct migrations *, struct migration_claim *);
/* Runs fn in a thread that migrate_stop waits for. It calls migrations_thread_end last. */
void migrations_thread(struct migrations *, const char *name, void *(*fn)(void *), void *arg);
void migrations_thread_end(struct migrations *);
/* Puts a stream into one of the worker's slots, or takes it out (NULL) before it is closed. */
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

/* The last thing at the source of a move that is DONE: its suspended copy goes, and the journal knows that it has gone. */
NODISCARD struct error *migration_destroy_old(struct call *, struct migrations *, const char *migration_id, const char *temp);

/* After a restart: finishes or rolls back everything the journal says is unfinished (recovery.c). */
NODISCARD struct error *migrations_recover(struct arena *, struct migrations *);


#endif
