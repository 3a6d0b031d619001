/* Clearing up SRs in the background: one thread, one SR at a time, a step of its driver at a time.
 *
 * Verbs that may leave something behind put their SR on the list; it is taken up some seconds later, so that a burst
 * of them is cleared up once. A verb that has to wait for a step cancels it; the step is done again after it. */
#include <pthread.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/call.h"
#include "rpc/base/check.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "storage/sr_table.h"

LOG_MODULE(clean);

#define CLEAN_AFTER_MS 5000

struct cleaning {
    struct cleaning *next;
    char *sr;
    int64_t due_ms;       /* 0: nothing to do */
    uint64_t asked, done; /* sr_clean calls; done: the last one that a whole run has answered */
    bool running;
    struct arena *arena;  /* of the last run's error */
    struct error *error;
};
struct cleaner {
    struct cleaning *list;
    struct cancel *cancel; /* of the step that runs, else NULL */
    pthread_t thread;
    bool stopping;
};

static int64_t now_ms(void) { return clock_ms(&clock_real); }

static void cleaning_free(struct cleaning *g)
{
    arena_free(g->arena);
    xfree(g->sr);
    xfree(g);
}

/* --- one run --------------------------------------------------------------------------------------------- */
static struct error *run_step(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->sr_clean == NULL ? NULL : sr->driver->sr_clean(c, sr, v->more);
}

static bool stopping(struct storage *s)
{
    LOCK_SCOPE(&s->lock);
    return s->cleaner->stopping;
}

/* cancelled_r: somebody needs the SR's turn, or the daemon stops. */
static struct error *step(struct storage *s, const char *sr, struct arena *a, bool *more_r, bool *cancelled_r)
{
    struct cancel *cancel = cancel_new();
    struct call c = { .arena = a, .clock = &clock_real, .cancel = cancel, .id = "clean" };
    struct verb verb = { .name = "clean", .kind = TURN_CLEAN, .run = run_step, .location = "", .more = more_r, .cancel = cancel };
    struct call *outer = call_enter(&c);

    lock_take(&s->lock);
    s->cleaner->cancel = cancel;
    if (s->cleaner->stopping)
        cancel_raise(cancel);
    lock_drop(&s->lock);
    *more_r = false;
    struct error *error = verb_run(&c, s, sr, &verb);
    lock_take(&s->lock);
    s->cleaner->cancel = NULL;
    lock_drop(&s->lock);
    *cancelled_r = cancel_raised(cancel);
    call_enter(outer);
    cancel_unref(cancel);
    return error;
}

static struct error *run(struct storage *s, const char *sr, struct arena *a)
{
    bool more, cancelled;
    struct error *error;

    do {
        error = step(s, sr, a, &more, &cancelled);
        if (cancelled && error_is(error, "TASK_CANCELLED")) {
            error = NULL;
            more = true;
        }
    } while (error == NULL && more && !stopping(s));
    return error;
}

/* --- the thread -------------------------------------------------------------------------------------------- */
static struct cleaning *due_locked(const struct cleaner *k, int64_t *wait_ms_r)
{
    struct cleaning *first = NULL;

    for (struct cleaning *g = k->list; g != NULL; g = g->next)
        if (g->due_ms != 0 && (first == NULL || g->due_ms < first->due_ms))
            first = g;
    *wait_ms_r = first != NULL ? first->due_ms - now_ms() : -1;
    return first != NULL && *wait_ms_r <= 0 ? first : NULL;
}

static void run_locked(struct storage *s, struct cleaning *g)
{
    struct arena *a = arena_new(), *old = g->arena;
    uint64_t asked = g->asked;

    g->due_ms = 0;
    g->running = true;
    lock_drop(&s->lock);
    struct error *error = run(s, g->sr, a);
    if (error != NULL && !error_is(error, "SR_NOT_ATTACHED"))
        log_warn("SR %s: %s", g->sr, error_text(a, error));
    lock_take(&s->lock);
    g->running = false;
    g->done = asked;
    g->arena = a;
    g->error = error;
    cond_broadcast(&s->changed);
    arena_free(old);
}

static void *clean_run(void *arg)
{
    struct storage *s = arg;
    struct cleaner *k = s->cleaner;

    LOCK_SCOPE(&s->lock);
    while (!k->stopping) {
        int64_t wait_ms;
        struct cleaning *g = due_locked(k, &wait_ms);

        if (g != NULL)
            run_locked(s, g);
        else if (wait_ms < 0)
            cond_wait(&s->changed, &s->lock);
        else
            (void)cond_wait_ms(&s->changed, &s->lock, wait_ms);
    }
    return NULL;
}

/* --- the list ------------------------------------------------------------------------------------------------ */
static struct cleaning *cleaning_locked(struct storage *s, const char *sr)
{
    if (s->cleaner == NULL) {
        s->cleaner = xcalloc(1, sizeof(*s->cleaner));
        s->cleaner->thread = thread_start("sr-clean", clean_run, s);
    }
    for (struct cleaning *g = s->cleaner->list; g != NULL; g = g->next)
        if (strcmp(g->sr, sr) == 0)
            return g;
    struct cleaning *g = xcalloc(1, sizeof(*g));
    g->sr = xstrdup(sr);
    g->next = s->cleaner->list;
    s->cleaner->list = g;
    return g;
}

static bool can_clean(struct storage *s, const char *sr)
{
    struct attached *a = attached_use(s, sr);
    bool can = a != NULL && a->sr.driver->sr_clean != NULL;

    if (a != NULL)
        attached_leave(s, a);
    return can;
}

void cleaner_note(struct storage *s, const char *sr)
{
    if (!can_clean(s, sr))
        return;
    LOCK_SCOPE(&s->lock);
    struct cleaning *g = cleaning_locked(s, sr);

    if (g->due_ms == 0)
        g->due_ms = now_ms() + CLEAN_AFTER_MS;
    cond_broadcast(&s->changed);
}

void cleaner_forget(struct storage *s, const char *sr)
{
    LOCK_SCOPE(&s->lock);
    for (struct cleaning *g = s->cleaner != NULL ? s->cleaner->list : NULL; g != NULL; g = g->next)
        if (strcmp(g->sr, sr) == 0 && g->asked == g->done)
            g->due_ms = 0;
}

struct error *sr_clean(struct call *c, struct storage *s, const char *sr)
{
    if (!sr_is_attached(s, sr))
        return err_sr_not_attached(c->arena, sr);
    if (!can_clean(s, sr))
        return NULL;
    LOCK_SCOPE(&s->lock);
    struct cleaning *g = cleaning_locked(s, sr);
    uint64_t mine = ++g->asked;

    g->due_ms = now_ms();
    cond_broadcast(&s->changed);
    while (g->done < mine) {
        if (call_cancelled(c) || s->cleaner->stopping)
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        (void)cond_wait_ms(&s->changed, &s->lock, 200);
    }
    return error_dup(c->arena, g->error);
}

void cleaner_free(struct storage *s)
{
    struct cleaner *k = s->cleaner;

    if (k == NULL)
        return;
    lock_take(&s->lock);
    k->stopping = true;
    if (k->cancel != NULL)
        cancel_raise(k->cancel);
    cond_broadcast(&s->changed);
    lock_drop(&s->lock);
    CHECK(pthread_join(k->thread, NULL) == 0);
    while (k->list != NULL) {
        struct cleaning *g = k->list;

        k->list = g->next;
        cleaning_free(g);
    }
    xfree(k);
    s->cleaner = NULL;
}
