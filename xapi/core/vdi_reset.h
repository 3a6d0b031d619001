/* Disks whose changes are thrown away when their VM starts (VDI.on_boot = reset).
 *
 * Declared here because starting a VM needs it; implemented in xapi/pool/vdi_reset.c. At the first start a snapshot of
 * the disk is taken, its reset point (a row that is not managed, named by sm_config:reset-point of the disk); at every
 * later start the disk is put back to it. Where it is made persistent again, resized or destroyed, the point goes. */
#ifndef XAPI_CORE_VDI_RESET_H
#define XAPI_CORE_VDI_RESET_H

#include "xapi/core/api_call.h"

/* Before the disks of a halted VM are attached. Blocks. The errors of VDI.snapshot and of the host's vdi.revert. */
NODISCARD struct error *vdi_reset_disks(struct api_call *c, const char *vm_ref);
/* Does the VM have such a disk? Then it cannot be rebooted in one go. */
bool vdi_reset_any(struct api_call *c, const char *vm_ref);
/* Removes the reset point of a disk, which keeps what it holds now; none is fine. */
NODISCARD struct error *vdi_reset_forget(struct api_call *c, const char *vdi_ref);

#endif
