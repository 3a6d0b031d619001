#include "xapi/migrate/queue.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/task.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move_notes.h"
#include "xapi/migrate/queue_inside.h"

LOG_MODULE(queue);

#define LOOK_MS 200 /* how often who waits looks at its cancel flag and at the clock */

struct migration_queue *migration_queue_new(struct xapi *xapi)
{
    struct migration_queue *q = xcalloc(1, sizeof(*q));
    q->xapi = xapi;
    lock_init(&q->lock, LOCK_MIGRATION_QUEUE);
    cond_init(&q->changed);
    q->clocks = move_clocks_new();
    return q;
}

void migration_queue_quiesce(struct migration_queue *q)
{
    if (q == NULL)
        return;
    LOCK_SCOPE(&q->lock);
    q->stopping = true;
    cond_broadcast(&q->changed);
}

static void entry_free(struct queue_entry *e)
{
    xfree(e->id);
    xfree(e->host);
    xfree(e);
}

static void entries_free(struct queue_entry **list)
{
    while (*list != NULL) {
        struct queue_entry *gone = *list;
        *list = gone->next;
        entry_free(gone);
    }
}

void migration_queue_free(struct migration_queue *q)
{
    if (q == NULL)
        return;
    migration_queue_quiesce(q);
    queue_restarts_end(q);
    entries_free(&q->waiting);
    entries_free(&q->running);
    move_clocks_free(q->clocks);
    cond_release(&q->changed);
    lock_release(&q->lock);
    xfree(q);
}

bool queue_pause(struct migration_queue *q, int64_t ms)
{
    LOCK_SCOPE(&q->lock);
    if (!q->stopping)
        cond_wait_ms(&q->changed, &q->lock, ms);
    return !q->stopping;
}

struct move_clocks *queue_clocks(struct xapi *xapi)
{
    return xapi->queue != NULL ? xapi->queue->clocks : NULL;
}

/* --- limits ------------------------------------------------------------------------------------------------------------ */
struct limits { int64_t pool, host; };

static int64_t limit_of(struct xapi *xapi, const struct row *pool, const char *key)
{
    int64_t n = config_int(xapi->config, key), own;
    const char *text = pool != NULL ? row_map(pool, F_pool_other_config, key, "") : "";

    return text[0] != '\0' && text_to_int(text, &own) && own >= 0 ? own : n;
}

static struct limits limits_now(struct xapi *xapi, struct arena *a)
{
    struct row_list pools = db_all(xapi->db, a, &model_classes[CLASS_pool]);
    const struct row *pool = pools.n > 0 ? pools.rows[0] : NULL;

    return (struct limits){ limit_of(xapi, pool, "storage-migrations-per-pool"), limit_of(xapi, pool, "storage-migrations-per-host") };
}

static int64_t running_on(const struct migration_queue *q, const char *host)
{
    int64_t n = 0;

    for (const struct queue_entry *e = q->running; e != NULL; e = e->next)
        n += host == NULL || strcmp(e->host, host) == 0;
    return n;
}

/* The limit that is reached for a move from this host; 0: none. */
static int64_t limit_reached(const struct migration_queue *q, const struct limits *limits, const char *host)
{
    if (limits->pool > 0 && running_on(q, NULL) >= limits->pool)
        return limits->pool;
    return limits->host > 0 && running_on(q, host) >= limits->host ? limits->host : 0;
}

/* --- the lists; all under the lock ---------------------------------------------------------------------------------------- */
static bool goes_before(const struct queue_entry *a, const struct queue_entry *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->began_ms != b->began_ms ? a->began_ms < b->began_ms : a->seq < b->seq;
}

static void insert(struct migration_queue *q, struct queue_entry *fresh)
{
    struct queue_entry **at = &q->waiting;

    while (*at != NULL && !goes_before(fresh, *at))
        at = &(*at)->next;
    fresh->next = *at;
    *at = fresh;
}

static struct queue_entry *take_out(struct queue_entry **list, const char *id)
{
    for (; *list != NULL; list = &(*list)->next)
        if (strcmp((*list)->id, id) == 0) {
            struct queue_entry *e = *list;
            *list = e->next;
            return e;
        }
    return NULL;
}

static void run(struct migration_queue *q, struct queue_entry *e)
{
    e->next = q->running;
    q->running = e;
    cond_broadcast(&q->changed);
}

