/* Deadlines of many connections: a binary heap that is lazy about deadlines that move back.
 *
 * Setting a later deadline costs nothing: the entry stays where it is and is put right when it comes
 * up. So the idle deadline of a busy connection is moved with every request for free. */
#ifndef RPC_HTTP_TIMER_H
#define RPC_HTTP_TIMER_H

#include <stddef.h>
#include <stdint.h>

#define TIMER_NEVER INT64_MAX

struct timer {
    int64_t at;     /* the deadline; TIMER_NEVER: none */
    int64_t key;    /* where the heap has it: key <= at */
    size_t position; /* 1 + index in the heap; 0: not in it */
};
struct timer_heap { struct timer **entries; size_t n, cap; };

void timer_set(struct timer_heap *, struct timer *, int64_t at);
void timer_remove(struct timer_heap *, struct timer *);
/* A timer whose deadline is not after 'now', disarmed; NULL: none. */
struct timer *timer_expired(struct timer_heap *, int64_t now);
/* No deadline comes before this. TIMER_NEVER: none at all. */
int64_t timer_next(const struct timer_heap *);
void timer_heap_release(struct timer_heap *);

#endif
