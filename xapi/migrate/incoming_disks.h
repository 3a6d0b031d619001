/* The disks that a move brings to a host of this pool: made, opened for their bytes, and given up again. Shared by a move
 * within the pool (destination_local.c) and by one that comes from another (incoming.c). */
#ifndef XAPI_MIGRATE_INCOMING_DISKS_H
#define XAPI_MIGRATE_INCOMING_DISKS_H

#include "xapi/core/api_call.h"

struct incoming_disk {
    const char *sr;              /* ref: where */
    int64_t size;
    const char *format;          /* "": the SR's own */
    const struct value *chosen;  /* as of vdi_row_create */
    const char *vdi;             /* made: ref */
    const char *uuid, *sr_uuid, *location;
};

/* A provisional VDI (xapi/pool/vdi_make.h), attached and active on the host as "incoming-<id>". What failed half way is undone
 * by incoming_disk_away. Blocks. */
NODISCARD struct error *incoming_disk_make(struct api_call *, const char *id, const char *host_ref, struct incoming_disk *);
/* The host lets go of it; the VDI stays. Failures are logged. */
void incoming_disk_release(struct api_call *, const char *id, const char *host_ref, const char *vdi_ref);
/* The VDI goes, image and row, wherever the making stopped. A null or unknown ref is fine. */
NODISCARD struct error *incoming_disk_away(struct api_call *, const char *id, const char *host_ref, const char *vdi_ref);

#endif
