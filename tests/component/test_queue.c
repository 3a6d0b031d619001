/* The queue of storage migrations: who goes when, with a clock that stands still; what a restart finds. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/work.h"
#include "tests/lib/core_world.h"
#include "tests/lib/unit.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/task.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/queue.h"

#define N_MAX 8

struct mover { struct world *w; const char *id; struct move_options options; const char *host; pthread_t thread; struct api_call c; struct cancel *cancel;
               struct error *error; bool granted, may_leave, left; };

struct world {
    struct core_world core;
    struct lock lock; /* class LEAF */
    struct cond changed;
    struct mover movers[N_MAX];
    unsigned n;
    char order[64]; /* the ids, as they went */
    const char *host2;
};

static int setup(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof(w));
    core_world_init_fake(&w.core);
    lock_init(&w.lock, LOCK_LEAF);
    cond_init(&w.changed);
    assert_null(ledger_open(w.core.arena, NULL, &w.core.xapi.ledger));
    w.core.xapi.queue = migration_queue_new(&w.core.xapi);
    w.host2 = core_row(&w.core, CLASS_host, NULL, 0);
    *state = &w;
    return 0;
}

/* --- movers ------------------------------------------------------------------------------------------------------- */
static void *mover_main(void *arg)
{
    struct mover *m = arg;
    const struct queue_request r = { .id = m->id, .message = "VDI.pool_migrate", .args = value_map(NULL, 0), .vm_uuid = "vm", .vm_name = "web",
                                     .host = m->host, .options = &m->options };
    struct queue_place place;
    struct error *e = queue_enter(&m->c, &r, &place);

    lock_take(&m->w->lock);
    m->error = e;
    m->granted = e == NULL;
    if (e == NULL)
        snprintf(m->w->order + strlen(m->w->order), sizeof(m->w->order) - strlen(m->w->order), "%s", m->id);
    cond_broadcast(&m->w->changed);
    while (m->granted && !m->may_leave)
        cond_wait(&m->w->changed, &m->w->lock);
    lock_drop(&m->w->lock);
    if (e == NULL)
        queue_leave(&m->c, &place);
    lock_take(&m->w->lock);
    m->left = true;
    cond_broadcast(&m->w->changed);
    lock_drop(&m->w->lock);
    return NULL;
}

static struct mover *enter(struct world *w, const char *id, struct move_options options, const char *host)
{
    struct mover *m = &w->movers[w->n++];
    *m = (struct mover){ .w = w, .id = id, .options = options, .host = host != NULL ? host : w->core.host, .cancel = cancel_new() };
    internal_call_init(&m->c, &w->core.xapi, arena_new(), id);
    assert_null(task_begin(&m->c, "label", NULL));
    m->c.call.cancel = m->cancel;
    m->thread = thread_start("mover", mover_main, m);
    return m;
}

/* Real time passes here, but nothing is told by how much. */
static void until_state(struct world *w, unsigned waiting, unsigned running)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        struct queue_state s = queue_state(&w->core.xapi);
        if (s.waiting == waiting && s.running == running)
            return;
        lock_take(&w->lock);
        cond_wait_ms(&w->changed, &w->lock, 20);
        lock_drop(&w->lock);
    }
    struct queue_state s = queue_state(&w->core.xapi);
    fail_msg("waiting %u, running %u instead of %u and %u", s.waiting, s.running, waiting, running);
}

static void until(struct world *w, bool *flag)
{
    lock_take(&w->lock);
    for (unsigned tries = 0; !*flag && tries < 1000; tries++)
        cond_wait_ms(&w->changed, &w->lock, 20);
    assert_true(*flag);
    lock_drop(&w->lock);
}

static void let_leave(struct mover *m)
{
    lock_take(&m->w->lock);
    m->may_leave = true;
    cond_broadcast(&m->w->changed);
    lock_drop(&m->w->lock);
    until(m->w, &m->left);
}

static int teardown(void **state)
{
    struct world *w = *state;
    migration_queue_quiesce(w->core.xapi.queue);
    for (unsigned i = 0; i < w->n; i++) {
        let_leave(&w->movers[i]);
        pthread_join(w->movers[i].thread, NULL);
        w->movers[i].c.call.cancel = NULL;
        task_end(&w->movers[i].c, NULL, NULL);
        cancel_unref(w->movers[i].cancel);
        arena_free(w->movers[i].c.arena);
    }
    migration_queue_free(w->core.xapi.queue);
    ledger_close(w->core.xapi.ledger);
    core_world_release(&w->core);
    cond_release(&w->changed);
    lock_release(&w->lock);
    return 0;
}

static void limit(struct world *w, const char *key, const char *value)
{
    assert_null(db_map_put(w->core.xapi.db, w->core.arena, CLASS_pool, w->core.pool, F_pool_other_config, key, value));
}

#define WITH(...) ((struct move_options){ __VA_ARGS__ })

