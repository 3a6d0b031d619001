/* The queue's insides, for queue.c and queue_restart.c. */
#ifndef XAPI_MIGRATE_QUEUE_INSIDE_H
#define XAPI_MIGRATE_QUEUE_INSIDE_H

#include <pthread.h>

#include "rpc/base/lock.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/queue.h"

struct migration_queue;

/* One that waits, or has a place. Lives in the queue's lists. */
struct queue_entry {
    struct queue_entry *next;
    char *id, *host;
    int priority;
    int64_t began_ms, seq, not_before; /* wall ms; ties of it; wall s */
};

/* One that an earlier life left in the queue; lives until the queue is freed. */
struct queue_restart {
    struct queue_restart *next;
    struct migration_queue *queue;
    pthread_t thread;
    struct arena *arena;      /* of the row */
    struct ledger_row row;
    int64_t seq;
    /* under the queue's lock */
    const char *task;         /* the new one; NULL before and after */
    bool tried, entered;      /* its first attempt is over; it has taken its row over */
};

struct migration_queue {
    struct xapi *xapi;
    struct lock lock;         /* class MIGRATION_QUEUE */
    struct cond changed;
    struct queue_entry *waiting; /* in the order in which they go */
    struct queue_entry *running;
    struct queue_restart *restarts;
    unsigned untried;         /* restarts that nobody may overtake yet … */
    int64_t untried_until_ms; /* … up to this time (mono) */
    int64_t seq;
    bool stopping;
    struct move_clocks *clocks;
};

/* queue_restart.c: the restart whose call this is, or NULL. Under the lock. */
struct queue_restart *queue_restart_of(struct migration_queue *, const char *task);
/* Under the lock; idempotent. */
void queue_restart_tried(struct queue_restart *);
/* Joins and frees all of them: without the lock. */
void queue_restarts_end(struct migration_queue *);

/* Waits ms or until something changes; false when the daemon stops. */
bool queue_pause(struct migration_queue *, int64_t ms);

#endif
