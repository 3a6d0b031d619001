/* Tasks: of calls, of clients, their end, their age. */
#include <string.h>

#include "rpc/base/call.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/rbac.h"
#include "xapi/core/session.h"
#include "xapi/core/task.h"
#include "xapi/core/task_table.h"

static int setup(void **state)
{
    static struct core_world w;

    core_world_init_fake(&w);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    core_world_release(*state);
    return 0;
}

static const struct row *task_row(struct core_world *w, const char *ref)
{
    return db_get(w->xapi.db, w->arena, &model_classes[CLASS_task], ref);
}

static const char *status_of(struct core_world *w, const char *ref) { return core_ok(w, "task.get_status", 1, S(ref)).s; }

/* A call of our own with a task, as a handler would have. */
static void call_begin(struct core_world *w, struct api_call *c, bool async)
{
    api_call_init(c, &w->xapi, w->arena, "Async.VM.start");
    c->session = w->session;
    c->is_async = async;
    must(task_begin(c, c->wire_name, NULL));
}

static void test_fresh_row(void **state)
{
    struct core_world *w = *state;
    struct api_call c;

    call_begin(w, &c, true);
    struct value record = core_ok(w, "task.get_record", 1, S(c.task)), map = value_dup(w->arena, &record);
    assert_string_equal(value_get_string(&map, "name_label", ""), "Async.VM.start");
    assert_string_equal(value_get_string(&map, "status", ""), "pending");
    assert_string_equal(value_get_string(&map, "type", ""), "<none/>");
    assert_string_equal(value_get_string(&map, "backtrace", ""), "()");
    assert_string_equal(value_get_string(&map, "resident_on", ""), w->host);
    assert_int_equal(value_get(&map, "created")->i, clock_wall(w->xapi.clock));
    assert_int_equal(value_get(&map, "finished")->i, 0);
    assert_int_equal(value_get(&map, "allowed_operations")->len, 0);
    task_end(&c, NULL, NULL);
}

static void test_success(void **state)
{
    struct core_world *w = *state;
    struct api_call c;
    struct value result = S("OpaqueRef:new<"), parsed;

    call_begin(w, &c, true);
    const char *task = c.task;
    task_end(&c, NULL, &result);
    core_is_string(core_ok(w, "task.get_status", 1, S(task)), "success");
    core_is_string(core_ok(w, "task.get_result", 1, S(task)), "<value>OpaqueRef:new&lt;</value>");
    assert_true(core_ok(w, "task.get_progress", 1, S(task)).f == 1.0);
    assert_int_equal(core_ok(w, "task.get_finished", 1, S(task)).i, clock_wall(w->xapi.clock));
    api_call_init(&c, &w->xapi, w->arena, "x");
    must(task_wait(&c, task, &parsed));
    core_is_string(parsed, "OpaqueRef:new<");
}

static void test_failure_and_cancelled(void **state)
{
    struct core_world *w = *state;
    struct api_call c;
    struct value nothing;

    call_begin(w, &c, true);
    const char *failed = c.task;
    task_end(&c, err_vm_bad_power_state(w->arena, "OpaqueRef:vm", "Halted", "Running"), NULL);
    assert_string_equal(status_of(w, failed), "failure");
    struct value info = core_ok(w, "task.get_error_info", 1, S(failed));
    assert_int_equal(info.len, 4);
    assert_string_equal(info.items[0].s, "VM_BAD_POWER_STATE");
    assert_string_equal(info.items[3].s, "Running");
    call_begin(w, &c, true);
    const char *cancelled = c.task;
    task_end(&c, err_task_cancelled(w->arena, cancelled), NULL);
    assert_string_equal(status_of(w, cancelled), "cancelled");
    api_call_init(&c, &w->xapi, w->arena, "x");
    must_fail(task_wait(&c, failed, &nothing), "VM_BAD_POWER_STATE");
    must_fail(task_wait(&c, cancelled, &nothing), "TASK_CANCELLED");
    must_fail(task_wait(&c, "OpaqueRef:no", &nothing), "HANDLE_INVALID");
}

