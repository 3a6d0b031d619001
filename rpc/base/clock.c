#include "rpc/base/clock.h"

#include <time.h>

#include "rpc/base/attributes.h"
#include "rpc/base/check.h"

static int64_t real_mono_us(const struct clock *c)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t real_mono_ms(const struct clock *c) { return real_mono_us(c) / 1000; }

static int64_t real_wall(const struct clock *c)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec;
}

const struct clock clock_real = {
    .mono_ms = real_mono_ms,
    .mono_us = real_mono_us,
    .wall = real_wall,
};

/* A fake may be advanced by one thread and read by others. */
static int64_t fake_mono_us(const struct clock *c)
{
    const struct clock_fake *f = (const struct clock_fake *)c;

    return __atomic_load_n(&f->now_us, __ATOMIC_ACQUIRE);
}

static int64_t fake_mono_ms(const struct clock *c) { return fake_mono_us(c) / 1000; }

static int64_t fake_wall(const struct clock *c)
{
    const struct clock_fake *f = (const struct clock_fake *)c;

    return f->wall_at + fake_mono_us(c) / 1000000;
}

void clock_fake_init(struct clock_fake *f, int64_t wall_at)
{
    *f = (struct clock_fake){
        .clock = { .mono_ms = fake_mono_ms, .mono_us = fake_mono_us, .wall = fake_wall },
        .wall_at = wall_at,
    };
}

void clock_fake_advance_ms(struct clock_fake *f, int64_t ms)
{
    CHECK(ms >= 0);
    __atomic_add_fetch(&f->now_us, ms * 1000, __ATOMIC_RELEASE);
}
