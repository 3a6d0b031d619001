/* Can this VM run on that host? The common checker of specs §1.7, in its order, and the choice of a host. */
#ifndef XAPI_CORE_PLACEMENT_H
#define XAPI_CORE_PLACEMENT_H

#include "xapi/core/api_call.h"

enum { PLACE_CPU = 1u << 0, PLACE_SR = 1u << 1, PLACE_MEMORY = 1u << 2 };

/* First failure wins; nothing is changed. Reads inside the transaction. */
NODISCARD struct error *placement_check(struct api_call *c, struct txn *, const struct row *vm, const struct row *host, unsigned flags);

/* CPU compatibility alone: VM_INCOMPATIBLE_WITH_THIS_HOST [vm; host; text] (specs §1.10). */
NODISCARD struct error *placement_check_cpu(struct api_call *c, const struct row *vm, const struct row *host);

/* The best host: the VM's affinity if it passes, else the one with most free memory; with memory
 * checks, then again without them, then NO_HOSTS_AVAILABLE []. */
NODISCARD struct error *placement_choose(struct api_call *c, struct txn *, const struct row *vm, const char **host_ref_r);

#endif