static void test_sync_call_has_a_task_while_it_runs(void **state)
{
    struct core_world *w = *state;
    struct api_call c;

    call_begin(w, &c, false);
    const char *task = c.task;
    assert_non_null(task_row(w, task));
    task_end(&c, NULL, NULL);
    assert_null(task_row(w, task));
}

static void test_progress(void **state)
{
    struct core_world *w = *state;
    struct api_call c;

    call_begin(w, &c, true);
    call_progress(&c.call, 0.5);
    call_progress(&c.call, 0.25); /* never backwards */
    task_flush(&w->xapi);
    assert_true(core_ok(w, "task.get_progress", 1, S(c.task)).f == 0.5);
    uint64_t before = db_generation(w->xapi.db);
    task_flush(&w->xapi);
    assert_int_equal(db_generation(w->xapi.db), before); /* nothing new, nothing written */
    call_progress(&c.call, 7);
    task_flush(&w->xapi);
    assert_true(core_ok(w, "task.get_progress", 1, S(c.task)).f == 1.0);
    task_end(&c, NULL, NULL);
}

static void test_cancel(void **state)
{
    struct core_world *w = *state;
    struct api_call c;

    call_begin(w, &c, true);
    assert_false(call_cancelled(&c.call));
    core_ok(w, "task.cancel", 1, S(c.task));
    assert_true(call_cancelled(&c.call));
    const char *task = c.task;
    task_end(&c, err_task_cancelled(w->arena, task), NULL);
    core_ok(w, "task.cancel", 1, S(task)); /* ended: a silent no-op */
    assert_string_equal(status_of(w, task), "cancelled");
    assert_int_equal(core_ok(w, "task.get_current_operations", 1, S(task)).len, 0);
}

static void test_cancellable_and_notes(void **state)
{
    struct core_world *w = *state;
    struct api_call c;

    call_begin(w, &c, true);
    task_set_cancellable(&c, true);
    core_is_string(core_ok(w, "task.get_allowed_operations", 1, S(c.task)).items[0], "cancel");
    task_set_cancellable(&c, false);
    assert_int_equal(core_ok(w, "task.get_allowed_operations", 1, S(c.task)).len, 0);
    task_note(&c, "mirror_failed", "vdi");
    struct value notes = core_ok(w, "task.get_other_config", 1, S(c.task));
    assert_string_equal(value_get_string(&notes, "mirror_failed", ""), "vdi");
    task_end(&c, NULL, NULL);
}

static void test_destroy(void **state)
{
    struct core_world *w = *state;
    struct api_call c;

    call_begin(w, &c, true);
    const char *task = c.task;
    core_ok(w, "task.destroy", 1, S(task)); /* it runs: it goes after its end */
    assert_non_null(task_row(w, task));
    task_end(&c, NULL, NULL);
    assert_string_equal(status_of(w, task), "success");
    task_gc(&w->xapi, clock_wall(w->xapi.clock));
    assert_null(task_row(w, task));
    struct value own = core_ok(w, "task.create", 2, S("l"), S("d"));
    core_ok(w, "task.destroy", 1, own);
    core_fails(w, "HANDLE_INVALID", "task.destroy", 1, own);
}

static void test_tasks_of_others(void **state)
{
    struct core_world *w = *state;
    const char *a = core_session_with_role(w, "vm-operator"), *b = core_session_with_role(w, "read-only"),
               *chief = core_session_with_role(w, "pool-operator");
    struct value task = core_ok_as(w, a, "task.create", 2, S("l"), S("d"));
    const struct error *e = core_fails_as(w, b, "RBAC_PERMISSION_DENIED", "task.cancel", 1, task);

    assert_string_equal(e->params[0], "task.destroy/any");
    core_fails_as(w, b, "RBAC_PERMISSION_DENIED", "task.destroy", 1, task);
    core_fails_as(w, b, "RBAC_PERMISSION_DENIED", "task.set_status", 2, task, S("success"));
    core_ok_as(w, a, "task.cancel", 1, task);
    core_ok_as(w, chief, "task.destroy", 1, task);
}

