#include "rpc/base/work.h"

#include "rpc/base/check.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/thread.h"

LOG_MODULE(work);

#define IDLE_MS 10000

struct item {
    struct item *next;
    void (*fn)(void *);
    void *arg;
};

struct work_pool {
    char *name;
    unsigned max_threads, max_queued;

    struct lock lock;   /* guards all below */
    struct cond posted; /* an item for an idle thread, or the end */
    struct cond ended;  /* n_threads became 0 */
    struct item *first, **last_next;
    unsigned n_queued, n_running; /* items */
    unsigned n_threads, n_idle;
    bool ending;
    bool has_leaver; /* the thread that ended last is not joined yet: the next one, or the end, does it */
    pthread_t leaver;
};

struct work_pool *work_pool_new(const char *name, unsigned max_threads, unsigned max_queued)
{
    struct work_pool *p = xcalloc(1, sizeof(*p));

    CHECK(max_threads > 0);
    p->name = xstrdup(name);
    p->max_threads = max_threads;
    p->max_queued = max_queued;
    p->last_next = &p->first;
    lock_init(&p->lock, LOCK_WORK);
    cond_init(&p->posted);
    cond_init(&p->ended);
    return p;
}

static struct item *item_pop(struct work_pool *p)
{
    struct item *item = p->first;

    p->first = item->next;
    if (p->first == NULL)
        p->last_next = &p->first;
    p->n_queued--;
    return item;
}

/* The next item, or NULL when this thread shall end. Lock held. */
static struct item *item_wait(struct work_pool *p)
{
    bool in_time = true;

    while (p->first == NULL && !p->ending && in_time) {
        p->n_idle++;
        in_time = cond_wait_ms(&p->posted, &p->lock, IDLE_MS);
        p->n_idle--;
    }
    return p->first != NULL ? item_pop(p) : NULL;
}

static void item_run(struct work_pool *p, struct item *item)
{
    p->n_running++;
    lock_drop(&p->lock);
    item->fn(item->arg);
    xfree(item);
    lock_take(&p->lock);
    p->n_running--;
}

static void *worker(void *arg)
{
    struct work_pool *p = arg;
    struct item *item;

    lock_take(&p->lock);
    while ((item = item_wait(p)) != NULL)
        item_run(p, item);
    bool join = p->has_leaver;
    pthread_t previous = p->leaver;
    p->has_leaver = true;
    p->leaver = pthread_self();
    if (--p->n_threads == 0)
        cond_signal(&p->ended);
    lock_drop(&p->lock);
    if (join)
        pthread_join(previous, NULL); /* it holds nothing any more and ends at once */
    return NULL;
}

/* Lock held. False when there is no thread at all to do the work. */
static bool threads_suffice(struct work_pool *p)
{
    pthread_t thread;

    if (p->n_queued <= p->n_idle || p->n_threads == p->max_threads)
        return true;
    int rc = thread_try_start(p->name, worker, p, &thread);
    if (rc == 0)
        p->n_threads++;
    else
        log_warn_rl("pool %s: cannot start a thread beside %u: error %d", p->name, p->n_threads, -rc);
    return p->n_threads > 0;
}

bool work_pool_post(struct work_pool *p, void (*fn)(void *), void *arg)
{
    LOCK_SCOPE(&p->lock);
    if (p->ending || p->n_queued + p->n_running >= p->max_threads + p->max_queued)
        return false;
    struct item *item = xcalloc(1, sizeof(*item));
    struct item **place = p->last_next;
    *item = (struct item){ .fn = fn, .arg = arg };
    *place = item;
    p->last_next = &item->next;
    p->n_queued++;
    if (!threads_suffice(p)) { /* then nothing else was queued either */
        xfree(item_pop(p));
        return false;
    }
    cond_signal(&p->posted);
    return true;
}

void work_pool_free(struct work_pool *p)
{
    if (p == NULL)
        return;
    lock_take(&p->lock);
    p->ending = true;
    cond_broadcast(&p->posted);
    while (p->n_threads > 0)
        cond_wait(&p->ended, &p->lock);
    bool join = p->has_leaver;
    lock_drop(&p->lock);
    if (join)
        pthread_join(p->leaver, NULL);
    cond_release(&p->posted);
    cond_release(&p->ended);
    lock_release(&p->lock);
    xfree(p->name);
    xfree(p);
}

unsigned work_pool_busy(struct work_pool *p)
{
    LOCK_SCOPE(&p->lock);
    return p->n_queued + p->n_running;
}
