/* What the vCPUs do: fill memory after a boot, then dirty the working set at the configured rate.
 *
 * Each vCPU owns the pages whose number is its id modulo the number of vCPUs, so that no two threads
 * ever write one page. vCPU 0 also ticks: every millisecond while a live save goes on, seldom
 * otherwise (sixteen idle guests must cost next to nothing). */
#include "xenops/sim/guest/guest.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>

#include "rpc/base/check.h"
#include "rpc/base/work.h"

#define TICK_MS 1
#define BUSY_MS 10 /* between two rounds of stores */
#define IDLE_MS 50
#define THROTTLE_US 10000       /* of each of these, on the clock, a slowed guest stands for its part */
#define LOOK_STORES 16u         /* between two looks at it */
#define FILL_SLICE 2048u        /* pages between two looks at the clock */
#define ELAPSED_MAX_US 100000   /* what was not written in a pause is not caught up */

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void store(struct vcpu *v, uint64_t page)
{
    struct guest_vcpu *s = &v->state;

    ram_store(v->guest, page);
    s->stores++;
    s->registers[s->stores % 16] = guest_mix(s->registers[(s->stores + 1) % 16] ^ page);
    s->rip = 0xffffffff81000000ull + (s->registers[s->stores % 16] & 0xfffff);
    atomic_fetch_add_explicit(&v->guest->control->pages_written, 1, memory_order_relaxed);
}

/* --- time --- */

static void end_when_due(struct guest *g)
{
    const struct { int64_t after_ms; enum guest_end how; } ends[] = {
        { g->settings.crash_after_ms, GUEST_END_CRASH },
        { g->settings.shutdown_after_ms, GUEST_END_POWEROFF },
        { g->settings.reboot_after_ms, GUEST_END_REBOOT },
    };

    for (unsigned i = 0; i < ARRAY_LEN(ends); i++)
        if (ends[i].after_ms > 0 && g->ran_us / 1000 >= ends[i].after_ms)
            guest_end(g, ends[i].how);
}

/* vCPU 0: the guest's own notion of time, which a migration interrupts. */
static void tick(struct guest *g, int64_t now)
{
    int64_t gap = g->last_tick_us > 0 && now > g->last_tick_us ? now - g->last_tick_us : 0;
    bool tracking = atomic_load_explicit(&g->control->tracking, memory_order_relaxed) != 0;

    if (g->keep_tick)
        atomic_store(&g->control->stood_us, (uint64_t)gap);
    if (tracking && !g->tracking && !g->keep_tick)
        atomic_store(&g->control->blackout_us, 0);
    else if ((tracking || g->keep_tick) && (uint64_t)gap > atomic_load(&g->control->blackout_us))
        atomic_store(&g->control->blackout_us, (uint64_t)gap);
    g->ran_us += gap < ELAPSED_MAX_US ? gap : ELAPSED_MAX_US;
    g->tracking = tracking;
    g->keep_tick = false;
    g->last_tick_us = now;
    atomic_fetch_add_explicit(&g->control->ticks, 1, memory_order_relaxed);
    end_when_due(g);
}

/* --- slowed down --- */

/* Until when a slowed guest stands still; 0: it runs now. All vCPUs stand at the same time. */
static int64_t stands_until(const struct guest *g, int64_t now)
{
    uint32_t percent = atomic_load_explicit(&g->control->throttle, memory_order_relaxed);
    int64_t began = now - now % THROTTLE_US, until = began + (int64_t)percent * (THROTTLE_US / 100);

    return percent > 0 && now < until ? until : 0;
}

/* Between two stores: is it to stop? A guest that never rests ticks here. */
static bool is_over(const struct vcpu *v, unsigned *stores)
{
    struct guest *g = v->guest;

    if (gate_closing(&g->gate))
        return true;
    if (++*stores % LOOK_STORES != 0)
        return false;
    int64_t now = clock_us(g->clock);
    if (v->id == 0 && now - g->last_tick_us >= TICK_MS * 1000 && atomic_load_explicit(&g->control->tracking, memory_order_relaxed) != 0)
        tick(g, now);
    return stands_until(g, now) > 0;
}

