/* One thread for what happens every so often and for what happens a little later.
 *
 * Jobs run one after the other on the timer thread; they may take the database but must not wait for
 * peers (post such work to a pool). Time comes from the clock given; the wait is real. */
#ifndef XAPI_CORE_TIMERS_H
#define XAPI_CORE_TIMERS_H

#include <stdint.h>

#include "rpc/base/clock.h"

struct timers;
struct timers *timers_new(const struct clock *);
/* Stops the thread. Delayed jobs that were not due yet run now, periodic ones no more. NULL is fine. */
void timers_free(struct timers *);
/* The same without freeing: from then on timers_after() runs its job at once, in the caller. */
void timers_stop(struct timers *);

/* fn(ctx) every 'ms', first after 'ms'. Never removed but by timers_free. */
void timers_every(struct timers *, int64_t ms, void (*fn)(void *), void *ctx);
/* fn(ctx) once, after 'ms'; always called in the end. */
void timers_after(struct timers *, int64_t ms, void (*fn)(void *), void *ctx);

#endif
