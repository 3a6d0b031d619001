/* Contents of a disk as a stream of bytes, both ways, in the formats that clients know: raw and vhd.
 *
 * The disk is an NBD client's; the stream a connection's body. All block; watch the call's cancel and call
 * note(ctx, fraction) about once a second, whose error ends the work. Errors: VDI_IO_ERROR [] of the disk (the cause
 * says more), INTERNAL_ERROR [text] for a broken connection or a damaged image, TASK_CANCELLED []. */
#ifndef XAPI_TRANSFER_DISK_STREAM_H
#define XAPI_TRANSFER_DISK_STREAM_H

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/nbd/nbd_client.h"

struct disk_stream {
    struct call *call;
    struct nbd_client *disk, *base;       /* base: a delta against it is exported; NULL: everything */
    int64_t size, base_size;              /* of the disks */
    const char *vdi_uuid, *base_uuid;     /* written into a VHD */
    struct byte_stream *stream;
    struct error *(*note)(void *ctx, double fraction);
    void *ctx;
    int64_t noted_ms;                     /* ours */
    char *buffer;                         /* ours: DISK_STREAM_CHUNK bytes */
};
#define DISK_STREAM_CHUNK (1u << 20)

struct disk_export; /* what a VHD will hold */
NODISCARD struct error *raw_export(struct disk_stream *);
NODISCARD struct error *raw_import(struct disk_stream *); /* shorter than the disk is fine, longer is an error */
/* Finds what to send, then tells how long the stream will be; vhd_export_send sends it. */
NODISCARD struct error *vhd_export_plan(struct disk_stream *, struct disk_export **plan_r, int64_t *length_r);
NODISCARD struct error *vhd_export_send(struct disk_stream *, struct disk_export *);
void vhd_export_free(struct disk_export *);
/* Fixed, dynamic, differencing (applied to what the disk holds). Larger than the disk is an error. */
NODISCARD struct error *vhd_import(struct disk_stream *);

/* disk_stream.c: shared by the two formats */
NODISCARD struct error *disk_stream_tick(struct disk_stream *, double fraction); /* cancel, note */
NODISCARD struct error *disk_failed(struct disk_stream *, const char *what, int rc);
NODISCARD struct error *stream_failed(struct disk_stream *, const char *what, int rc);
NODISCARD struct error *stream_malformed(struct disk_stream *, const char *what);
NODISCARD struct error *disk_put(struct disk_stream *, const char *bytes, uint32_t length, int64_t offset); /* zeros become holes */

#endif
