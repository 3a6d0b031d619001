/* Who is alive: this host reports to the coordinator, the coordinator watches all hosts.
 *
 * One thread a host. Whenever a domain changes, and every host-heartbeat-interval-ms, it lists this
 * host's domains and reports them with the memory figures: a member over the agent
 * (coordinator.host_state, after coordinator.hello has been accepted), the coordinator's own host
 * in-process. On the coordinator the same thread writes host_metrics.live: false for a host that was
 * silent for host-assumed-dead-interval-ms. After a start of the coordinator every host has a fresh timer.
 *
 * Reports are taken in by one job per host at a time (the newest report wins); it calls vm_reconcile(). */
#ifndef XAPI_POOL_HEARTBEAT_H
#define XAPI_POOL_HEARTBEAT_H

#include "xapi/core/xapi.h"

NODISCARD struct error *heartbeat_start(struct arena *, struct xapi *);
void heartbeat_stop(struct xapi *); /* NULL heartbeat is fine */

/* The watch callback for xenops_open(): ctx is the struct xapi. Any thread, never blocks, and may be
 * called before heartbeat_start and after heartbeat_stop. */
void heartbeat_domain_changed(void *xapi, const char *uuid);

/* True on a member that no coordinator has accepted since it started. */
bool heartbeat_in_emergency(struct xapi *);
/* The code of the error that keeps it so ("HOST_STILL_BOOTING" at first), in the arena. */
const char *heartbeat_emergency_error(struct xapi *, struct arena *);

/* On the coordinator: a host was heard of. domains NULL: only that. Copies; never blocks for long. */
void heartbeat_heard(struct xapi *, const char *host_ref, const struct value *domains, int64_t memory_total, int64_t memory_free);
/* A host started: it counts as live from now. */
void heartbeat_hello(struct xapi *, const char *host_ref);
/* A host says that it goes down: not live until its next hello. */
void heartbeat_shutting_down(struct xapi *, const char *host_ref);
void heartbeat_forget(struct xapi *, const char *host_ref);

#endif
