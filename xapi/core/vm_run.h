/* Making a VM run on a host and taking it down there: what handlers, restarts and reconciling share.
 * The caller holds the VM's operation. All block (agent calls) and write the rows. */
#ifndef XAPI_CORE_VM_RUN_H
#define XAPI_CORE_VM_RUN_H

#include "xapi/core/api_call.h"

/* Reserves on 'host' (NULL: chosen), starts, records. force: no checks but memory. Marks vm_start on
 * the host and attach on the disks meanwhile. */
NODISCARD struct error *vm_run_start(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force);
/* On the host where it is. hard: destroys at once. VM_BAD_POWER_STATE when it runs nowhere. */
NODISCARD struct error *vm_run_shutdown(struct api_call *c, const char *vm_ref, bool hard);
NODISCARD struct error *vm_run_reboot(struct api_call *c, const char *vm_ref, bool hard);
/* other_config of a suspend image that is meant to be older than what its guest did last: a revert's. */
#define VM_IMAGE_OLD "restored-from-checkpoint"
/* The same of one that is only made for a checkpoint: the guest is resumed from it, by whoever finds it suspended. */
#define VM_IMAGE_WAKES "resume-after-checkpoint"
/* sm_config of a suspend image: its own uuid (a copy of it is something else), and the VM. Once that runs, or is gone, or
 * has given it up (VM_IMAGE_VOID), nobody needs the image, whatever became of the call that should have removed it. */
#define VM_IMAGE_SELF "suspend-image"
#define VM_IMAGE_OF "suspend-image-of"
#define VM_IMAGE_VOID "suspend-image-void"
bool vm_image_is_unused(struct api_call *c, const struct row *vdi);
NODISCARD struct error *vm_image_give_up(struct txn *, const char *vdi_ref); /* a null ref, and other disks, are fine */
/* vm_suspend.c: to a disk in the VM's suspend_SR, the pool's or host's, or the pool's default SR. */
NODISCARD struct error *vm_run_suspend(struct api_call *c, const char *vm_ref);
NODISCARD struct error *vm_run_resume(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force);

/* Reserves a host for an operation that makes the VM run there: the checks 'flags' (PLACE_*), the disks
 * (but for "vm_migrate", which brings its own), scheduled_to_be_resident_on and the host's mark in one
 * go; *host_ref_r in c's arena. A disk that is busy is waited for (two minutes); a host that is being
 * evacuated or shut down refuses: OTHER_OPERATION_IN_PROGRESS.
 * vm_run_unreserve takes all of it back but the host's mark, which is the caller's to end. */
NODISCARD struct error *vm_run_reserve(struct api_call *c, const char *vm_ref, const char *host_ref, const char *host_operation, unsigned flags,
                                       const char **host_ref_r);
void vm_run_unreserve(struct api_call *c, const char *vm_ref);

/* Records what a host says of a domain that now runs there; also ends the disks' marks. boot: a fresh
 * start, not a resume. */
NODISCARD struct error *vm_run_record(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *domain, bool boot);
/* The VM's row and the host where it runs; VM_BAD_POWER_STATE [vm; expected; actual] when it runs nowhere. */
NODISCARD struct error *vm_run_residence(struct api_call *c, const char *vm_ref, const char *expected, const struct row **vm_r, const char **host_r);
/* Posts an alert about the VM: "VM 'name' <what>". */
void vm_run_tell(struct api_call *c, const char *vm_ref, const char *alert, const char *what);

/* Errors of hosts name no VM: VM_BAD_POWER_STATE [expected; actual] becomes [vm; expected; actual], and so on. */
struct error *vm_run_error(struct api_call *c, const char *vm_ref, struct error *);

#endif
