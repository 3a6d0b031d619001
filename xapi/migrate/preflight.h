/* Before a byte of the guest moves: is the way there, both ways? Runs on the source host as verb "migrate.preflight", over
 * the same address, port and credentials as the migration itself.
 *
 *   migrate.preflight  destination (as in migrate.send), disks (made there: set of { sr, location }), shared (set of
 *                      { sr, location } that the guest uses and the destination must open too), back (as "destination":
 *                      where the destination reaches this host)
 *     -> rtt_us, clock_offset_us (theirs minus ours, by the middle of the fastest exchange), bandwidth (bytes/s there),
 *        bandwidth_back, mtu (path's, bytes; 0 unknown), mss, duration_us
 *     or failed (which test), code, params, cause: an error's cause does not travel by itself
 *   Order of tests, the first that fails is the error (code VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED [] or the peer's own,
 *   cause says which test and what to do): connect, TLS, credentials, receiver, way back, sample (a path that swallows large
 *   packets is told from one that is down), disks (each). Costs 300 ms at most on a healthy path, 30 s on an ill one.
 * On the destination, all for whoever has the migration's credentials:
 *   migrate.echo       nonce -> nonce, wall_us
 *   migrate.probe      back -> rtt_us, or failed, …
 *   migrate.try_disks  disks -> nothing, or failed, …: opens each for reading (O_DIRECT, first and last sector) where the
 *                      driver says it is, with a user of its own, beside whoever uses it, without activating it
 *   PUT /services/xenops/migrate/sample/<bytes>  path_probe.h */
#ifndef XAPI_MIGRATE_PREFLIGHT_H
#define XAPI_MIGRATE_PREFLIGHT_H

#include "rpc/http/server.h"
#include "xapi/core/agent.h"
#include "xapi/migrate/move.h"

/* Coordinator's step: asks the source host; facts into the ledger (preflight.*). Nothing within one host, nor with
 * migration-preflight=false. The failed test's error with its cause. */
NODISCARD struct error *preflight_run(struct api_call *, struct move *);

agent_verb_fn preflight_verb_preflight, preflight_verb_echo, preflight_verb_probe, preflight_verb_try_disks;
http_handler_fn preflight_http_sample; /* takeover; ctx: struct xapi */

#endif
