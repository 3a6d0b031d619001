/* What a VM's row says and what runs: making specs for hosts, and following what hosts report. */
#ifndef XAPI_CORE_VM_STATE_H
#define XAPI_CORE_VM_STATE_H

#include "xapi/core/api_call.h"
#include "xenops/vm_spec.h"

/* The plain description of a VM as 'host' must see it: disks resolved to paths there. In c's arena. */
NODISCARD struct error *vm_spec_of(struct api_call *c, const char *vm_ref, const char *host_ref, struct vm_spec *spec_r);

/* Moves a VM's row to a power state inside a transaction with every side effect of specs §2.4: to
 * Halted or Suspended clears resident_on, scheduled_to_be_resident_on, domid -1; to Halted also
 * currently_attached of its devices; metrics follow. host_ref: where it runs now, or NULL. */
NODISCARD struct error *vm_set_power_state(struct api_call *c, struct txn *, const char *vm_ref, const char *power_state, const char *host_ref, int domid);

/* Takes a host's report of its domains (see vm_state.c for the value's shape) and makes the rows of
 * VMs resident there agree: power-off, reboot and crash as actions_after_* say, guest metrics,
 * memory. VMs with a current operation are left to it. Runs on the coordinator, any thread; may block. */
void vm_reconcile(struct xapi *, const char *host_ref, const struct value *domains);

/* Memory a VM needs on a host: static or dynamic maximum plus overhead, bytes. */
int64_t vm_memory_needed(const struct row *vm);
/* Free memory of a host counting what is resident on or scheduled to be on it, from the database. */
int64_t host_memory_free(struct txn *, const struct row *host);

#endif
