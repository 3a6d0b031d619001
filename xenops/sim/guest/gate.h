/* The gate between a guest's threads and the one who stops them all.
 *
 * A thread works only between gate_enter and gate_rest. gate_close returns when nobody works any more:
 * every thread then stands between two pages (or two disk blocks). */
#ifndef XENOPS_SIM_GUEST_GATE_H
#define XENOPS_SIM_GUEST_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/lock.h"

struct gate {
    struct lock lock;
    struct cond changed; /* opened, closed, or somebody is to look at its stop flag */
    struct cond empty;
    atomic_bool open;
    unsigned working;
};

void gate_init(struct gate *);
/* Waits until the gate is open. False when *stop was raised (then the thread does not count as working). */
bool gate_enter(struct gate *, const atomic_bool *stop);
/* Ends the work and waits at most ms, less when the gate changes. */
void gate_rest(struct gate *, int64_t ms);
/* While working: true when the thread should come to gate_rest soon. */
static inline bool gate_closing(const struct gate *g) { return !atomic_load_explicit(&g->open, memory_order_relaxed); }

void gate_open(struct gate *);
void gate_close(struct gate *);
bool gate_close_within(struct gate *, int64_t ms); /* false: somebody still works, but nobody begins */
void gate_wake(struct gate *); /* after a stop flag was raised */

#endif