/* The part of a millisecond that gate_rest cannot wait for is slept away, out of the gate's way. */
static void stand(struct guest *g, int64_t now, int64_t until)
{
    gate_rest(&g->gate, (until - now) / 1000);
    int64_t left = until - clock_us(g->clock);
    const struct timespec rest = { .tv_nsec = (long)left * 1000 };
    if (left > 0 && left < 1000 && !gate_closing(&g->gate))
        (void)ppoll(NULL, 0, &rest, NULL);
}

/* Goes on with the fill of its stripe; true while something is left. */
static bool fill(struct vcpu *v)
{
    struct guest *g = v->guest;
    uint64_t end = smaller(g->settings.fill_pages, atomic_load(&g->control->actual_pages));
    unsigned stores = 0;

    for (unsigned i = 0; i < FILL_SLICE && v->state.fill_next < end && !is_over(v, &stores); i++) {
        store(v, v->state.fill_next);
        v->state.fill_next += g->settings.vcpus;
    }
    return v->state.fill_next < end;
}

static void dirty(struct vcpu *v, int64_t now)
{
    struct guest *g = v->guest;
    uint64_t set = smaller(g->settings.working_set_pages, atomic_load(&g->control->actual_pages));
    uint64_t stripe = set / g->settings.vcpus;
    int64_t elapsed = v->last_us > 0 ? now - v->last_us : 0;
    double most = g->settings.dirty_pages_s / g->settings.vcpus * ELAPSED_MAX_US / 1e6;
    unsigned stores = 0;

    v->last_us = now;
    if (stripe == 0)
        return;
    if (elapsed > ELAPSED_MAX_US)
        elapsed = ELAPSED_MAX_US;
    elapsed = elapsed * (100 - (int64_t)atomic_load_explicit(&g->control->throttle, memory_order_relaxed)) / 100;
    v->owed += g->settings.dirty_pages_s / g->settings.vcpus * (double)elapsed / 1e6;
    v->owed = v->owed > most + 1 ? most + 1 : v->owed; /* nor is what it could not do in time */
    while (v->owed >= 1 && !is_over(v, &stores)) {
        v->owed -= 1;
        store(v, guest_random(&v->state.rng) % stripe * g->settings.vcpus + v->id);
    }
}

static int64_t rest_of(const struct guest *g, bool ticks)
{
    if (ticks && atomic_load_explicit(&g->control->tracking, memory_order_relaxed) != 0)
        return TICK_MS;
    return g->settings.dirty_pages_s > 0 ? BUSY_MS : IDLE_MS;
}

static void *vcpu_run(void *arg)
{
    struct vcpu *v = arg;
    struct guest *g = v->guest;

    while (gate_enter(&g->gate, &g->stop)) {
        int64_t now = clock_us(g->clock), until = stands_until(g, now);
        if (until > 0) {
            stand(g, now, until);
            continue;
        }
        if (v->id == 0)
            tick(g, now);
        bool more = fill(v);
        if (!more)
            dirty(v, now);
        gate_rest(&g->gate, more ? 0 : rest_of(g, v->id == 0));
    }
    return NULL;
}

void vcpus_boot(struct guest *g)
{
    CHECK(getrandom(&g->boot, sizeof(g->boot), 0) == sizeof(g->boot));
    g->boot |= 1;
    for (unsigned i = 0; i < g->settings.vcpus; i++) {
        struct vcpu *v = &g->vcpus[i];
        v->state = (struct guest_vcpu){ .rflags = 2, .rng = guest_mix(g->boot + i), .fill_next = i };
        v->last_us = 0;
        v->owed = 0;
    }
    g->last_tick_us = 0;
    g->ran_us = 0;
}

void vcpus_start(struct guest *g)
{
    for (unsigned i = 0; i < g->settings.vcpus; i++) {
        g->vcpus[i].guest = g;
        g->vcpus[i].id = i;
        g->vcpus[i].thread = thread_start("vcpu", vcpu_run, &g->vcpus[i]);
    }
}
