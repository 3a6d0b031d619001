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

/* The host gives up the disks of a VM that no longer runs there (vdi.detach for each of its VBDs; what others use
 * there stays). Failures are logged. Blocks (agent calls). */
void vm_disks_release(struct api_call *c, const char *vm_ref, const char *host_ref);
/* The same for one VBD's disk: an unplugged one, an ejected medium. Null refs are fine. */
void vm_disk_release(struct api_call *c, const char *vdi_ref, const char *host_ref, const char *vbd_ref);

/* vm_disks_settle.c: a host has come back and its SRs are plugged: guests that run there have their disks, and nobody
 * else is served. Failures are logged. Blocks (agent calls). */
void vm_disks_settle(struct api_call *c, const char *host_ref);

/* The disks that the guest of a VM writes to, as its hosts close and open them around a move: a set of maps { sr:
 * uuid, location } (xapi/migrate/disks.h). What it only reads may stay open on both hosts. */
struct value vm_disks_written(struct api_call *c, const struct row *vm);

#endif
