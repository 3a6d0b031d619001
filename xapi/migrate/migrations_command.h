/* "migrations …" of the control socket, each answered as JSON (xapi-ctl makes tables and CSV of it):
 *
 *   migrations                       this host's journal: a list of { migration_id, side, state, facts }
 *   migrations active                { journal, ledger }: that, and what is under way in this pool (empty on a member)
 *   migrations history VM OUTCOME SINCE_S LIMIT    rows of the ledger, newest first; "-" for any
 *   migrations show ID               { rows, journal } of one
 *   migrations decide ID commit|abort             decide.h
 *
 * A row: id, direction (out, in), kind, stage, outcome, cause, recovery, vm_uuid, vm_name, user, from_host, from_name, to_host,
 * to_name, began_ms, ended_ms, facts. Neither keys nor notes are shown. */
#ifndef XAPI_MIGRATE_MIGRATIONS_COMMAND_H
#define XAPI_MIGRATE_MIGRATIONS_COMMAND_H

#include "xapi/core/control_socket.h"

control_command_fn migrations_command;

#endif
