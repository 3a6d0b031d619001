#include "xapi/core/housekeeping.h"

#include "gen/model_ids.h"
#include "db/txn.h"
#include "rpc/base/log.h"
#include "xapi/core/event_internal.h"
#include "xapi/core/event_legacy.h"
#include "xapi/core/session.h"
#include "xapi/core/task_table.h"
#include "xapi/core/timers.h"

LOG_MODULE(housekeeping);

#define FLUSH_MS 100
#define GC_MS 30000

static void flush(void *xapi) { task_flush(xapi); }

static struct error *touch_pool(struct xapi *xapi, struct arena *a)
{
    AUTO_TXN txn = txn_begin(xapi->db, a);
    struct row_list pools = txn_all(txn, &model_classes[CLASS_pool]);

    if (pools.n == 0)
        return NULL;
    TRY(txn_touch(txn, CLASS_pool, pools.rows[0]->ref));
    return txn_commit(txn, NULL);
}

/* Clients of event.next take silence for a lost connection. */
static void legacy_heartbeat(struct xapi *xapi)
{
    AUTO_ARENA a = arena_new();
    struct error *e = event_log_has_readers(xapi->events->log) ? touch_pool(xapi, a) : NULL;

    if (e != NULL)
        log_warn_rl("heartbeat of event.next: %s", error_text(a, e));
}

static void collect(void *ctx)
{
    struct xapi *xapi = ctx;

    session_gc(xapi, clock_ms(xapi->clock));
    task_gc(xapi, clock_wall(xapi->clock));
    legacy_heartbeat(xapi);
}

void housekeeping_start(struct xapi *xapi)
{
    timers_every(xapi->timers, FLUSH_MS, flush, xapi);
    timers_every(xapi->timers, GC_MS, collect, xapi);
}
