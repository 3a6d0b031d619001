/* The disks of a VM on a host: who may take them, and letting go of them afterwards. */
#ifndef XAPI_CORE_VM_DISKS_H
#define XAPI_CORE_VM_DISKS_H

#include "xapi/core/api_call.h"

/* Marks every disk of a VM that is about to run as being attached, in the transaction that reserves its
 * host: two VMs started at once cannot both take one disk. halted: all its disks are taken, else those
 * that count as plugged in. VDI_IN_USE [vdi], VDI_READONLY [vdi], OTHER_OPERATION_IN_PROGRESS …
 * vm_disks_unmark takes the marks back once it runs or has failed. */
NODISCARD struct error *vm_disks_mark(struct api_call *c, struct txn *, const struct row *vm);
NODISCARD struct error *vm_disks_unmark(struct api_call *c, struct txn *, const char *vm_ref);

/* The host gives up the disks of a VM that no longer runs there, but for those that something else on it
 * uses. Failures are logged. Blocks (agent calls). */
void vm_disks_release(struct api_call *c, const char *vm_ref, const char *host_ref);
/* The same for one disk: a suspend image, an ejected medium. What 'except_vbd' (or NULL) says of it does
 * not count as use. A null ref is fine. */
void vm_disk_release(struct api_call *c, const char *vdi_ref, const char *host_ref, const char *except_vbd);

#endif
