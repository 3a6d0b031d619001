/* Where a host finds a VDI's contents, for as long as somebody there uses it. */
#ifndef XAPI_CORE_VDI_PATH_H
#define XAPI_CORE_VDI_PATH_H

#include "xapi/core/api_call.h"

struct vdi_path_use {
    const char *user;  /* a word that names who needs it: vdi_user_of_vbd(), "suspend-<vm uuid>" */
    bool read_only;
    bool direct;       /* a file or device to read and write here, no tapd (storage/sr.h) */
    bool cached;
    bool activate;     /* false: nothing is opened yet; somebody calls vdi.activate later */
};
/* Attaches the VDI on the host (agent verb vdi.attach: idempotent) and gives what to open there, an NBD URI
 * unless direct, in c's arena. Blocks; not inside a transaction. SR_NOT_ATTACHED [sr] when the host has no
 * plugged PBD of its SR; VDI_MISSING [sr; vdi]; HOST_OFFLINE, CANNOT_CONTACT_HOST [host]. */
NODISCARD struct error *vdi_path(struct api_call *c, const char *vdi_ref, const char *host_ref, const struct vdi_path_use *, const char **path_r);
/* The user is gone; the last one ends the tapd. Failures are logged. A null ref is fine. Blocks. */
void vdi_path_release(struct api_call *c, const char *vdi_ref, const char *host_ref, const char *user);

/* "vbd-<uuid>" of a VBD's row. */
const char *vdi_user_of_vbd(struct arena *, const struct row *vbd);

#endif
