/* The receiving pool's coordinator: verbs by which the sending one opens disks, admits the VM and ends the move. All of them
 * name the migration; all but the first are authorised by its key too (credentials.h). Each is idempotent.
 *
 *   incoming.open    migration_id, key, vm (uuid), vm_name, host (ref), from (name), disks: set of { id, sr (ref), size, format,
 *                    name_label, … as of vdi_row_create } -> disks: map id -> { target, uuid, sr_uuid, location }
 *   incoming.admit   migration_id, vm (ref, as imported), options -> spec, final_uuid, disks (destination_disks), vifs
 *   incoming.commit  migration_id, power, domid, keep (bool: not persistent …) -> vm (ref)
 *   incoming.abort   migration_id
 *   incoming.ask     migration_id -> state: "open", "committed", "aborted" (an unknown one is aborted for good)
 * Between open and commit or abort the ledger has a row LEDGER_IN; the VM is marked with the operation "import" and shown with
 * other_config:incoming = the migration's id. Recovery: a row that is not done is settled by asking the host's journal
 * (migrate.ask decides an undecided one only when nobody has told of it for incoming-patience seconds). */
#ifndef XAPI_MIGRATE_INCOMING_H
#define XAPI_MIGRATE_INCOMING_H

#include "xapi/core/agent.h"
#include "xapi/core/api_call.h"

agent_verb_fn incoming_verb_open, incoming_verb_admit, incoming_verb_commit, incoming_verb_abort, incoming_verb_ask;
void incoming_moves_start(struct xapi *);

#endif