/* --- order ---------------------------------------------------------------------------------------------------------- */
static void test_by_priority_then_by_age(void **state)
{
    struct world *w = *state;

    limit(w, "storage-migrations-per-pool", "1");
    struct mover *a = enter(w, "a", WITH(.priority = 0), NULL);
    until_state(w, 0, 1);
    struct mover *b = enter(w, "b", WITH(.priority = 0), NULL);
    until_state(w, 1, 1);
    struct mover *c = enter(w, "c", WITH(.priority = 5), NULL);
    until_state(w, 2, 1);
    struct mover *d = enter(w, "d", WITH(.priority = 0), NULL);
    until_state(w, 3, 1);
    let_leave(a);
    until(w, &c->granted);
    assert_false(b->granted || d->granted);
    let_leave(c);
    until(w, &b->granted);
    let_leave(b);
    until(w, &d->granted);
    assert_string_equal(w->order, "acbd");
}

static void test_a_full_host_does_not_hold_up_others(void **state)
{
    struct world *w = *state;

    limit(w, "storage-migrations-per-host", "1");
    struct mover *a = enter(w, "a", WITH(.priority = 0), NULL);
    until(w, &a->granted);
    enter(w, "b", WITH(.priority = 9), NULL);
    until_state(w, 1, 1);
    struct mover *c = enter(w, "c", WITH(.priority = 0), w->host2);
    until(w, &c->granted);
    until_state(w, 1, 2);
    let_leave(a);
    until_state(w, 0, 2);
}

static void test_the_default_is_three_and_zero_is_no_limit(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < 5; i++)
        enter(w, arena_printf(w->core.arena, "%u", i), WITH(.priority = 0), NULL);
    until_state(w, 2, 3);
    limit(w, "storage-migrations-per-pool", "0");
    limit(w, "storage-migrations-per-host", "0");
    until_state(w, 0, 5);
}

static void test_not_before(void **state)
{
    struct world *w = *state;
    int64_t then = clock_wall(w->core.xapi.clock) + 60;

    enter(w, "a", WITH(.not_before = then), NULL);
    struct mover *b = enter(w, "b", WITH(.priority = 0), NULL);
    until(w, &b->granted);
    until_state(w, 1, 1);
    clock_fake_advance_ms(&w->core.fake, 61000);
    until_state(w, 0, 2);
}

/* --- refusing and cancelling -------------------------------------------------------------------------------------------- */
static struct ledger_row row_of(struct world *w, const char *id)
{
    struct ledger_row row;
    bool found = false;
    assert_null(ledger_get(w->core.arena, w->core.xapi.ledger, id, LEDGER_OUT, &row, &found));
    assert_true(found);
    return row;
}

static void test_refuse_says_the_limit(void **state)
{
    struct world *w = *state;
    struct ledger_row row;
    bool found = true;

    limit(w, "storage-migrations-per-pool", "2");
    enter(w, "a", WITH(.queue_refuse = true), NULL);
    enter(w, "b", WITH(.queue_refuse = true), NULL);
    until_state(w, 0, 2);
    struct mover *c = enter(w, "c", WITH(.queue_refuse = true), NULL);
    until(w, &c->left);
    assert_true(error_is(c->error, "TOO_MANY_STORAGE_MIGRATES"));
    assert_int_equal(c->error->n_params, 1);
    assert_string_equal(c->error->params[0], "2");
    assert_null(ledger_get(w->core.arena, w->core.xapi.ledger, "c", LEDGER_OUT, &row, &found));
    assert_false(found);
}

static void test_cancelled_in_the_queue(void **state)
{
    struct world *w = *state;

    limit(w, "storage-migrations-per-pool", "1");
    enter(w, "a", WITH(.priority = 0), NULL);
    until_state(w, 0, 1);
    struct mover *b = enter(w, "b", WITH(.priority = 0), NULL);
    until_state(w, 1, 1);
    cancel_raise(b->cancel);
    until(w, &b->left);
    assert_true(error_is(b->error, "TASK_CANCELLED"));
    assert_string_equal(row_of(w, "b").outcome, "cancelled");
    until_state(w, 0, 1);
}

static void test_the_task_says_its_place(void **state)
{
    struct world *w = *state;

    limit(w, "storage-migrations-per-pool", "1");
    enter(w, "a", WITH(.priority = 0), NULL);
    until_state(w, 0, 1);
    enter(w, "b", WITH(.priority = 0), NULL);
    until_state(w, 1, 1);
    struct mover *c = enter(w, "c", WITH(.priority = 0), NULL);
    for (unsigned tries = 0;; tries++) {
        const struct row *task = db_get(w->core.xapi.db, w->core.arena, &model_classes[CLASS_task], c->c.task);
        if (strcmp(row_map(task, F_task_other_config, "migrate:queue_position", ""), "2") == 0) {
            assert_string_equal(row_map(task, F_task_other_config, "migrate:phase", ""), "queued");
            return;
        }
        assert_true(tries < 1000);
        lock_take(&w->lock);
        cond_wait_ms(&w->changed, &w->lock, 20);
        lock_drop(&w->lock);
    }
}

