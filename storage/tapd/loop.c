#include "storage/tapd/loop.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <time.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

#define EVENTS_MAX 64
#define IDLE_ROUNDS 4 /* work that makes more work before the descriptors get their turn */

/* What one epoll_wait gave; turns may nest, so there may be several. */
struct batch {
    struct batch *outer;
    struct epoll_event events[EVENTS_MAX];
    int n, at;
};

struct loop {
    const struct clock *clock;
    int epoll;
    bool stopping;
    int64_t now_us;
    struct loop_timer *timers; /* sorted, earliest first */
    struct loop_idle *idle, **idle_last;
    unsigned n_idle;
    struct batch *batch;
};

struct loop *loop_new(const struct clock *clock)
{
    struct loop *l = xcalloc(1, sizeof(*l));

    l->clock = clock;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK(l->epoll >= 0);
    l->idle_last = &l->idle;
    l->now_us = clock_us(clock);
    return l;
}

void loop_free(struct loop *l)
{
    if (l == NULL)
        return;
    fd_close(&l->epoll);
    xfree(l);
}

const struct clock *loop_clock(const struct loop *l) { return l->clock; }
int64_t loop_now_us(const struct loop *l) { return l->now_us; }
void loop_stop(struct loop *l) { l->stopping = true; }

/* --- descriptors ----------------------------------------------------------------------------------- */

void loop_add(struct loop *l, struct loop_fd *f)
{
    struct epoll_event event = { .events = f->events, .data.ptr = f };

    CHECK(epoll_ctl(l->epoll, EPOLL_CTL_ADD, f->fd, &event) == 0);
}

void loop_change(struct loop *l, struct loop_fd *f, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = f };

    if (f->events == events)
        return;
    f->events = events;
    CHECK(epoll_ctl(l->epoll, EPOLL_CTL_MOD, f->fd, &event) == 0);
}

void loop_remove(struct loop *l, struct loop_fd *f)
{
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, f->fd, NULL);
    for (struct batch *b = l->batch; b != NULL; b = b->outer)
        for (int i = b->at; i < b->n; i++)
            if (b->events[i].data.ptr == f)
                b->events[i].data.ptr = NULL;
}

static void run_events(struct loop *l, struct batch *b)
{
    for (b->at = 0; b->at < b->n;) {
        const struct epoll_event *e = &b->events[b->at++];
        struct loop_fd *f = e->data.ptr;
        if (f != NULL)
            f->ready(f, e->events);
    }
}

/* --- timers ---------------------------------------------------------------------------------------- */

void loop_timer_clear(struct loop *l, struct loop_timer *t)
{
    if (t->at_us == 0)
        return;
    for (struct loop_timer **p = &l->timers; *p != NULL; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    t->at_us = 0;
    t->next = NULL;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_us)
{
    struct loop_timer **p = &l->timers;

    loop_timer_clear(l, t);
    t->at_us = at_us > 0 ? at_us : 1;
    while (*p != NULL && (*p)->at_us <= t->at_us)
        p = &(*p)->next;
    t->next = *p;
    *p = t;
}

/* Those that are due now; one that sets itself to the past again waits for the next turn. */
static void run_timers(struct loop *l)
{
    int64_t now = l->now_us;

    for (unsigned n = 0; l->timers != NULL && l->timers->at_us <= now && n < EVENTS_MAX; n++) {
        struct loop_timer *t = l->timers;
        l->timers = t->next;
        t->next = NULL;
        t->at_us = 0;
        t->fired(t);
    }
}

/* --- work before waiting --------------------------------------------------------------------------- */

void loop_later(struct loop *l, struct loop_idle *i)
{
    if (i->queued)
        return;
    i->queued = true;
    i->next = NULL;
    *l->idle_last = i;
    l->idle_last = &i->next;
    l->n_idle++;
}

void loop_not_later(struct loop *l, struct loop_idle *i)
{
    if (!i->queued)
        return;
    for (struct loop_idle **p = &l->idle; *p != NULL; p = &(*p)->next)
        if (*p == i) {
            *p = i->next;
            if (l->idle_last == &i->next)
                l->idle_last = p;
            break;
        }
    i->queued = false;
    i->next = NULL;
    l->n_idle--;
}

/* True when there was any. */
static bool run_idle(struct loop *l)
{
    bool any = l->idle != NULL;

    for (unsigned round = 0; round < IDLE_ROUNDS && l->idle != NULL; round++)
        for (unsigned n = l->n_idle; n > 0 && l->idle != NULL; n--) {
            struct loop_idle *i = l->idle;
            loop_not_later(l, i);
            i->run(i);
        }
    return any;
}

/* --- turning --------------------------------------------------------------------------------------- */

/* How long epoll may wait; NULL: for ever. */
static const struct timespec *wait_time(const struct loop *l, int timeout_ms, struct timespec *t)
{
    int64_t us = timeout_ms < 0 ? INT64_MAX : (int64_t)timeout_ms * 1000;

    if (l->idle != NULL || l->stopping)
        us = 0;
    if (us > 0 && l->timers != NULL) {
        int64_t left = l->timers->at_us - clock_us(l->clock);
        if (left < us)
            us = left > 0 ? left : 0;
    }
    if (us == INT64_MAX)
        return NULL;
    *t = (struct timespec){ .tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 };
    return t;
}

/* patient: waits also after work that was put off; whoever turns the loop by hand may have waited for just that. */
static void turn(struct loop *l, int timeout_ms, bool patient)
{
    struct batch batch = { .outer = l->batch };
    struct timespec t;

    l->now_us = clock_us(l->clock);
    if (run_idle(l) && !patient)
        timeout_ms = 0;
    batch.n = epoll_pwait2(l->epoll, batch.events, EVENTS_MAX, wait_time(l, timeout_ms, &t), NULL);
    CHECK(batch.n >= 0 || errno == EINTR);
    l->now_us = clock_us(l->clock);
    l->batch = &batch;
    run_events(l, &batch);
    l->batch = batch.outer;
    run_timers(l);
}

void loop_turn(struct loop *l, int timeout_ms) { turn(l, timeout_ms, false); }

void loop_run(struct loop *l)
{
    while (!l->stopping)
        turn(l, -1, true);
    l->stopping = false;
}