/* Lets go whoever may. */
static void schedule(struct migration_queue *q, const struct limits *limits)
{
    int64_t now = clock_wall(q->xapi->clock);

    if (q->stopping || (q->untried > 0 && clock_ms(q->xapi->clock) < q->untried_until_ms))
        return;
    for (struct queue_entry **at = &q->waiting; *at != NULL;) {
        struct queue_entry *e = *at;
        if (e->not_before > now || limit_reached(q, limits, e->host) != 0) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        run(q, e);
    }
}

struct place_now { bool stopping, granted; unsigned position; int64_t limit; };

static struct place_now look(struct migration_queue *q, const char *id)
{
    AUTO_ARENA a = arena_new();
    const struct limits limits = limits_now(q->xapi, a);
    struct place_now now = { .granted = true };

    LOCK_SCOPE(&q->lock);
    schedule(q, &limits);
    now.stopping = q->stopping;
    for (const struct queue_entry *e = q->waiting; e != NULL && now.granted; e = e->next) {
        now.position++;
        now.granted = strcmp(e->id, id) != 0;
        if (!now.granted && e->not_before <= clock_wall(q->xapi->clock))
            now.limit = limit_reached(q, &limits, e->host);
    }
    return now;
}

static void leave(struct migration_queue *q, const char *id)
{
    LOCK_SCOPE(&q->lock);
    struct queue_entry *e = take_out(&q->waiting, id);
    if (e == NULL)
        e = take_out(&q->running, id);
    if (e != NULL)
        entry_free(e);
    cond_broadcast(&q->changed);
}

/* --- the row ---------------------------------------------------------------------------------------------------------------- */
static const char *kind_of(const char *message)
{
    return strncmp(message, "VM.", 3) == 0 ? message + 3 : message;
}

static struct value note_of(struct api_call *c, const struct queue_request *r, int64_t seq)
{
    const struct row *task = c->task != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_task], c->task) : NULL;
    struct value_dict d = { 0 };

    value_dict_add(c->arena, &d, "message", value_string(r->message));
    value_dict_add(c->arena, &d, "args", r->args);
    value_dict_add(c->arena, &d, "label", value_string(task != NULL ? row_string(task, F_task_name_label) : r->message));
    value_dict_add(c->arena, &d, "seq", value_int(seq));
    return value_dict_value(&d);
}

static struct error *write_row(struct api_call *c, const struct queue_request *r, const struct queue_entry *e)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], r->host);
    const struct ledger_row row = {
        .id = r->id, .side = LEDGER_OUT, .stage = "queued", .kind = kind_of(r->message), .vm_uuid = r->vm_uuid, .vm_name = r->vm_name,
        .user = c->user, .from_host = host != NULL ? row_string(host, F_host_uuid) : "",
        .from_name = host != NULL ? row_string(host, F_host_name_label) : "", .began_ms = e->began_ms,
        .note = note_of(c, r, e->seq), .facts = value_map(NULL, 0),
    };
    return ledger_put(c->arena, c->xapi->ledger, &row);
}

static void end_row(struct api_call *c, const char *id, const char *outcome, const char *cause)
{
    struct error *e = ledger_end(c->arena, c->xapi->ledger, id, LEDGER_OUT, outcome, cause, "", clock_wall(c->call.clock) * 1000);
    if (e != NULL)
        log_err("the end of the queued migration %s is not in the ledger: %s", id, error_text(c->arena, e));
}

/* --- entering ----------------------------------------------------------------------------------------------------------------- */
/* Its place is where it was before the restart, if there was one. *old_id_r: its row's id then. */
static struct queue_entry entry_add(struct migration_queue *q, struct api_call *c, const struct queue_request *r, const char **old_id_r)
{
    struct queue_entry *e = xcalloc(1, sizeof(*e));

    e->id = xstrdup(r->id);
    e->host = xstrdup(r->host != NULL ? r->host : "");
    e->priority = r->options->priority;
    e->not_before = r->options->not_before;
    LOCK_SCOPE(&q->lock);
    struct queue_restart *restart = c->task != NULL ? queue_restart_of(q, c->task) : NULL;
    e->began_ms = restart != NULL ? restart->row.began_ms : clock_wall(c->call.clock) * 1000;
    e->seq = restart != NULL ? restart->seq : ++q->seq;
    *old_id_r = restart != NULL && !restart->entered ? restart->row.id : NULL;
    insert(q, e);
    return *e; /* its strings belong to the list */
}

/* The row now has the new move's id; those behind may be looked at. */
static struct error *take_over(struct migration_queue *q, struct api_call *c, const char *old_id, const char *id)
{
    struct error *e = ledger_rename(c->arena, c->xapi->ledger, old_id, LEDGER_OUT, id);

