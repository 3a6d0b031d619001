/* What a VM's row says and what runs: making specs for hosts, and following what hosts report. */
#ifndef XAPI_CORE_VM_STATE_H
#define XAPI_CORE_VM_STATE_H

#include "xapi/core/api_call.h"
#include "xenops/vm_spec.h"

#define VM_PLATFORM_VENDOR_DEVICE 2 /* hardware_platform_version that has the vendor device */

/* "hvm", "pv", "pvh" or "pv_in_pvh": domain_type, or what the older HVM_boot_policy means. */
const char *vm_domain_type(const struct row *vm);

/* The plain description of a VM as 'host' must see it: disks resolved to paths there. In c's arena.
 * A halted VM's has all its devices, another's those that are plugged in: what it resumes or arrives
 * with. vm_spec_of_boot: all interfaces in any case, for a reboot. The disks are attached there and serve at once;
 * vm_spec_of_move: those that are written to stay inactive until the switch; 'instead': a map from a VDI's ref to that of the
 * one that takes its place, or NULL. Blocks (agent calls). */
NODISCARD struct error *vm_spec_of(struct api_call *c, const char *vm_ref, const char *host_ref, struct vm_spec *spec_r);
NODISCARD struct error *vm_spec_of_move(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *instead,
                                        struct vm_spec *spec_r);
NODISCARD struct error *vm_spec_of_boot(struct api_call *c, const char *vm_ref, const char *host_ref, struct vm_spec *spec_r);
/* One disk of it; path "" for an empty drive. */
NODISCARD struct error *vm_disk_spec(struct api_call *c, const struct row *vbd, const struct row *vdi /* or NULL */, const char *host_ref,
                                     struct disk_spec *disk_r);

/* Moves a VM's row to a power state inside a transaction with every side effect of specs §2.4: to
 * Halted or Suspended clears resident_on, scheduled_to_be_resident_on, domid -1; to Halted also
 * currently_attached of its devices; from Halted to a live one all its devices
 * count as plugged in (a suspended VM keeps what it had).
 * host_ref: where it runs now, or NULL. */
NODISCARD struct error *vm_set_power_state(struct api_call *c, struct txn *, const char *vm_ref, const char *power_state, const char *host_ref, int domid);

/* Takes a host's report of its domains (see vm_reconcile.c for the value's shape) and makes the rows of
 * VMs resident there agree: power-off, reboot and crash as actions_after_* say, guest metrics,
 * memory. VMs with a current operation are left to it. Runs on the coordinator, any thread; may block. */
void vm_reconcile(struct xapi *, const char *host_ref, const struct value *domains);
/* The same for one VM whose operation the caller holds: if its domain has ended on that host, what actions_after_* say is
 * done. Blocks. */
NODISCARD struct error *vm_ended(struct api_call *c, const char *vm_ref, const char *host_ref);

#endif
