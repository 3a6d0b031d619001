/* Where a host finds a VDI's contents. */
#ifndef XAPI_CORE_VDI_PATH_H
#define XAPI_CORE_VDI_PATH_H

#include "xapi/core/api_call.h"

/* Attaches the VDI on the host (agent verb vdi.attach: idempotent) and gives what to open there, in
 * c's arena. Blocks; not inside a transaction. SR_NOT_ATTACHED [sr] when the host has no plugged PBD
 * of its SR; VDI_MISSING [sr; vdi]; HOST_OFFLINE, CANNOT_CONTACT_HOST [host]. */
NODISCARD struct error *vdi_path(struct api_call *c, const char *vdi_ref, const char *host_ref, const char **path_r);

#endif