static void test_client_task(void **state)
{
    struct core_world *w = *state;
    struct value task = core_ok(w, "task.create", 2, S("upload"), S("d")), info = S("OOPS");

    core_ok(w, "task.set_progress", 2, task, value_float(0.5));
    core_ok(w, "task.set_progress", 2, task, value_int(1));
    core_fails(w, "INVALID_VALUE", "task.set_progress", 2, task, value_float(1.5));
    core_ok(w, "task.set_result", 2, task, S("done"));
    core_ok(w, "task.set_error_info", 2, task, value_set(&info, 1));
    core_fails(w, "INVALID_VALUE", "task.set_status", 2, task, S("bored"));
    core_ok(w, "task.set_status", 2, task, S("failure"));
    assert_int_equal(core_ok(w, "task.get_finished", 1, task).i, clock_wall(w->xapi.clock));
    core_ok(w, "task.destroy", 1, task);
}

static void test_gc_by_age(void **state)
{
    struct core_world *w = *state;
    struct api_call running;
    struct value pending = core_ok(w, "task.create", 2, S("p"), S("")), done = core_ok(w, "task.create", 2, S("d"), S(""));

    call_begin(w, &running, true);
    core_ok(w, "task.set_status", 2, done, S("success"));
    clock_fake_advance_ms(&w->fake, 3900 * 1000);
    task_gc(&w->xapi, clock_wall(w->xapi.clock));
    assert_non_null(task_row(w, done.s));
    clock_fake_advance_ms(&w->fake, 2000);
    task_gc(&w->xapi, clock_wall(w->xapi.clock));
    assert_null(task_row(w, done.s));
    assert_non_null(task_row(w, pending.s));
    clock_fake_advance_ms(&w->fake, 86400 * 1000LL);
    task_gc(&w->xapi, clock_wall(w->xapi.clock));
    assert_null(task_row(w, pending.s));
    assert_non_null(task_row(w, running.task)); /* it runs: as long as it likes */
    task_end(&running, NULL, NULL);
}

static void test_gc_by_count(void **state)
{
    struct core_world *w = *state;
    const char *first = NULL, *last = NULL;

    must(config_set(w->arena, w->xapi.config, "tasks-limit", "5"));
    for (unsigned i = 0; i < 20; i++) {
        struct value task = core_ok(w, "task.create", 2, S("t"), S(""));
        core_ok(w, "task.set_status", 2, task, S("success"));
        clock_fake_advance_ms(&w->fake, 1000);
        if (i == 0)
            first = task.s;
        last = task.s;
    }
    task_gc(&w->xapi, clock_wall(w->xapi.clock));
    assert_int_equal(db_count(w->xapi.db, &model_classes[CLASS_task]), 5);
    assert_null(task_row(w, first));
    assert_non_null(task_row(w, last));
    must(config_set(w->arena, w->xapi.config, "tasks-limit", "200"));
}

static void test_async_runs_and_reports(void **state)
{
    struct core_world *w = *state;
    const struct member record[] = { member_of("value", S("v")) };
    struct value task = core_ok(w, "Async.secret.create", 1, value_map(record, 1)), result;
    struct api_call c;

    assert_int_equal(strncmp(task.s, "OpaqueRef:", 10), 0);
    core_is_string(core_ok(w, "task.get_name_label", 1, task), "Async.secret.create");
    api_call_init(&c, &w->xapi, w->arena, "x");
    must(task_wait(&c, task.s, &result));
    core_is_string(core_ok(w, "secret.get_value", 1, result), "v");
    core_fails(w, "HANDLE_INVALID", "Async.secret.destroy", 1, S("OpaqueRef:no")); /* refused before there is a task */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_row),
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_failure_and_cancelled),
        cmocka_unit_test(test_sync_call_has_a_task_while_it_runs),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancellable_and_notes),
        cmocka_unit_test(test_destroy),
        cmocka_unit_test(test_tasks_of_others),
        cmocka_unit_test(test_client_task),
        cmocka_unit_test(test_gc_by_age),
        cmocka_unit_test(test_gc_by_count),
        cmocka_unit_test(test_async_runs_and_reports),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
