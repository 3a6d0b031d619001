#include "xapi/core/task_table.h"

#include <stdlib.h>
#include <string.h>

#include "db/index.h"
#include "rpc/base/call.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xapi/core/xapi.h"

LOG_MODULE(task);

#define BUCKETS 256u

struct doomed { struct doomed *next; char *ref; };

struct tasks {
    struct xapi *xapi;
    struct lock lock; /* guards all below */
    struct running_task *buckets[BUCKETS];
    struct doomed *doomed; /* ended, to be removed by the next task_gc */
    uint64_t gc_generation; /* of the database at the last task_gc */
    bool stopping;
};

struct tasks *tasks_new(struct xapi *xapi)
{
    struct tasks *t = xcalloc(1, sizeof(*t));

    t->xapi = xapi;
    lock_init(&t->lock, LOCK_TASK);
    return t;
}

static void running_free(struct running_task *r)
{
    cancel_unref(r->cancel);
    xfree(r->ref);
    xfree(r);
}

void tasks_free(struct tasks *t)
{
    if (t == NULL)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (t->buckets[i] != NULL) {
            struct running_task *r = t->buckets[i];
            t->buckets[i] = r->next;
            running_free(r);
        }
    }
    while (t->doomed != NULL) {
        struct doomed *d = t->doomed;
        t->doomed = d->next;
        xfree(d->ref);
        xfree(d);
    }
    lock_release(&t->lock);
    xfree(t);
}

static struct running_task **find_locked(struct tasks *t, const char *ref)
{
    struct running_task **at = &t->buckets[index_hash(ref, strlen(ref)) % BUCKETS];

    while (*at != NULL && strcmp((*at)->ref, ref) != 0)
        at = &(*at)->next;
    return at;
}

struct running_task *running_add(struct tasks *t, const char *ref)
{
    struct running_task *r = xcalloc(1, sizeof(*r));

    r->ref = xstrdup(ref);
    r->cancel = cancel_new();
    lock_take(&t->lock);
    struct running_task **at = find_locked(t, ref);
    r->next = *at;
    *at = r;
    if (t->stopping)
        cancel_raise(r->cancel);
    lock_drop(&t->lock);
    return r;
}

void tasks_cancel_all(struct tasks *t)
{
    LOCK_SCOPE(&t->lock);

    t->stopping = true;
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct running_task *r = t->buckets[i]; r != NULL; r = r->next)
            cancel_raise(r->cancel);
}

struct cancel *running_cancel(struct running_task *r) { return r->cancel; }

void running_remove(struct tasks *t, const char *ref)
{
    lock_take(&t->lock);
    struct running_task **at = find_locked(t, ref), *r = *at;
    if (r != NULL) {
        *at = r->next;
        if (r->doomed) {
            struct doomed *d = xcalloc(1, sizeof(*d));
            *d = (struct doomed){ .next = t->doomed, .ref = xstrdup(ref) };
            t->doomed = d;
        }
    }
    lock_drop(&t->lock);
    if (r != NULL)
        running_free(r);
}

bool running_exists(struct tasks *t, const char *ref)
{
    LOCK_SCOPE(&t->lock);

    return *find_locked(t, ref) != NULL;
}

bool running_doom(struct tasks *t, const char *ref)
{
    LOCK_SCOPE(&t->lock);
    struct running_task *r = *find_locked(t, ref);

    if (r != NULL)
        r->doomed = true;
    return r != NULL;
}

bool task_cancel_running(struct tasks *t, const char *ref)
{
    struct cancel *cancel = NULL;

    lock_take(&t->lock);
    struct running_task *r = *find_locked(t, ref);
    if (r != NULL)
        cancel = cancel_ref(r->cancel);
    lock_drop(&t->lock);
    if (cancel == NULL)
        return false;
    cancel_raise(cancel);
    cancel_unref(cancel);
    return true;
}

/* --- progress -------------------------------------------------------------------------------------------- */

struct news { const char *ref; double progress; struct news *next; };

static struct news *news_collect(struct tasks *t, struct arena *a)
{
    struct news *news = NULL;
    LOCK_SCOPE(&t->lock);

    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct running_task *r = t->buckets[i]; r != NULL; r = r->next) {
            int64_t now = atomic_load(&r->progress);
            if (now == r->written)
                continue;
            r->written = now;
            struct news *n = arena_alloc(a, sizeof(*n));
            *n = (struct news){ .ref = arena_strdup(a, r->ref), .progress = (double)now / 1e6, .next = news };
            news = n;
        }
    }
    return news;
}

