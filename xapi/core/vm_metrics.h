/* VM_metrics, VM_guest_metrics and consoles: what a running domain tells about itself, as rows. */
#ifndef XAPI_CORE_VM_METRICS_H
#define XAPI_CORE_VM_METRICS_H

#include "xapi/core/api_call.h"

/* The VM's metrics row, made if it has none. */
NODISCARD struct error *vm_metrics_ensure(struct api_call *c, struct txn *, const char *vm_ref, const char **metrics_ref_r);
/* At start: start_time, current_domain_type, and nomigrate / nested_virt sampled from the platform. */
NODISCARD struct error *vm_metrics_started(struct api_call *c, struct txn *, const char *vm_ref, int64_t started_at);
/* From a host's report of the domain: memory_actual, and the guest's own data (drivers, features, os,
 * networks) in VM_guest_metrics, made on first use. domain: a map as in vm_state.h. */
NODISCARD struct error *vm_metrics_report(struct api_call *c, struct txn *, const char *vm_ref, const struct value *domain);
/* One rfb console of a VM that runs; none of one that is halted. */
NODISCARD struct error *vm_consoles_make(struct api_call *c, struct txn *, const char *vm_ref, const char *host_ref);
NODISCARD struct error *vm_consoles_remove(struct txn *, const char *vm_ref);

#endif
