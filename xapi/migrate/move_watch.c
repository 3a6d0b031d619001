#include "xapi/migrate/move_watch.h"

#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/migrate/disk_move.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move_notes.h"
#include "xapi/migrate/queue.h"

LOG_MODULE(move_watch);

#define EVERY_MS 1000
#define UNSAID INT64_MIN

struct move_watch {
    struct xapi *xapi;
    const struct move *move;
    const char *task;
    pthread_t thread;
    struct lock lock; /* class LEAF */
    struct cond wake;
    bool stopping;
    /* the thread's own: what the host was told last, what the ledger has */
    int64_t bandwidth, max_downtime_ms;
    bool holds, predicted;
};

/* The fields of migrate.status that clients are shown. */
static const char *const shown[] = { "phase", "round", "rounds", "pages_sent", "pages_dirty", "bytes", "dirty_rate", "link_rate", "eta_ms",
                                     "predicted_blackout_us", "predicted_total_us", "will_not_converge", "throttle", "streams", "compress" };

static struct error *call_host(struct api_call *c, const struct move *m, const char *verb, const struct member *args, unsigned n, struct value *result_r)
{
    struct value_dict d = { 0 };

    value_dict_add(c->arena, &d, "migration_id", value_string(m->attempt != NULL ? m->attempt : m->id));
    for (unsigned i = 0; i < n; i++)
        value_dict_add(c->arena, &d, args[i].name, args[i].value);
    struct value v = value_dict_value(&d);
    return agent_call(c, m->from, verb, &v, result_r);
}

/* --- one look ------------------------------------------------------------------------------------------------------ */
static void note_prediction(struct move_watch *w, struct api_call *c, const struct value *status)
{
    static const char *const keys[] = { "predicted_blackout_us", "predicted_total_us" };
    struct value_dict facts = { 0 };

    if (w->predicted || value_get_int(status, "predicted_blackout_us", 0) <= 0)
        return;
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (value_get_int(status, keys[i], -1) > 0) /* -1: not known */
            value_dict_add(c->arena, &facts, keys[i], value_string(move_note_text(c->arena, value_get(status, keys[i]))));
    struct value v = value_dict_value(&facts);
    struct error *e = ledger_add_facts(c->arena, c->xapi->ledger, w->move->id, LEDGER_OUT, &v);
    if (e != NULL)
        log_warn("migration %s: %s", w->move->id, error_text(c->arena, e));
    w->predicted = true;
}

static void look(struct move_watch *w, struct api_call *c)
{
    struct value status = value_void();
    struct value_dict notes = { 0 };

    struct error *e = call_host(c, w->move, "migrate.status", NULL, 0, &status);
    if (e != NULL) { /* it has not begun yet, or the host is out of reach */
        log_debug("migration %s: %s", w->move->id, error_text(c->arena, e));
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(shown); i++) {
        const char *text = move_note_text(c->arena, value_get(&status, shown[i]));
        if (strcmp(shown[i], "will_not_converge") == 0 && text != NULL && strcmp(text, "false") == 0)
            text = ""; /* said only where it is so */
        if (text != NULL)
            value_dict_add(c->arena, &notes, shown[i], value_string(text));
    }
    struct value v = value_dict_value(&notes);
    move_notes_write(c, &v);
    note_prediction(w, c, &status);
}

/* --- what the task's other_config asks for --------------------------------------------------------------------------- */
static const char *asked(struct api_call *c, const char *key)
{
    const struct row *task = c->task != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_task], c->task) : NULL;
    return task != NULL ? row_map(task, F_task_other_config, key, "") : "";
}

static void follow(struct move_watch *w, struct api_call *c)
{
    const char *bandwidth = asked(c, "bandwidth"), *downtime = asked(c, "max_downtime_ms");
    int64_t new_bandwidth = w->bandwidth, new_downtime = w->max_downtime_ms;
    struct member args[2];
    unsigned n = 0;
    struct value ignored;

    if (bandwidth[0] != '\0' && disk_move_bandwidth(bandwidth, &new_bandwidth) && new_bandwidth != w->bandwidth)
        args[n++] = member_of("bandwidth", value_int(new_bandwidth));
    if (downtime[0] != '\0' && text_to_int(downtime, &new_downtime) && new_downtime >= 0 && new_downtime != w->max_downtime_ms)
        args[n++] = member_of("max_downtime_ms", value_int(new_downtime));
    if (n == 0)
        return;
    struct error *e = call_host(c, w->move, "migrate.control", args, n, &ignored);
    if (e != NULL) {
        log_debug("migration %s goes on as it was: %s", w->move->id, error_text(c->arena, e));
        return;
    }
    w->bandwidth = new_bandwidth;
    w->max_downtime_ms = new_downtime;
}

