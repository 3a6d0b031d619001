/* How much memory a VM may have, needs and has: limits, overhead, and what is left on a host. */
#ifndef XAPI_CORE_VM_MEMORY_H
#define XAPI_CORE_VM_MEMORY_H

#include "xapi/core/api_call.h"

/* Bytes. */
struct vm_memory { int64_t static_min, dynamic_min, dynamic_max, static_max; };

/* The row's limits as they stand. */
struct vm_memory vm_memory_of(const struct row *vm);
/* static_min <= dynamic_min <= dynamic_max <= static_max */
bool vm_memory_in_order(const struct vm_memory *);
/* Moves the dynamic limits in between the static ones; false when that gives no order. */
bool vm_memory_coerce(struct vm_memory *);

/* What the hypervisor needs besides the guest's own: page tables and emulation. */
int64_t vm_memory_overhead(const struct row *vm);
int64_t vm_memory_overhead_for(bool paging /* not "pv" */, int64_t static_max, int64_t vcpus_max, double shadow_multiplier);
/* Writes memory_overhead of the row anew: after anything that vm_memory_overhead() reads has changed. */
NODISCARD struct error *vm_memory_overhead_update(struct txn *, const char *vm_ref);

/* What a VM needs on a host at least (others can be ballooned down): dynamic minimum plus overhead. */
int64_t vm_memory_needed(const struct row *vm);
/* Free memory of a host, counting what is resident on or scheduled to be on it, from the database;
 * 'except' (a VM's ref, or NULL) is not counted. May be negative. */
int64_t host_memory_free(struct txn *, const struct row *host, const char *except);

#endif
