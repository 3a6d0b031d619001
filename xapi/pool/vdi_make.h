/* New disks: the row first, then the image on a host.
 *
 * A disk that is being made has a row that is not managed and says so (sm_config:provisional = this start of the
 * coordinator). It becomes a disk in one transaction: vdi_make and vdi_derive do that at their end, or leave it to
 * vdi_settle in a transaction of the caller's, with the rows that belong to it. What a coordinator that died has left
 * provisional is removed, image and row, by the next one (sr_watch.h). */
#ifndef XAPI_POOL_VDI_MAKE_H
#define XAPI_POOL_VDI_MAKE_H

#include "xapi/core/api_call.h"

enum vdi_end { VDI_SETTLED, VDI_PROVISIONAL };

struct vdi_plan {
    const char *sr;              /* ref */
    int64_t size;                /* bytes; the medium may round it up */
    const char *format;          /* "raw", "vhd", "qcow2"; "": the SR's own */
    const struct value *chosen;  /* as of vdi_row_create */
    enum vdi_end end;
};
/* Marks the SR vdi_create meanwhile. Errors: SR_HAS_NO_PBDS, SR_OPERATION_NOT_SUPPORTED [sr], SR_FULL, the driver's. */
NODISCARD struct error *vdi_make(struct api_call *c, const struct vdi_plan *, const char **ref_r);

/* A snapshot or a clone of a VDI in its SR, also of one that a guest writes to: crash-consistent. Marks the SR
 * vdi_snapshot or vdi_clone; the VDI's own mark is the caller's. */
enum vdi_child { VDI_CHILD_CLONE, VDI_CHILD_SNAPSHOT };
NODISCARD struct error *vdi_derive(struct api_call *c, const char *vdi_ref, enum vdi_child, enum vdi_end, const char **ref_r);
/* The same, marking the VDI too: for calls that begin elsewhere (VM.snapshot). */
NODISCARD struct error *vdi_derive_marked(struct api_call *c, const char *vdi_ref, enum vdi_child, enum vdi_end, const char **ref_r);

/* A full copy of a VDI in an SR (its own or another one). The VDI's mark is the caller's. NO_HOSTS_AVAILABLE []: no host
 * has both SRs plugged. */
NODISCARD struct error *vdi_copy_whole(struct api_call *c, const char *vdi_ref, const char *sr_ref, enum vdi_end, const char **ref_r);
/* The same into a disk that exists, is not in use and large enough: VDI_READONLY, VDI_TOO_SMALL [vdi; size], VDI_IN_USE. */
NODISCARD struct error *vdi_copy_into(struct api_call *c, const char *vdi_ref, const char *into_ref);

/* A provisional disk becomes one; anything else is left alone. */
NODISCARD struct error *vdi_settle(struct api_call *c, struct txn *, const char *vdi_ref);
/* From here on the disk is as if it were only being made: gone after a restart, too. The caller removes it now. */
NODISCARD struct error *vdi_doom(struct api_call *c, struct txn *, const char *vdi_ref);
bool vdi_is_provisional(const struct row *vdi);
/* One that no call of this start of the coordinator will finish. */
bool vdi_is_left_over(struct api_call *c, const struct row *vdi);

/* Removes the image and the row. Marks the SR vdi_destroy. An image that is gone already is fine. */
NODISCARD struct error *vdi_unmake(struct api_call *c, const char *vdi_ref);
/* The same for what is only in the way, also when the call was cancelled: failures are logged. A null ref, and an image
 * that a suspended VM or a checkpoint still needs, are left alone. */
void vdi_discard(struct api_call *c, const char *vdi_ref, const char *what);

#endif
