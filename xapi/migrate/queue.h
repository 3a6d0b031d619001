/* Storage migrations wait for their turn (design §10: nothing is refused that can be queued).
 *
 * At most storage-migrations-per-pool (3) in this pool and storage-migrations-per-host (3) from one host move disks at
 * once; pool.other_config keys of the same names override, 0: no limit. Those that wait go by priority, then by age; one
 * whose host is full does not hold up those behind it. A migration with not_before waits for that time. The queue is
 * durable: its rows stand in the ledger as stage "queued" with the whole request in 'note'; after a restart of the
 * coordinator each is started again by itself, with a new task of the same label; one that cannot be (its VM or SR is gone)
 * ends as failed, with the reason. Moves of memory alone are not queued. Who waits holds a thread, but no lock or mark. */
#ifndef XAPI_MIGRATE_QUEUE_H
#define XAPI_MIGRATE_QUEUE_H

#include "xapi/core/api_call.h"
#include "xapi/migrate/move_options.h"

struct migration_queue;
struct migration_queue *migration_queue_new(struct xapi *);
/* The daemon stops: wakes those who wait, they fail with INTERNAL_ERROR; their rows stay. Before tasks are cancelled. */
void migration_queue_quiesce(struct migration_queue *); /* NULL is fine */
void migration_queue_free(struct migration_queue *);    /* once nobody waits; joins what was started again; NULL is fine */

struct queue_request {
    const char *id;               /* the migration's uuid */
    const char *message;          /* "VM.migrate_send", "VDI.pool_migrate" */
    struct value args;            /* the call's arguments by name: enough to start it again */
    const char *vm_uuid, *vm_name; /* of a VDI without VM: "" */
    const char *host;             /* ref of the source host */
    const struct move_options *options;
};
struct queue_place { const char *id; const char *host; int64_t waited_ms; }; /* hold it until queue_leave */
/* Returns when it may go. Cancellable (TASK_CANCELLED [task]); progress stays 0 and the task's other_config says
 * "migrate:phase" = "queued" and "migrate:queue_position" (from 1). queue_refuse: TOO_MANY_STORAGE_MIGRATES [limit] at once.
 * On the coordinator only; without a queue (tests) it returns at once. */
NODISCARD struct error *queue_enter(struct api_call *, const struct queue_request *, struct queue_place *);
/* Idempotent. The row, if the migration wrote none of its own in place of the queue's, goes. */
void queue_leave(struct api_call *, struct queue_place *);

/* Before the switch: waits for the window (options.window) and, with options.hold, until the task's other_config says
 * release=true. Cancellable. Returns at once where neither is asked for. For moves whose switch the caller makes itself; of a
 * running VM move_watch.h does it. */
NODISCARD struct error *queue_before_switch(struct api_call *, const struct move_options *);
/* The same without waiting; *waits_for_r: "window", "release" or "". */
bool queue_may_switch(struct api_call *, const struct move_options *, const char **waits_for_r);
/* Is this time of the day (epoch seconds) in "HH:MM-HH:MM" (UTC, begin included; may go over midnight)? */
bool queue_window_open(const char *window, int64_t wall);

/* Once the coordinator serves: starts again what stood in the queue. */
void migration_queue_start(struct xapi *);

struct queue_state { unsigned waiting, running; };
struct queue_state queue_state(struct xapi *);
/* The phases of moves, kept beside the queue (move_notes.h); NULL where there is no queue. */
struct move_clocks;
struct move_clocks *queue_clocks(struct xapi *);

#endif
