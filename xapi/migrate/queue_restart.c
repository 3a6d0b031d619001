/* What stood in the queue when the coordinator stopped is started again, in the order in which it stood. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/task.h"
#include "xapi/migrate/queue_inside.h"

LOG_MODULE(queue);

#define ROWS_MAX 10000
#define OVERTAKE_MS 30000  /* so long nobody overtakes those that were not looked at yet */
#define PATIENCE_MS 180000 /* for hosts and SRs to come back after the coordinator did */
#define AGAIN_MS 1000

struct queue_restart *queue_restart_of(struct migration_queue *q, const char *task)
{
    for (struct queue_restart *r = q->restarts; r != NULL; r = r->next)
        if (r->task != NULL && strcmp(r->task, task) == 0)
            return r;
    return NULL;
}

void queue_restart_tried(struct queue_restart *r)
{
    if (r->tried)
        return;
    r->tried = true;
    r->queue->untried--;
    cond_broadcast(&r->queue->changed);
}

void queue_restarts_end(struct migration_queue *q)
{
    while (q->restarts != NULL) {
        struct queue_restart *gone = q->restarts;
        pthread_join(gone->thread, NULL);
        q->restarts = gone->next;
        arena_free(gone->arena);
        xfree(gone);
    }
}

/* --- one of them ------------------------------------------------------------------------------------------------------ */
static struct error *attempt(struct api_call *c, struct queue_restart *r, struct value *result_r)
{
    const struct value *args = value_get(&r->row.note, "args");
    const struct method method = method_find(value_get_string(&r->row.note, "message", ""));
    struct request request;

    if (method.kind != METHOD_MESSAGE || args == NULL || args->kind != VALUE_MAP)
        return err_internal(c->arena, "the request cannot be read: it comes from another version");
    request_init(&request, &method, args);
    TRY(dispatch_enter(c, &request));
    c->is_async = true; /* its task stays, for who looks */
    return dispatch_run(c, &request, result_r);
}

/* Errors that pass once hosts and SRs are back. */
static bool may_pass(const struct error *e)
{
    static const char *const codes[] = { "HOST_NOT_LIVE", "HOST_OFFLINE", "CANNOT_CONTACT_HOST", "VM_REQUIRES_SR", "SR_HAS_NO_PBDS", "SR_NOT_ATTACHED",
                                         "NO_HOSTS_AVAILABLE", "HOST_STILL_BOOTING", "HOST_DISABLED", "HOST_DISABLED_UNTIL_REBOOT", "SR_NO_PBDS" };

    for (unsigned i = 0; i < ARRAY_LEN(codes); i++)
        if (error_is(e, codes[i]))
            return true;
    return false;
}

static bool was_tried(struct queue_restart *r)
{
    LOCK_SCOPE(&r->queue->lock);
    queue_restart_tried(r);
    return r->entered;
}

static struct error *attempts(struct api_call *c, struct queue_restart *r, struct value *result_r)
{
    int64_t until = clock_ms(c->call.clock) + PATIENCE_MS;

    for (;;) {
        struct error *e = attempt(c, r, result_r);
        bool entered = was_tried(r);
        if (entered || e == NULL || !may_pass(e) || clock_ms(c->call.clock) >= until || call_cancelled(&c->call) ||
            !queue_pause(r->queue, AGAIN_MS))
            return e;
    }
}

static void ended(struct api_call *c, struct queue_restart *r, const struct error *e)
{
    bool stopping, entered;
    {
        LOCK_SCOPE(&r->queue->lock);
        r->task = NULL;
        stopping = r->queue->stopping;
        entered = r->entered;
    }
    if (e == NULL || entered || stopping)
        return; /* its row is its own, or it stays for the next life */
    const char *outcome = error_is(e, "TASK_CANCELLED") ? "cancelled" : "failed";
    struct error *l = ledger_end(c->arena, c->xapi->ledger, r->row.id, LEDGER_OUT, outcome, error_text(c->arena, e),
                                 "could not be started again after a restart", clock_wall(c->call.clock) * 1000);
    log_warn("queued migration %s of VM %s is not started again: %s", r->row.id, r->row.vm_uuid, error_text(c->arena, l != NULL ? l : e));
}

static void *restart_main(void *arg)
{
    struct queue_restart *r = arg;
    AUTO_ARENA a = arena_new();
    struct value result = value_void();
    struct api_call c;

    internal_call_init(&c, r->queue->xapi, a, arena_printf(a, "queue:%s", r->row.id));
    c.wire_name = value_get_string(&r->row.note, "message", "");
    c.user = r->row.user;
    struct call *outer = call_enter(&c.call);
    struct error *e = task_begin(&c, value_get_string(&r->row.note, "label", c.wire_name), NULL);
    if (e == NULL) {
        lock_take(&r->queue->lock);
        r->task = c.task;
        lock_drop(&r->queue->lock);
        e = attempts(&c, r, &result);
    }
    (void)was_tried(r);
    ended(&c, r, e);
    c.is_async = true;
    task_end(&c, e, &result);
    call_enter(outer);
    return NULL;
}

/* --- all of them ------------------------------------------------------------------------------------------------------- */
static void add(struct migration_queue *q, const struct ledger_row *row)
{
    struct queue_restart *r = xcalloc(1, sizeof(*r));

    r->arena = arena_new();
    r->queue = q;
    r->row = *row;
    r->row.id = arena_strdup(r->arena, row->id);
    r->row.user = arena_strdup(r->arena, row->user);
    r->row.vm_uuid = arena_strdup(r->arena, row->vm_uuid);
    r->row.note = value_dup(r->arena, &row->note);
    r->seq = value_get_int(&r->row.note, "seq", 0);
    r->next = q->restarts;
    q->restarts = r;
    q->untried++;
    q->seq = r->seq > q->seq ? r->seq : q->seq;
}

void migration_queue_start(struct xapi *xapi)
{
    AUTO_ARENA a = arena_new();
    const struct ledger_query all = { .active = true, .limit = ROWS_MAX };
    struct migration_queue *q = xapi->queue;
    struct ledger_row *rows = NULL;
    unsigned n = 0;

    if (q == NULL)
        return;
    struct error *e = ledger_list(a, xapi->ledger, &all, &rows, &n);
    if (e != NULL) {
        log_err("queued migrations cannot be read: %s", error_text(a, e));
        return;
    }
    LOCK_SCOPE(&q->lock);
    for (unsigned i = 0; i < n; i++)
        if (rows[i].side == LEDGER_OUT && strcmp(rows[i].stage, "queued") == 0)
            add(q, &rows[i]);
    q->untried_until_ms = clock_ms(xapi->clock) + OVERTAKE_MS;
    for (struct queue_restart *r = q->restarts; r != NULL; r = r->next)
        r->thread = thread_start("queue-restart", restart_main, r);
}
