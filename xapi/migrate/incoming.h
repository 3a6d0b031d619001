/* The receiving pool's coordinator: verbs by which the sending one opens disks, admits the VM and ends the move. All of them
 * name the migration; all but the first are authorised by its key too (credentials.h). Each is idempotent.
 *
 *   incoming.open    migration_id, key, vm (uuid), vm_name, host (ref), from (uuid), from_name, disks: set of { id, sr (ref), size,
 *                    format, chosen (as of vdi_row_create), snapshot, snapshot_time, on_boot }
 *                    -> disks: map id -> { target (ref), uuid, sr_uuid, location }
 *   incoming.admit   migration_id, vm (ref, as imported), running, persistent, vbds and vifs (devices that are plugged in)
 *                    -> spec, final_uuid, disks (what the host opens once it has committed)
 *   incoming.commit  migration_id, power, domid -> vm (ref)
 *   incoming.abort   migration_id
 *   incoming.ask     migration_id -> stage, outcome (ledger.h); an unknown one is "done", "failed"
 * Between open and commit or abort the ledger has a row LEDGER_IN; the VM is marked with the operation "import" and shown with
 * other_config:incoming = the migration's id. The sending side decides; but once a minute a row whose VM runs on its host under
 * its own name (which it only has after the commit point) is committed, and one that nobody has touched for
 * incoming-abandoned-s (a day) is given up. */
#ifndef XAPI_MIGRATE_INCOMING_H
#define XAPI_MIGRATE_INCOMING_H

#include "xapi/core/agent.h"
#include "xapi/core/api_call.h"

agent_verb_fn incoming_verb_open, incoming_verb_admit, incoming_verb_commit, incoming_verb_abort, incoming_verb_ask;
void incoming_moves_start(struct xapi *);

#endif