static void let_go(struct move_watch *w, struct api_call *c)
{
    const struct move_options *o = &w->move->options;
    const char *waits_for = "";
    struct value ignored;

    if (!o->hold && o->window == NULL)
        return;
    bool may = queue_may_switch(c, o, &waits_for);
    struct member note[] = { member_of("waiting_for", value_string(waits_for)) };
    struct value v = value_map(note, 1);
    move_notes_write(c, &v);
    if (may == !w->holds)
        return;
    struct member args[] = { member_of("hold", value_bool(!may)) };
    struct error *e = call_host(c, w->move, "migrate.control", args, ARRAY_LEN(args), &ignored);
    if (e == NULL)
        w->holds = !may;
    else
        log_debug("migration %s: %s", w->move->id, error_text(c->arena, e));
}

static bool rest(struct move_watch *w)
{
    LOCK_SCOPE(&w->lock);
    if (!w->stopping)
        cond_wait_ms(&w->wake, &w->lock, EVERY_MS);
    return !w->stopping;
}

static void *watch_main(void *arg)
{
    struct move_watch *w = arg;

    while (rest(w)) {
        AUTO_ARENA a = arena_new();
        struct api_call c;
        internal_call_init(&c, w->xapi, a, w->move->id);
        c.task = w->task;
        struct call *outer = call_enter(&c.call);
        look(w, &c);
        follow(w, &c);
        let_go(w, &c);
        call_enter(outer);
    }
    return NULL;
}

struct move_watch *move_watch_start(struct api_call *c, const struct move *m)
{
    struct move_watch *w = xcalloc(1, sizeof(*w));

    w->xapi = c->xapi;
    w->move = m;
    w->task = c->task;
    w->bandwidth = m->options.bandwidth;
    w->max_downtime_ms = m->options.max_downtime_ms;
    w->holds = m->options.hold || m->options.window != NULL;
    lock_init(&w->lock, LOCK_LEAF);
    cond_init(&w->wake);
    w->thread = thread_start("move-watch", watch_main, w);
    return w;
}

void move_watch_stop(struct move_watch *w)
{
    if (w == NULL)
        return;
    lock_take(&w->lock);
    w->stopping = true;
    cond_broadcast(&w->wake);
    lock_drop(&w->lock);
    pthread_join(w->thread, NULL);
    cond_release(&w->wake);
    lock_release(&w->lock);
    xfree(w);
}

/* --- for other calls ------------------------------------------------------------------------------------------------------ */
/* From its first step until the VM's rows say where it is. */
static bool under_way(const struct ledger_row *row)
{
    static const char *const stages[] = { "open", "send", "commit" };

    for (unsigned i = 0; i < ARRAY_LEN(stages); i++)
        if (strcmp(row->stage, stages[i]) == 0)
            return row->side == LEDGER_OUT && strcmp(row->kind, "VDI.pool_migrate") != 0;
    return false;
}

static bool active_row(struct api_call *c, const char *vm_ref, struct ledger_row *row_r)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);
    struct ledger_row *rows = NULL;
    unsigned n = 0;

    if (vm == NULL)
        return false;
    const struct ledger_query q = { .active = true, .vm_uuid = row_string(vm, F_VM_uuid) };
    struct error *e = ledger_list(c->arena, c->xapi->ledger, &q, &rows, &n);
    if (e != NULL)
        log_warn("%s", error_text(c->arena, e));
    for (unsigned i = 0; e == NULL && i < n; i++)
        if (under_way(&rows[i])) {
            *row_r = rows[i];
            return true;
        }
    return false;
}

static const char *host_of(struct api_call *c, const struct ledger_row *row)
{
    const struct row *host = db_by_uuid(c->db, c->arena, &model_classes[CLASS_host], row->from_host);
    return host != NULL ? host->ref : NULL;
}

const char *move_of_vm(struct api_call *c, const char *vm_ref, const char **host_r)
{
    struct ledger_row row;

    if (!active_row(c, vm_ref, &row))
        return NULL;
    if (host_r != NULL)
        *host_r = host_of(c, &row);
    return row.id;
}

struct error *move_control(struct api_call *c, const char *vm_ref, const struct member *args, unsigned n)
{
    struct ledger_row row;
    struct value ignored;

    if (!active_row(c, vm_ref, &row))
        return err_operation_not_allowed(c->arena, "The VM is not being moved");
    const char *attempt = value_get_string(&row.note, "attempt", "");
    const struct move m = { .id = row.id, .attempt = attempt[0] != '\0' ? attempt : NULL, .from = host_of(c, &row) };
    if (m.from == NULL)
        return err_operation_not_allowed(c->arena, "The host that sends the VM is not known");
    return call_host(c, &m, "migrate.control", args, n, &ignored);
}