/* --- windows and holds ---------------------------------------------------------------------------------------------------- */
static void test_windows(void **state)
{
    const int64_t day = 86400 * 20000ll;

    assert_true(queue_window_open("02:00-04:30", day + 2 * 3600));
    assert_true(queue_window_open("02:00-04:30", day + 4 * 3600 + 1799));
    assert_false(queue_window_open("02:00-04:30", day + 4 * 3600 + 1800));
    assert_false(queue_window_open("02:00-04:30", day + 7199));
    assert_true(queue_window_open("22:00-01:00", day + 23 * 3600));
    assert_true(queue_window_open("22:00-01:00", day + 1800));
    assert_false(queue_window_open("22:00-01:00", day + 3600));
    assert_true(queue_window_open("00:00-00:00", day + 5));
}

static void test_may_switch(void **state)
{
    struct world *w = *state;
    struct mover *a = enter(w, "a", WITH(.priority = 0), NULL);
    const char *waits;
    int64_t wall = clock_wall(w->core.xapi.clock), hour = wall % 86400 / 3600;
    char now[32], later[32];

    until(w, &a->granted);
    snprintf(now, sizeof(now), "%02d:00-%02d:59", (int)hour, (int)hour);
    snprintf(later, sizeof(later), "%02d:00-%02d:59", (int)(hour + 1) % 24, (int)(hour + 1) % 24);
    assert_true(queue_may_switch(&a->c, &WITH(.window = now), &waits));
    assert_false(queue_may_switch(&a->c, &WITH(.window = later), &waits));
    assert_string_equal(waits, "window");
    assert_false(queue_may_switch(&a->c, &WITH(.hold = true), &waits));
    assert_string_equal(waits, "release");
    task_note(&a->c, "release", "true");
    assert_true(queue_may_switch(&a->c, &WITH(.hold = true), &waits));
    assert_null(queue_before_switch(&a->c, &WITH(.hold = true, .window = now)));
    clock_fake_advance_ms(&w->core.fake, 3600000);
    assert_true(queue_may_switch(&a->c, &WITH(.window = later), &waits));
    cancel_raise(a->cancel);
    assert_true(error_is(queue_before_switch(&a->c, &WITH(.window = now)), "TASK_CANCELLED"));
}

/* --- restarts --------------------------------------------------------------------------------------------------------------- */
static void restart_queue(struct world *w)
{
    migration_queue_quiesce(w->core.xapi.queue);
    for (unsigned i = 0; i < w->n; i++)
        let_leave(&w->movers[i]);
    migration_queue_free(w->core.xapi.queue);
    w->core.xapi.queue = migration_queue_new(&w->core.xapi);
    migration_queue_start(&w->core.xapi);
}

static void test_a_stop_leaves_rows_and_a_restart_says_what_cannot_go_on(void **state)
{
    struct world *w = *state;

    limit(w, "storage-migrations-per-pool", "1");
    enter(w, "a", WITH(.priority = 0), NULL);
    until_state(w, 0, 1);
    struct mover *b = enter(w, "b", WITH(.priority = 0), NULL);
    until_state(w, 1, 1);
    migration_queue_quiesce(w->core.xapi.queue);
    until(w, &b->left);
    assert_true(error_is(b->error, "INTERNAL_ERROR"));
    struct ledger_row row = row_of(w, "b");
    assert_string_equal(row.stage, "queued");
    assert_string_equal(value_get_string(&row.note, "message", ""), "VDI.pool_migrate");
    assert_string_equal(value_get_string(&row.note, "label", ""), "label");
    struct value_dict args = { 0 };
    value_dict_add(w->core.arena, &args, "vdi", value_string("OpaqueRef:gone"));
    value_dict_add(w->core.arena, &args, "sr", value_string("OpaqueRef:gone too"));
    value_dict_add(w->core.arena, &args, "options", value_map(NULL, 0));
    struct value_dict note = { 0 };
    value_dict_add(w->core.arena, &note, "message", value_string("VDI.pool_migrate"));
    value_dict_add(w->core.arena, &note, "args", value_dict_value(&args));
    value_dict_add(w->core.arena, &note, "label", value_string("my move"));
    row.note = value_dict_value(&note);
    assert_null(ledger_put(w->core.arena, w->core.xapi.ledger, &row));
    restart_queue(w);
    for (unsigned tries = 0; strcmp(row_of(w, "b").stage, "done") != 0; tries++) {
        assert_true(tries < 1000);
        lock_take(&w->lock);
        cond_wait_ms(&w->changed, &w->lock, 20);
        lock_drop(&w->lock);
    }
    row = row_of(w, "b");
    assert_string_equal(row.outcome, "failed");
    assert_non_null(strstr(row.cause, "HANDLE_INVALID"));
    assert_string_equal(row.recovery, "could not be started again after a restart");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_by_priority_then_by_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_host_does_not_hold_up_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_default_is_three_and_zero_is_no_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_before, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuse_says_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled_in_the_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_task_says_its_place, setup, teardown),
        cmocka_unit_test(test_windows),
        cmocka_unit_test_setup_teardown(test_may_switch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_leaves_rows_and_a_restart_says_what_cannot_go_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
