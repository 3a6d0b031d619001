/* What two hosts say to each other while a VM moves (specs/migration-semantics.md §8, design §10).
 *
 * All connections are HTTP PUT requests whose head is never answered; after it the socket is a raw
 * duplex pipe. A handshake message is a 2-byte big-endian length N and N bytes: N = 0 is success,
 * otherwise the bytes are an error as JSON {"code":…,"params":[…]}.
 *
 *   S -> D  POST /services/xenops  VM.import_metadata: vm_spec, migration id, uuids
 *   S -> D  PUT /services/xenops/migrate/vm/<temp uuid>   [vm stream]
 *           cookies: session_id | pool_secret | migration_key, migration_id, final_id, memory_limit, two_phase=1,
 *           alive=1, report=1
 *   D -> S  #1 on vm: memory is reserved, domain created (or the error)
 *   S -> D  PUT /services/xenops/migrate/mem/<temp uuid>  [mem stream], one or several
 *           cookies: the same, stream=<i>, streams=<n>, confirm=1, fan=1
 *   D -> S  success on each mem;  S -> D success on vm
 *   S -> D  XenSavedDomv2 image on mem, live
 *   D -> S  READY on vm: restored, complete, paused
 *   S       journal GO-SENT (fsync)
 *   S -> D  #3 GO on vm
 *   D       journal COMMITTED (fsync)   <- the commit point
 *   D -> S  COMMITTED on vm, then unpauses;  D -> S  #4 on vm: it runs
 *   S -> D  post-copy only: the missing pages on mem stream 0;  D -> S  on vm: all are there (or the error)
 *   S       journal DONE, destroys its suspended domain
 *
 * What we add is negotiated: the answer to migrate.prepare offers { streams: most, compress: ["zstd"], extras: ["confirm",
 * "alive", "report"] }, and the cookies of the PUTs take it up. To and from a peer that knows none of it the above is all.
 *   confirm  D says on each mem stream how many of its bytes were consumed (xenops/stream/confirm.h)
 *   fan      the image is split over the mem streams, or compressed (xenops/stream/fan.h)
 *   alive    D says HANDSHAKE_ALIVE on vm at least every second while it works on the image; GO is a message HANDSHAKE_GO with
 *            words: "postcopy", and "paused" or "run"
 *   report   after #4 D sends a map { frames, announced_us (after the unpause), domid } as JSON
 *
 * Before GO-SENT every failure resumes the source. After it the source asks D (migrate.ask by
 * migration id) until it hears COMMITTED or a durable ABORTED; only ABORTED lets it resume. */
#ifndef XAPI_MIGRATE_WIRE_H
#define XAPI_MIGRATE_WIRE_H

#include "rpc/base/bytes.h"
#include "rpc/base/error.h"
#include "rpc/base/value.h"

#define HANDSHAKE_MAX 65535
#define HANDSHAKE_ALIVE "ALIVE" /* codes of messages that are no errors */
#define HANDSHAKE_GO "GO"

/* Success, or the error. -errno as the transport failed. Blocks. */
NODISCARD int handshake_send(struct byte_stream *, const struct error *);
/* 0: *error_r is NULL (success) or the peer's error, in the arena; -errno: transport, or malformed (-EPROTO). */
NODISCARD int handshake_receive(struct arena *, struct byte_stream *, int cancel_fd, int timeout_ms, struct error **error_r);

/* A map as JSON in a message. -EPROTO when it is no map, -EMSGSIZE when it is too long. */
NODISCARD int handshake_send_value(struct byte_stream *, const struct value *);
NODISCARD int handshake_receive_value(struct arena *, struct byte_stream *, int timeout_ms, struct value *);

#endif
