/* The receiving end of a disk (specs/migration-semantics.md §8.4): PUT /services/SM/nbd/<vm>/<sr uuid>/<location>/<dp>
 * with Cookie: migration_key=… (or session_id, or the pool secret), answered by 200 and "Transfer-encoding: nbd", then NBD
 * with the tapd of that VDI, which the coordinator has attached and activated there as user "incoming-<migration id>".
 * /services/SM/nbdproxy/… means the same. On 443 like everything else. */
#ifndef XAPI_MIGRATE_DISK_SINK_H
#define XAPI_MIGRATE_DISK_SINK_H

#include "rpc/http/client.h"
#include "rpc/http/server.h"
#include "xapi/core/xapi.h"

/* Takeover route; ctx: struct xapi. */
http_handler_fn disk_sink_http_put;
/* The NBD URI by which a tapd elsewhere reaches it (storage/tapd/nbd_client.h documents the form). target->cookie is the
 * credential. */
const char *disk_sink_uri(struct arena *, const struct http_target *, const char *vm_uuid, const char *sr_uuid, const char *location);
/* Breaks every connection to these disks (set of { sr, location }) and waits until they are gone: from then on nobody
 * elsewhere writes to them. */
void disk_sinks_cut(struct xapi *, const struct value *disks);
void disk_sinks_stop(struct xapi *); /* all of them, at the daemon's stop */

#endif
