/* Making a VM run on a host and taking it down there: what handlers, restarts and reconciling share.
 * The caller holds the VM's operation. All block (agent calls) and write the rows. */
#ifndef XAPI_CORE_VM_RUN_H
#define XAPI_CORE_VM_RUN_H

#include "xapi/core/api_call.h"

/* Reserves on 'host' (NULL: chosen) with the checks 'flags' (PLACE_*), starts, records. force: no checks
 * but memory. Marks vm_start on the host. */
NODISCARD struct error *vm_run_start(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force);
/* On the host where it is. hard: destroys at once. */
NODISCARD struct error *vm_run_shutdown(struct api_call *c, const char *vm_ref, bool hard);
NODISCARD struct error *vm_run_reboot(struct api_call *c, const char *vm_ref, bool hard);
NODISCARD struct error *vm_run_suspend(struct api_call *c, const char *vm_ref);
NODISCARD struct error *vm_run_resume(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force);

/* Reserves a host for an operation that makes the VM run there: checks, scheduled_to_be_resident_on and
 * the host's mark in one go; *host_ref_r in c's arena. vm_run_unreserve takes the reservation back. */
NODISCARD struct error *vm_run_reserve(struct api_call *c, const char *vm_ref, const char *host_ref, const char *host_operation, unsigned flags,
                                       const char **host_ref_r);
void vm_run_unreserve(struct api_call *c, const char *vm_ref);

/* Errors of hosts name no VM: VM_BAD_POWER_STATE [expected; actual] becomes [vm; expected; actual], and so on. */
struct error *vm_run_error(struct api_call *c, const char *vm_ref, struct error *);

#endif
