/* The receiving end of a disk (specs/migration-semantics.md §8.4): PUT /services/SM/nbd/<vm>/<sr uuid>/<location>/<dp>
 * with Cookie: migration_key=… (or session_id, or the pool secret), answered by 200 and "Transfer-encoding: nbd", then NBD
 * with the tapd of that VDI, which the coordinator has attached and activated there as user "incoming-<migration id>".
 * /services/SM/nbdproxy/… and /services/SM/nbdproxy/import/… mean the same. On 443 like everything else; without TLS only
 * where migration-https-only is false. Refusals: 401, 403, 404 (no such path, or the disk is not here), 409 (it was cut).
 *
 * A plain socket becomes the tapd's; the bytes of one with TLS go through this process, and end when it ends: the tapd at
 * the other end connects again. They all end when the front stops. */
#ifndef XAPI_MIGRATE_DISK_SINK_H
#define XAPI_MIGRATE_DISK_SINK_H

#include "rpc/http/client.h"
#include "rpc/http/server.h"
#include "xapi/core/xapi.h"

/* Takeover route; ctx: struct xapi. */
http_handler_fn disk_sink_http_put;
/* What a path names; false: nothing. In the arena. For the handler and its test. */
struct disk_sink_path { const char *vm, *sr, *location; };
bool disk_sink_path_parse(struct arena *, const char *path, struct disk_sink_path *);
/* The NBD URI by which a tapd elsewhere reaches it (storage/tapd/nbd_client.h documents the form). target->cookie is the
 * credential: a secret that the URI holds. */
const char *disk_sink_uri(struct arena *, const struct http_target *, const char *vm_uuid, const char *sr_uuid, const char *location);
/* Breaks every connection to these disks (set of { sr, location }) and waits until they are gone: from then on nobody
 * elsewhere writes to them, for as long as they stay attached. Failures are logged. Blocks. */
void disk_sinks_cut(struct xapi *, const struct value *disks);

#endif