/* The task may have ended since: then its row is left alone. */
static struct error *news_write(struct txn *txn, const struct news *n)
{
    const struct row *row = txn_get(txn, &model_classes[CLASS_task], n->ref);

    if (row == NULL || strcmp(row_string(row, F_task_status), "pending") != 0)
        return NULL;
    return txn_set_float(txn, CLASS_task, n->ref, F_task_progress, n->progress);
}

static struct error *news_write_all(struct xapi *xapi, struct arena *a, const struct news *news)
{
    AUTO_TXN txn = txn_begin(xapi->db, a);

    for (; news != NULL; news = news->next)
        TRY(news_write(txn, news));
    return txn_commit(txn, NULL);
}

void task_flush(struct xapi *xapi)
{
    AUTO_ARENA a = arena_new();
    const struct news *news = news_collect(xapi->tasks, a);
    struct error *e = news != NULL ? news_write_all(xapi, a, news) : NULL;

    if (e != NULL)
        log_warn_rl("progress of tasks: %s", error_text(a, e));
}

/* --- garbage ------------------------------------------------------------------------------------------------ */

static bool is_pending(const struct row *row)
{
    return strcmp(row_string(row, F_task_status), "pending") == 0;
}

/* Old enough to go whatever else there is? */
static bool is_old(struct xapi *xapi, const struct row *row, int64_t now, uint64_t last_generation)
{
    if (!is_pending(row))
        return now - row_int(row, F_task_finished) > config_int(xapi->config, "completed_task_timeout");
    return now - row_int(row, F_task_created) > config_int(xapi->config, "pending_task_timeout") &&
           row->generation <= last_generation && !running_exists(xapi->tasks, row->ref);
}

static int by_finish(const void *a, const void *b)
{
    const struct row *x = *(const struct row *const *)a, *y = *(const struct row *const *)b;
    int64_t fx = row_int(x, F_task_finished), fy = row_int(y, F_task_finished);

    return fx != fy ? (fx > fy) - (fx < fy) : (x->generation > y->generation) - (x->generation < y->generation);
}

/* The finished ones above the limit, oldest first, move to the front of 'rows'. */
static unsigned surplus(struct xapi *xapi, const struct row **rows, unsigned n)
{
    unsigned max = (unsigned)config_int(xapi->config, "tasks-limit"), finished = 0;

    for (unsigned i = 0; i < n; i++)
        if (!is_pending(rows[i]))
            rows[finished++] = rows[i];
    if (finished > 0)
        qsort(rows, finished, sizeof(*rows), by_finish);
    unsigned over = n > max ? n - max : 0;
    return over < finished ? over : finished;
}

static struct doomed *doomed_take(struct tasks *t, uint64_t *generation, uint64_t now)
{
    LOCK_SCOPE(&t->lock);
    struct doomed *d = t->doomed;

    t->doomed = NULL;
    *generation = t->gc_generation;
    t->gc_generation = now;
    return d;
}

static void remove_row(struct xapi *xapi, struct arena *a, const char *ref)
{
    struct error *e = db_delete(xapi->db, a, CLASS_task, ref);

    if (e != NULL && !error_is(e, "HANDLE_INVALID"))
        log_warn_rl("task %s stays: %s", ref, error_text(a, e));
}

void task_gc(struct xapi *xapi, int64_t now)
{
    AUTO_ARENA a = arena_new();
    uint64_t last;
    struct doomed *doomed = doomed_take(xapi->tasks, &last, db_generation(xapi->db));

    while (doomed != NULL) {
        struct doomed *d = doomed;
        doomed = d->next;
        remove_row(xapi, a, d->ref);
        xfree(d->ref);
        xfree(d);
    }
    struct row_list all = db_all(xapi->db, a, &model_classes[CLASS_task]);
    const struct row **kept = arena_calloc(a, all.n + 1u, sizeof(*kept));
    unsigned n = 0;
    for (unsigned i = 0; i < all.n; i++) {
        if (is_old(xapi, all.rows[i], now, last))
            remove_row(xapi, a, all.rows[i]->ref);
        else
            kept[n++] = all.rows[i];
    }
    unsigned over = surplus(xapi, kept, n);
    for (unsigned i = 0; i < over; i++)
        remove_row(xapi, a, kept[i]->ref);
}
