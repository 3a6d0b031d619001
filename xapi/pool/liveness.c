#include "xapi/pool/liveness.h"

#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_state.h"

LOG_MODULE(liveness);

/* A report that waits; owns its arena. */
struct report { struct arena *arena; struct value domains; int64_t memory_total, memory_free; };

struct entry {
    struct entry *next;
    struct liveness *table;
    char *host_ref;
    int64_t heard_ms;
    bool down;            /* said that it goes down, or was never up */
    bool working, gone;   /* a job runs; forgotten meanwhile */
    struct report *waiting; /* newest, or NULL */
};

struct liveness {
    struct xapi *xapi;
    struct lock lock;
    struct entry *entries;
    struct work_pool *jobs;
};

struct liveness *liveness_new(struct xapi *xapi)
{
    struct liveness *l = xcalloc(1, sizeof(*l));

    l->xapi = xapi;
    lock_init(&l->lock, LOCK_POOL);
    l->jobs = work_pool_new("reports", 16, 1024);
    return l;
}

static void report_free(struct report *r)
{
    if (r == NULL)
        return;
    arena_free(r->arena);
    xfree(r);
}

static void entry_free(struct entry *e)
{
    report_free(e->waiting);
    xfree(e->host_ref);
    xfree(e);
}

void liveness_free(struct liveness *l)
{
    if (l == NULL)
        return;
    work_pool_free(l->jobs);
    while (l->entries != NULL) {
        struct entry *e = l->entries;

        l->entries = e->next;
        entry_free(e);
    }
    lock_release(&l->lock);
    xfree(l);
}

static struct entry *entry_locked(struct liveness *l, const char *host_ref)
{
    struct entry *e;

    for (e = l->entries; e != NULL; e = e->next)
        if (strcmp(e->host_ref, host_ref) == 0)
            return e;
    e = xcalloc(1, sizeof(*e));
    e->table = l;
    e->host_ref = xstrdup(host_ref);
    e->heard_ms = clock_ms(l->xapi->clock);
    e->next = l->entries;
    l->entries = e;
    return e;
}

/* --- taking a report in -------------------------------------------------------------------------------- */
static struct error *metrics_write(struct api_call *c, const char *host_ref, const struct report *r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host = txn_get(txn, &model_classes[CLASS_host], host_ref);
    const char *metrics = host == NULL ? NULL : row_string(host, F_host_metrics);

    if (metrics == NULL || txn_get(txn, &model_classes[CLASS_host_metrics], metrics) == NULL)
        return NULL;
    TRY(txn_set_int(txn, CLASS_host_metrics, metrics, F_host_metrics_memory_total, r->memory_total));
    TRY(txn_set_int(txn, CLASS_host_metrics, metrics, F_host_metrics_memory_free, r->memory_free));
    TRY(txn_set(txn, CLASS_host_metrics, metrics, F_host_metrics_last_updated, value_datetime(clock_wall(c->xapi->clock))));
    return txn_commit(txn, NULL);
}

static void report_take_in(struct xapi *xapi, const char *host_ref, const struct report *r)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    struct error *error;

    internal_call_init(&c, xapi, arena, "host report");
    error = metrics_write(&c, host_ref, r);
    if (error != NULL)
        log_warn("metrics of %s: %s", host_ref, error_text(arena, error));
    if (r->domains.kind == VALUE_SET)
        vm_reconcile(xapi, host_ref, &r->domains);
}

static void job(void *arg)
{
    struct entry *e = arg;
    struct liveness *l = e->table;
    bool gone;

    for (;;) {
        struct report *r;

        lock_take(&l->lock);
        r = e->gone ? NULL : e->waiting;
        gone = e->gone;
        if (r != NULL)
            e->waiting = NULL;
        else
            e->working = false;
        lock_drop(&l->lock);
        if (r == NULL)
            break;
        report_take_in(l->xapi, e->host_ref, r);
        report_free(r);
    }
    if (gone)
        entry_free(e);
}

void liveness_heard(struct liveness *l, const char *host_ref, const struct value *domains, int64_t memory_total, int64_t memory_free)
{
    struct report *r = NULL, *old = NULL;

    if (domains != NULL) {
        r = xcalloc(1, sizeof(*r));
        r->arena = arena_new();
        r->domains = value_dup(r->arena, domains);
        r->memory_total = memory_total;
        r->memory_free = memory_free;
    }
    lock_take(&l->lock);
    struct entry *e = entry_locked(l, host_ref);
    e->heard_ms = clock_ms(l->xapi->clock);
    if (r != NULL) {
        old = e->waiting;
        e->waiting = r;
        if (!e->working)
            e->working = work_pool_post(l->jobs, job, e);
    }
    lock_drop(&l->lock);
    report_free(old);
}

void liveness_down(struct liveness *l, const char *host_ref)
{
    LOCK_SCOPE(&l->lock);
    entry_locked(l, host_ref)->down = true;
}

void liveness_up(struct liveness *l, const char *host_ref)
{
    LOCK_SCOPE(&l->lock);
    struct entry *e = entry_locked(l, host_ref);

    e->down = false;
    e->heard_ms = clock_ms(l->xapi->clock);
}

void liveness_forget(struct liveness *l, const char *host_ref)
{
    struct entry *gone = NULL;

    lock_take(&l->lock);
    for (struct entry **at = &l->entries; *at != NULL; at = &(*at)->next)
        if (strcmp((*at)->host_ref, host_ref) == 0) {
            gone = *at;
            *at = gone->next;
            gone->gone = true;
            if (gone->working)
                gone = NULL; /* its job frees it */
            break;
        }
    lock_drop(&l->lock);
    if (gone != NULL)
        entry_free(gone);
}

/* --- who is live --------------------------------------------------------------------------------------------- */
static bool is_live(struct liveness *l, const char *host_ref, int64_t dead_ms)
{
    LOCK_SCOPE(&l->lock);
    struct entry *e = entry_locked(l, host_ref);

    return !e->down && clock_ms(l->xapi->clock) - e->heard_ms < dead_ms;
}

static struct error *live_write(struct api_call *c, const struct row *host, bool live)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    if (txn_get(txn, &model_classes[CLASS_host], host->ref) == NULL)
        return NULL;
    TRY(txn_set_bool(txn, CLASS_host_metrics, row_string(host, F_host_metrics), F_host_metrics_live, live));
    TRY(operations_update(c, txn, CLASS_host, host->ref));
    return txn_commit(txn, NULL);
}

void liveness_tick(struct liveness *l, int64_t dead_ms)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    struct row_list hosts;

    internal_call_init(&c, l->xapi, arena, "liveness");
    hosts = db_all(c.db, arena, &model_classes[CLASS_host]);
    for (unsigned i = 0; i < hosts.n; i++) {
        const struct row *metrics = db_get(c.db, arena, &model_classes[CLASS_host_metrics], row_string(hosts.rows[i], F_host_metrics));
        bool live = is_live(l, hosts.rows[i]->ref, dead_ms);
        struct error *error;

        if (metrics == NULL || row_bool(metrics, F_host_metrics_live) == live)
            continue;
        if (live)
            log_info("host %s (%s) is live", row_string(hosts.rows[i], F_host_name_label), row_string(hosts.rows[i], F_host_address));
        else
            log_warn("host %s (%s) is not live", row_string(hosts.rows[i], F_host_name_label), row_string(hosts.rows[i], F_host_address));
        error = live_write(&c, hosts.rows[i], live);
        if (error != NULL && !error_is(error, "HANDLE_INVALID"))
            log_warn("host %s: %s", hosts.rows[i]->ref, error_text(arena, error));
    }
}
