/* What can be seen of a move while it runs, and told to it.
 *
 * While its "migrate.send" runs a thread asks the source host once a second how far it is ("migrate.status") and writes what
 * changed into the task's other_config, in one commit (phase, round, rounds, pages_sent, pages_dirty, bytes, dirty_rate,
 * link_rate, eta_ms, predicted_blackout_us, predicted_total_us, will_not_converge, throttle, streams, compress; each as
 * "migrate:<name>"), so that event.from sees it at most once a second. The first prediction also goes into the ledger.
 *
 * It follows what the task's other_config asks for: "bandwidth" (as disk_move_bandwidth reads it) and "max_downtime_ms", by
 * "migrate.control". With options.hold or options.window the host was told to hold before the switch (migrate.send's
 * 'hold'): this thread, not the mover, lets it go (control hold=false) once queue_may_switch says so, and holds it again
 * (hold=true) when the window closes before the switch came; "migrate:waiting_for" says what it waits for. */
#ifndef XAPI_MIGRATE_MOVE_WATCH_H
#define XAPI_MIGRATE_MOVE_WATCH_H

#include "xapi/migrate/move.h"

struct move_watch;
/* The move and the call's task must live until move_watch_stop. */
struct move_watch *move_watch_start(struct api_call *, const struct move *);
void move_watch_stop(struct move_watch *); /* joins, at most one call to the host later; NULL is fine */

/* Phases of a move by name, for task and ledger: sets migrate:phase, and writes the facts "phase.<name>_at_ms" (its begin,
 * since the move's begin) and, once the next one begins, "phase.<name>_ms" (how long it took). Called by move.c at each
 * step; NULL: the move has ended. */
void move_phase(struct api_call *, const struct move *, const char *phase);
/* Every plain value of a map (migrate.send's result, say), into task (migrate:<key>) and ledger, as text. */
void move_facts(struct api_call *, const struct move *, const struct value *facts);

/* --- for other calls about a VM that is being moved -------------------------------------------------------------- */
/* The id of the active move of this VM out of this pool, and the ref of the host that sends; NULL: none. A move that is only
 * queued is none. host_r may be NULL. */
const char *move_of_vm(struct api_call *, const char *vm_ref, const char **host_r);
/* "migrate.control" to its source host: args beyond migration_id (bandwidth, max_downtime_ms, finish, paused, yield, hold,
 * postcopy). OPERATION_NOT_ALLOWED when the VM is not being moved. */
NODISCARD struct error *move_control(struct api_call *, const char *vm_ref, const struct member *args, unsigned n);

#endif
