/* Before a byte of the guest moves: is the way there, both ways? Runs on the source host as verb "migrate.preflight", over
 * the same address, port and credentials as the migration itself.
 *
 *   migrate.preflight  destination (as in migrate.send), key, disks (destination's: set of { sr, location }), shared (set of
 *                      { sr, location } that the guest uses and the destination must open too), back (address and port by
 *                      which the destination reaches this host)
 *     -> rtt_us, clock_offset_us (theirs minus ours, by the middle of the fastest exchange), bandwidth (bytes/s there),
 *        bandwidth_back, mtu (path's, bytes; 0 unknown), tls (version and suite)
 *   Order of tests, the first that fails is the error (code VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED [] or the peer's own,
 *   cause says which test and what to do): connect, TLS, credentials, receiver ready, the way back, sample (a path that
 *   swallows large packets is told from one that is down), every disk.
 * On the destination: "migrate.echo" (nonce, wall time), "migrate.probe" { back, key } connects back, "migrate.try_disks" opens
 * each disk for reading (O_DIRECT, first and last sector) through the driver's own path without activating it; PUT
 * /services/xenops/migrate/sample/<bytes> swallows or sends a sample (raw handshake, as the other PUTs). */
#ifndef XAPI_MIGRATE_PREFLIGHT_H
#define XAPI_MIGRATE_PREFLIGHT_H

#include "rpc/http/server.h"
#include "xapi/core/agent.h"
#include "xapi/migrate/move.h"

/* Coordinator's step: asks the source host; facts into the ledger (preflight.*). */
NODISCARD struct error *preflight_run(struct api_call *, struct move *);

agent_verb_fn preflight_verb_preflight, preflight_verb_echo, preflight_verb_probe, preflight_verb_try_disks;
http_handler_fn preflight_http_sample; /* takeover; ctx: struct xapi */

#endif
