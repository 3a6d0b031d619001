/* Time is an argument: code that needs it takes a struct clock. One real clock, and fakes in tests. */
#ifndef RPC_BASE_CLOCK_H
#define RPC_BASE_CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*mono_ms)(const struct clock *); /* milliseconds, never goes back */
    int64_t (*mono_us)(const struct clock *);
    int64_t (*wall)(const struct clock *);    /* seconds since the epoch, UTC */
};

extern const struct clock clock_real;

static inline int64_t clock_ms(const struct clock *c) { return c->mono_ms(c); }
static inline int64_t clock_us(const struct clock *c) { return c->mono_us(c); }
static inline int64_t clock_wall(const struct clock *c) { return c->wall(c); }

/* A clock that stands still until told; for tests. */
struct clock_fake {
    struct clock clock; /* first member */
    int64_t now_us;     /* mono */
    int64_t wall_at;    /* wall seconds at now_us == 0 */
};
void clock_fake_init(struct clock_fake *, int64_t wall_at);
void clock_fake_advance_ms(struct clock_fake *, int64_t ms);

#endif
