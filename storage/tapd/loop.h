/* The event loop of tapd: descriptors, timers, work for the next turn. One per process, one thread.
 *
 * Callbacks run on the loop's thread and must not block. Nothing here allocates after loop_add/loop_timer. */
#ifndef STORAGE_TAPD_LOOP_H
#define STORAGE_TAPD_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/clock.h"

struct loop;
struct loop *loop_new(const struct clock *);
void loop_free(struct loop *);
void loop_run(struct loop *);  /* until loop_stop */
void loop_stop(struct loop *);
/* One turn, waiting at most timeout_ms (-1: for ever; not at all when put-off work ran in it); for tests, for draining, and inside a callback that has to
 * wait (then callbacks come inside callbacks: whoever turns the loop must expect its own). */
void loop_turn(struct loop *, int timeout_ms);
const struct clock *loop_clock(const struct loop *);
int64_t loop_now_us(const struct loop *); /* monotonic, as of this turn's start */

/* A descriptor that is watched: embed it. events: EPOLLIN | EPOLLOUT …, level-triggered. */
struct loop_fd {
    int fd;
    void (*ready)(struct loop_fd *, uint32_t events);
    uint32_t events;
};
void loop_add(struct loop *, struct loop_fd *);
void loop_change(struct loop *, struct loop_fd *, uint32_t events);
void loop_remove(struct loop *, struct loop_fd *); /* safe inside callbacks; it is not called again */

struct loop_timer {
    void (*fired)(struct loop_timer *);
    int64_t at_us;              /* monotonic; 0: not set */
    struct loop_timer *next;
};
void loop_timer_set(struct loop *, struct loop_timer *, int64_t at_us); /* replaces */
void loop_timer_clear(struct loop *, struct loop_timer *);

/* Runs once before the loop next waits; setting it twice is once. */
struct loop_idle { void (*run)(struct loop_idle *); struct loop_idle *next; bool queued; };
void loop_later(struct loop *, struct loop_idle *);
void loop_not_later(struct loop *, struct loop_idle *);

#endif
