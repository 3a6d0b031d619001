/* Marks on objects and waiting for them (specs §2.9). */
#include <stdatomic.h>
#include <string.h>

#include "rpc/base/work.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"

static struct core_world world;
#define W (&world)

static int setup(void **state)
{
    core_world_init(W);
    return 0;
}

static int teardown(void **state)
{
    core_world_release(W);
    return 0;
}

static void set(const char *ref, unsigned class_id, unsigned field, struct value v)
{
    must(db_set(W->xapi.db, W->arena, class_id, ref, field, v));
}

static bool allows(const char *vm, const char *op)
{
    const struct row *row = db_get(W->xapi.db, W->arena, &model_classes[CLASS_VM], vm);
    return value_set_has(row_value(row, F_VM_allowed_operations), op);
}

static unsigned n_allowed(const char *vm)
{
    return row_value(db_get(W->xapi.db, W->arena, &model_classes[CLASS_VM], vm), F_VM_allowed_operations)->len;
}

static void test_mark_and_unmark(void **state)
{
    const char *vm = core_vm(W, "marked");
    struct api_call c;

    internal_call_init(&c, &W->xapi, W->arena, "mark");
    c.task = "OpaqueRef:task";
    must(operation_begin(&c, CLASS_VM, vm, "start", true));
    const struct row *row = db_get(c.db, c.arena, &model_classes[CLASS_VM], vm);
    assert_string_equal(row_map(row, F_VM_current_operations, "OpaqueRef:task", ""), "start");
    assert_int_equal(n_allowed(vm), 0);
    bool taken = true;
    must(operation_take(&c, CLASS_VM, vm, "hard_shutdown", &taken));
    assert_false(taken);
    operation_end(&c, CLASS_VM, vm, "start");
    row = db_get(c.db, c.arena, &model_classes[CLASS_VM], vm);
    assert_int_equal(row_value(row, F_VM_current_operations)->len, 0);
    assert_true(allows(vm, "start"));
    must(operation_take(&c, CLASS_VM, vm, "hard_shutdown", &taken)); /* invalid, and taken all the same */
    assert_true(taken);
    must(db_delete(c.db, c.arena, CLASS_VM, vm));
    operation_end(&c, CLASS_VM, vm, "hard_shutdown"); /* of an object that is gone */
}

/* --- §2.9: waiting --------------------------------------------------------------------------------------------------- */
struct waiter {
    const char *vm;
    struct api_call c;
    struct cancel *cancel;
    struct error *error;
    atomic_bool done;
    pthread_t thread;
};

static void *wait_for_mark(void *arg)
{
    struct waiter *w = arg;
    w->error = operation_begin(&w->c, CLASS_VM, w->vm, "start", true);
    atomic_store(&w->done, true);
    return NULL;
}

static void waiter_start(struct waiter *w, const char *vm, const char *task)
{
    *w = (struct waiter){ .vm = vm, .cancel = cancel_new() };
    internal_call_init(&w->c, &W->xapi, arena_new(), "waiter");
    w->c.task = task;
    w->c.call.cancel = w->cancel;
    w->thread = thread_start("waiter", wait_for_mark, w);
}

static void waiter_join(struct waiter *w)
{
    assert_int_equal(pthread_join(w->thread, NULL), 0);
    cancel_unref(w->cancel);
}

static void holder_init(struct api_call *c, const char *vm)
{
    internal_call_init(c, &W->xapi, W->arena, "holder");
    c->task = "OpaqueRef:holder";
    must(operation_begin(c, CLASS_VM, vm, "clone", true));
}

static void test_wait_until_it_ends(void **state)
{
    const char *vm = core_vm(W, "waited for");
    struct api_call holder;
    struct waiter w;

    holder_init(&holder, vm);
    waiter_start(&w, vm, "OpaqueRef:waiter");
    set(vm, CLASS_VM, F_VM_name_description, S("something else changes")); /* wakes it in vain */
    assert_false(atomic_load(&w.done));
    operation_end(&holder, CLASS_VM, vm, "clone");
    waiter_join(&w);
    assert_null(w.error);
    operation_end(&w.c, CLASS_VM, vm, "start");
    arena_free(w.c.arena);
}

static void test_wait_is_cancelled(void **state)
{
    const char *vm = core_vm(W, "cancelled");
    struct api_call holder;
    struct waiter w;

    holder_init(&holder, vm);
    waiter_start(&w, vm, "OpaqueRef:waiter");
    cancel_raise(w.cancel);
    waiter_join(&w);
    assert_true(error_is(w.error, "TASK_CANCELLED"));
    assert_string_equal(w.error->params[0], "OpaqueRef:waiter");
    arena_free(w.c.arena);
    operation_end(&holder, CLASS_VM, vm, "clone");
}

/* A wait ends at once when what it waits for makes the operation invalid. */
static void test_wait_ends_with_other_error(void **state)
{
    const char *vm = core_vm(W, "started by another");
    struct api_call holder;
    struct waiter w;

    holder_init(&holder, vm);
    waiter_start(&w, vm, "OpaqueRef:waiter");
    set(vm, CLASS_VM, F_VM_power_state, S("Running"));
    waiter_join(&w);
    assert_true(error_is(w.error, "VM_BAD_POWER_STATE"));
    arena_free(w.c.arena);
    operation_end(&holder, CLASS_VM, vm, "clone");
}

/* More waiters than there may be are refused. */
static void test_too_many_waiters(void **state)
{
    enum { N = 101 };
    const char *vm = core_vm(W, "crowded");
    static struct waiter crowd[N];
    struct api_call holder;
    unsigned refused = 0;

    holder_init(&holder, vm);
    for (unsigned i = 0; i < N; i++)
        waiter_start(&crowd[i], vm, arena_printf(W->arena, "OpaqueRef:%u", i));
    for (unsigned i = 0; i < N; i++)
        cancel_raise(crowd[i].cancel);
    for (unsigned i = 0; i < N; i++) {
        waiter_join(&crowd[i]);
        assert_true(error_is(crowd[i].error, "TASK_CANCELLED") || error_is(crowd[i].error, "TOO_MANY_PENDING_TASKS"));
        refused += error_is(crowd[i].error, "TOO_MANY_PENDING_TASKS");
        arena_free(crowd[i].c.arena);
    }
    assert_true(refused <= 1);
    operation_end(&holder, CLASS_VM, vm, "clone");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mark_and_unmark),   cmocka_unit_test(test_wait_until_it_ends), cmocka_unit_test(test_wait_is_cancelled),
        cmocka_unit_test(test_wait_ends_with_other_error), cmocka_unit_test(test_too_many_waiters),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
