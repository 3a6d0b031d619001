/* Can this VM run on that host? The common checker of specs §1.7, in its order, and the choice of a host. */
#ifndef XAPI_CORE_PLACEMENT_H
#define XAPI_CORE_PLACEMENT_H

#include "xapi/core/api_call.h"

enum { PLACE_CPU = 1u << 0, PLACE_SR = 1u << 1, PLACE_MEMORY = 1u << 2 };

/* First failure wins; nothing is changed. Reads inside the transaction. Legacy virtual GPUs (rule 1) do
 * not exist here; the capacity of SR-IOV networks (rule 12) is not counted yet. */
NODISCARD struct error *placement_check(struct api_call *c, struct txn *, const struct row *vm, const struct row *host, unsigned flags);

/* CPU compatibility alone, of a VM that is not halted: VM_INCOMPATIBLE_WITH_THIS_HOST [vm; host; text]
 * (specs §1.10). */
NODISCARD struct error *placement_check_cpu(struct api_call *c, const struct row *vm, const struct row *host);

/* The best host among those that pass the checks 'flags', take new VMs and, during a rolling upgrade,
 * have the newest version: the VM's affinity, else the one with most free memory; then again without
 * the memory check, then NO_HOSTS_AVAILABLE []. */
NODISCARD struct error *placement_choose(struct api_call *c, struct txn *, const struct row *vm, unsigned flags, const char **host_ref_r);

/* Has the host a plugged PBD of the SR? */
bool placement_sr_attached(struct txn *, const char *sr_ref, const char *host_ref);

/* Rules 9 to 11: IOMMU, virtual GPUs, USB devices (placement_devices.c). */
NODISCARD struct error *placement_check_devices(struct api_call *c, struct txn *, const struct row *vm, const struct row *host);

#endif
