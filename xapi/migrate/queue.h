/* Storage migrations wait for their turn (design §10: nothing is refused that can be queued).
 *
 * At most storage-migrations-per-pool (3) in this pool and storage-migrations-per-host (3) from one host move disks at
 * once; pool.other_config keys of the same names override. Those that wait go by priority, then by age. A migration with
 * not_before waits for that time. The queue is durable: its rows stand in the ledger as stage "queued" with the whole
 * request in 'note'; after a restart of the coordinator each is started again by itself, with a new task of the same
 * label. Moves of memory alone are not queued. */
#ifndef XAPI_MIGRATE_QUEUE_H
#define XAPI_MIGRATE_QUEUE_H

#include "xapi/core/api_call.h"
#include "xapi/migrate/move_options.h"

struct migration_queue;
struct migration_queue *migration_queue_new(struct xapi *);
void migration_queue_free(struct migration_queue *); /* wakes those who wait: they fail with INTERNAL_ERROR; their rows stay */

struct queue_request {
    const char *id;               /* the migration's uuid */
    const char *message;          /* "VM.migrate_send", "VDI.pool_migrate" */
    struct value args;            /* the call's arguments by name: enough to start it again */
    const char *vm_uuid, *vm_name; /* of a VDI without VM: "" */
    const char *host;             /* ref of the source host */
    const struct move_options *options;
};
struct queue_place { const char *id; const char *host; }; /* hold it until queue_leave */
/* Returns when it may go. Cancellable (TASK_CANCELLED [task]); progress stays 0 and the task's other_config says
 * "migrate:phase" = "queued" and "migrate:queue_position". queue_refuse: TOO_MANY_STORAGE_MIGRATES [limit] at once. */
NODISCARD struct error *queue_enter(struct api_call *, const struct queue_request *, struct queue_place *);
void queue_leave(struct api_call *, struct queue_place *); /* idempotent */

/* Before the switch: waits for the window (options.window) and, with options.hold, until the task's other_config says
 * release=true. Cancellable. Returns at once where neither is asked for. */
NODISCARD struct error *queue_before_switch(struct api_call *, const struct move_options *);

/* Once the coordinator serves: starts again what stood in the queue. */
void migration_queue_start(struct xapi *);

#endif
