/* While a move's "migrate.send" runs: a thread that asks the source host once a second how far it is ("migrate.status"),
 * writes that into the task's other_config (migrate:phase, round, rounds, dirty_rate, bytes, eta_ms, predicted_blackout_us,
 * predicted_total_ms, will_not_converge …) and follows what the task's other_config asks for ("bandwidth", as in
 * disk_move_bandwidth; "max_downtime_ms") by "migrate.control". */
#ifndef XAPI_MIGRATE_MOVE_WATCH_H
#define XAPI_MIGRATE_MOVE_WATCH_H

#include "xapi/migrate/move.h"

struct move_watch;
struct move_watch *move_watch_start(struct api_call *, const struct move *);
void move_watch_stop(struct move_watch *); /* joins; NULL is fine */

/* Phases of a move by name, for task and ledger: sets migrate:phase, and adds "phase.<name>_ms" (begin, since the move's
 * begin) to the ledger's facts when it ends. Called by move.c at each step. */
void move_phase(struct api_call *, const struct move *, const char *phase);
/* Every fact of a map of migrate.send's result, into task (migrate:<key>) and ledger. */
void move_facts(struct api_call *, const struct move *, const struct value *facts);

/* --- for other calls about a VM that is being moved -------------------------------------------------------------- */
/* The id of the active move of this VM out of this pool, and the host that sends; NULL: none. */
const char *move_of_vm(struct api_call *, const char *vm_ref, const char **host_r);
/* "migrate.control" to its source host: args beyond migration_id (bandwidth, max_downtime_ms, finish, paused, yield). */
NODISCARD struct error *move_control(struct api_call *, const char *vm_ref, const struct member *args, unsigned n);

#endif
