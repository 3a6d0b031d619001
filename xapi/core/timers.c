#include "xapi/core/timers.h"

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

struct job {
    struct job *next;
    int64_t due_ms, period_ms; /* period 0: once */
    void (*fn)(void *);
    void *ctx;
};

struct timers {
    const struct clock *clock;
    struct lock lock;  /* guards all below */
    struct cond moved;
    struct job *jobs;  /* earliest first */
    bool stopping;
    pthread_t thread;
};

static void job_insert(struct timers *t, struct job *job)
{
    struct job **at = &t->jobs;

    while (*at != NULL && (*at)->due_ms <= job->due_ms)
        at = &(*at)->next;
    job->next = *at;
    *at = job;
}

static void job_run(struct timers *t, struct job *job)
{
    lock_drop(&t->lock);
    job->fn(job->ctx);
    lock_take(&t->lock);
    if (job->period_ms == 0) {
        xfree(job);
        return;
    }
    job->due_ms = clock_ms(t->clock) + job->period_ms;
    job_insert(t, job);
}

static void *timers_main(void *arg)
{
    struct timers *t = arg;

    lock_take(&t->lock);
    while (!t->stopping) {
        struct job *job = t->jobs;
        int64_t wait = job != NULL ? job->due_ms - clock_ms(t->clock) : 3600 * 1000;
        if (wait > 0) {
            cond_wait_ms(&t->moved, &t->lock, wait);
            continue;
        }
        t->jobs = job->next;
        job_run(t, job);
    }
    lock_drop(&t->lock);
    return NULL;
}

struct timers *timers_new(const struct clock *clock)
{
    struct timers *t = xcalloc(1, sizeof(*t));

    t->clock = clock;
    lock_init(&t->lock, LOCK_WORK);
    cond_init(&t->moved);
    t->thread = thread_start("timers", timers_main, t);
    return t;
}

static void job_add(struct timers *t, int64_t ms, int64_t period_ms, void (*fn)(void *), void *ctx)
{
    lock_take(&t->lock);
    bool late = t->stopping;
    if (!late) {
        struct job *job = xcalloc(1, sizeof(*job));
        *job = (struct job){ .due_ms = clock_ms(t->clock) + ms, .period_ms = period_ms, .fn = fn, .ctx = ctx };
        job_insert(t, job);
        cond_signal(&t->moved);
    }
    lock_drop(&t->lock);
    if (late && period_ms == 0)
        fn(ctx);
}

void timers_every(struct timers *t, int64_t ms, void (*fn)(void *), void *ctx) { job_add(t, ms, ms, fn, ctx); }
void timers_after(struct timers *t, int64_t ms, void (*fn)(void *), void *ctx) { job_add(t, ms, 0, fn, ctx); }

void timers_stop(struct timers *t)
{
    lock_take(&t->lock);
    bool again = t->stopping;
    t->stopping = true;
    cond_signal(&t->moved);
    lock_drop(&t->lock);
    if (again)
        return;
    pthread_join(t->thread, NULL);
    while (t->jobs != NULL) {
        struct job *job = t->jobs;
        t->jobs = job->next;
        if (job->period_ms == 0)
            job->fn(job->ctx);
        xfree(job);
    }
}

void timers_free(struct timers *t)
{
    if (t == NULL)
        return;
    timers_stop(t);
    cond_release(&t->moved);
    lock_release(&t->lock);
    xfree(t);
}