    LOCK_SCOPE(&q->lock);
    struct queue_restart *restart = queue_restart_of(q, c->task);
    if (restart != NULL) {
        restart->entered = e == NULL;
        queue_restart_tried(restart);
    }
    return e;
}

static void tell_position(const struct api_call *c, const char *phase, unsigned position)
{
    AUTO_ARENA a = arena_new();
    struct api_call brief = *c; /* who waits for hours must not grow */
    brief.arena = brief.call.arena = a;
    struct member notes[] = { member_of("phase", value_string(phase)),
                              member_of("queue_position", value_string(arena_printf(a, "%u", position))) };
    struct value v = value_map(notes, ARRAY_LEN(notes));
    move_notes_write(&brief, &v);
}

static struct error *too_many(struct api_call *c, int64_t limit)
{
    return err_too_many_storage_migrates(c->arena, arena_printf(c->arena, "%lld", (long long)limit));
}

static struct error *wait_turn(struct migration_queue *q, struct api_call *c, const struct queue_request *r)
{
    for (unsigned told = 0;;) {
        struct place_now now = look(q, r->id);
        if (now.granted) {
            if (told != 0)
                tell_position(c, "starting", 0);
            return NULL;
        }
        if (now.stopping)
            return err_internal(c->arena, "this host's daemon is stopping; the migration stays queued");
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        if (r->options->queue_refuse && now.limit > 0)
            return too_many(c, now.limit);
        if (now.position != told)
            tell_position(c, "queued", told = now.position);
        (void)queue_pause(q, LOOK_MS);
    }
}

static bool stopping(struct migration_queue *q)
{
    LOCK_SCOPE(&q->lock);
    return q->stopping;
}

/* It has to wait: from here on a restart of the coordinator starts it again. */
static struct error *wait_durably(struct migration_queue *q, struct api_call *c, const struct queue_request *r, const struct queue_entry *e,
                                  bool has_row)
{
    if (!has_row && !r->options->queue_refuse)
        TRY(write_row(c, r, e));
    struct error *error = wait_turn(q, c, r);
    if (error != NULL && !stopping(q))
        end_row(c, r->id, error_is(error, "TASK_CANCELLED") ? "cancelled" : "failed", error_text(c->arena, error));
    return error;
}

struct error *queue_enter(struct api_call *c, const struct queue_request *r, struct queue_place *place)
{
    struct migration_queue *q = c->xapi->queue;
    const char *old_id = NULL;
    struct error *error = NULL;

    *place = (struct queue_place){ .id = r->id, .host = r->host };
    if (q == NULL)
        return NULL;
    int64_t began_ms = clock_ms(c->call.clock);
    const struct queue_entry e = entry_add(q, c, r, &old_id);
    if (old_id != NULL)
        error = take_over(q, c, old_id, r->id);
    if (error == NULL && !look(q, r->id).granted) {
        task_set_cancellable(c, true);
        error = wait_durably(q, c, r, &e, old_id != NULL);
    }
    if (error != NULL)
        leave(q, r->id);
    place->waited_ms = clock_ms(c->call.clock) - began_ms;
    return error;
}

void queue_leave(struct api_call *c, struct queue_place *place)
{
    struct migration_queue *q = c->xapi->queue;
    struct ledger_row row;
    bool found = false;

    if (q == NULL || place->id == NULL)
        return;
    leave(q, place->id);
    struct error *e = ledger_get(c->arena, c->xapi->ledger, place->id, LEDGER_OUT, &row, &found);
    if (e == NULL && found && strcmp(row.stage, "queued") == 0 && !stopping(q))
        end_row(c, place->id, "failed", "it failed before anything moved: its task says why");
    if (e == NULL && found && place->waited_ms >= LOOK_MS) {
        struct member facts[] = { member_of("queued_ms", value_string(arena_printf(c->arena, "%lld", (long long)place->waited_ms))) };
        struct value v = value_map(facts, 1);
        (void)!ledger_add_facts(c->arena, c->xapi->ledger, place->id, LEDGER_OUT, &v);
    }
    place->id = NULL;
}

struct queue_state queue_state(struct xapi *xapi)
{
    struct queue_state s = { 0 };

    if (xapi->queue == NULL)
        return s;
    LOCK_SCOPE(&xapi->queue->lock);
    for (const struct queue_entry *e = xapi->queue->waiting; e != NULL; e = e->next)
        s.waiting++;
    for (const struct queue_entry *e = xapi->queue->running; e != NULL; e = e->next)
        s.running++;
    return s;
}
