/* Names, arity, types and defaults of calls, as the dispatcher sees them. */
#include <math.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/core_world.h"
#include "tests/lib/unit.h"

static int setup(void **state)
{
    static struct core_world w;

    core_world_init(&w);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    core_world_release(*state);
    return 0;
}

static void test_names_aliases(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");

    core_is_string(core_ok(w, "VM.get_name_label", 1, S(vm)), "one");
    core_is_string(core_ok(w, "VM_get_name_label", 1, S(vm)), "one");
    core_ok(w, "VM_guest_metrics.get_all", 0);
    core_ok(w, "VM_guest_metrics_get_all", 0);
    core_ok(w, "event_get_current_id", 0);
}

static void test_names_unknown(void **state)
{
    struct core_world *w = *state;
    const struct error *e;

    e = core_fails(w, "MESSAGE_METHOD_UNKNOWN", "VM.no_such", 0);
    assert_string_equal(e->params[0], "VM.no_such");
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "vm.get_all", 0); /* case matters */
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "nonsense", 0);
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "", 0);
    core_fails_as(w, "OpaqueRef:bad", "SESSION_INVALID", "VM.no_such", 0); /* the session is looked at first */
}

static void test_session_invalid(void **state)
{
    struct core_world *w = *state;
    const struct error *e = core_fails_as(w, "OpaqueRef:gone", "SESSION_INVALID", "VM.get_all", 0);

    assert_int_equal(e->n_params, 1);
    assert_string_equal(e->params[0], "OpaqueRef:gone");
}

static void test_arity(void **state)
{
    struct core_world *w = *state;
    const struct error *e;

    e = core_fails(w, "MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_name_label", 0);
    assert_string_equal(e->params[0], "VM.get_name_label");
    assert_string_equal(e->params[1], "1");
    assert_string_equal(e->params[2], "0");
    e = core_fails(w, "MESSAGE_PARAMETER_COUNT_MISMATCH", "task_create", 3, S("a"), S("b"), S("c"));
    assert_string_equal(e->params[0], "task_create"); /* as the client spelt it */
    assert_string_equal(e->params[1], "2");
    assert_string_equal(e->params[2], "3");
}

static void test_arity_without_session(void **state)
{
    struct core_world *w = *state;
    struct value none = value_set(NULL, 0), result;

    assert_true(error_is(core_call_raw(w, "VM.get_all", &none, false, &result), "MESSAGE_PARAMETER_COUNT_MISMATCH"));
}

static void test_types_int(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");

    core_ok(w, "VM.set_user_version", 2, S(vm), S("5"));
    assert_int_equal(core_ok(w, "VM.get_user_version", 1, S(vm)).i, 5);
    core_ok(w, "VM.set_user_version", 2, S(vm), value_float(7.0));
    assert_int_equal(core_ok(w, "VM.get_user_version", 1, S(vm)).i, 7);
    core_ok(w, "VM.set_user_version", 2, S(vm), value_int(-9));
    assert_int_equal(core_ok(w, "VM.get_user_version", 1, S(vm)).i, -9);
    core_fails(w, "INTERNAL_ERROR", "VM.set_user_version", 2, S(vm), value_float(7.5));
    core_fails(w, "INTERNAL_ERROR", "VM.set_user_version", 2, S(vm), value_float(NAN));
    core_fails(w, "INTERNAL_ERROR", "VM.set_user_version", 2, S(vm), S("5x"));
    core_fails(w, "INTERNAL_ERROR", "VM.set_user_version", 2, S(vm), S(""));
    core_fails(w, "INTERNAL_ERROR", "VM.set_user_version", 2, S(vm), S("9223372036854775808"));
    core_fails(w, "INTERNAL_ERROR", "VM.set_user_version", 2, S(vm), value_bool(true));
}

static void test_types_bool(void **state)
{
    struct core_world *w = *state;
    const char *vif = core_row(w, CLASS_VBD, NULL, 0);

    core_ok(w, "VBD.set_unpluggable", 2, S(vif), value_bool(false));
    core_fails(w, "INTERNAL_ERROR", "VBD.set_unpluggable", 2, S(vif), S("true"));
    core_fails(w, "INTERNAL_ERROR", "VBD.set_unpluggable", 2, S(vif), value_int(1));
}

static void test_types_map_and_set(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    const struct member good[] = { member_of("a", S("b")) }, bad[] = { member_of("a", value_set(NULL, 0)) };
    const struct value tags[] = { S("x"), S("y") }, not_tags[] = { S("x"), value_bool(true) };

    core_ok(w, "VM.set_other_config", 2, S(vm), value_map(good, 1));
    core_fails(w, "INTERNAL_ERROR", "VM.set_other_config", 2, S(vm), value_map(bad, 1));
    core_fails(w, "INTERNAL_ERROR", "VM.set_other_config", 2, S(vm), S("a"));
    core_ok(w, "VM.set_tags", 2, S(vm), value_set(tags, 2));
    core_fails(w, "INTERNAL_ERROR", "VM.set_tags", 2, S(vm), value_set(not_tags, 2));
}

static void test_types_text(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");

    core_fails(w, "INVALID_VALUE", "VM.set_name_label", 2, S(vm), S("a\x01" "b"));
    core_fails(w, "INVALID_VALUE", "VM.set_name_label", 2, S(vm), S("a\xef\xbf\xbf"));
    core_ok(w, "VM.set_name_label", 2, S(vm), S("tab\tline\nü"));
}

static void test_refs(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    const struct error *e;

    e = core_fails(w, "HANDLE_INVALID", "VM.get_record", 1, S("OpaqueRef:nowhere"));
    assert_string_equal(e->params[0], "VM");
    assert_string_equal(e->params[1], "OpaqueRef:nowhere");
    e = core_fails(w, "HANDLE_INVALID", "VM.set_affinity", 2, S(vm), S("OpaqueRef:nowhere"));
    assert_string_equal(e->params[0], "host");
    core_ok(w, "VM.set_affinity", 2, S(vm), S(w->host));
    core_ok(w, "VM.set_affinity", 2, S(vm), S(""));
    core_is_string(core_ok(w, "VM.get_affinity", 1, S(vm)), REF_NULL);
    core_fails(w, "HANDLE_INVALID", "task.destroy", 1, S(REF_NULL));
}

static void test_by_name(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    const struct member args[] = {
        member_of("value", S("two")), member_of("self", S(vm)), member_of("session_id", S(w->session)),
    };
    struct value params = value_map(args, 3), missing = value_map(args + 1, 2), result;

    assert_null(core_call_raw(w, "VM.set_name_label", &params, false, &result));
    core_is_string(core_ok(w, "VM.get_name_label", 1, S(vm)), "two");
    struct error *e = core_call_raw(w, "VM.set_name_label", &missing, false, &result);
    assert_true(error_is(e, "MESSAGE_PARAMETER_COUNT_MISMATCH"));
}

static void test_system_calls(void **state)
{
    struct core_world *w = *state;
    struct value none = value_set(NULL, 0), one = S("echo"), echo = value_set(&one, 1), result;

    assert_null(core_call_raw(w, "system.listMethods", &none, false, &result));
    assert_int_equal(result.kind, VALUE_SET);
    assert_true(result.len > 1500);
    assert_true(value_set_has(&result, "VM.get_all_records"));
    assert_true(value_set_has(&result, "VM.pool_migrate"));
    assert_true(value_set_has(&result, "pool.add_to_other_config"));
    assert_null(core_call_raw(w, "system.isAlive:me", &echo, false, &result));
    core_is_string(result, "echo");
}

static void test_starting_and_member(void **state)
{
    struct core_world *w = *state;
    struct xapi *x = &w->xapi;

    atomic_store(&x->serving, false);
    core_fails(w, "HOST_STILL_BOOTING", "VM.get_all", 0);
    atomic_store(&x->serving, true);
    x->is_coordinator = false;
    x->coordinator_address = "127.0.9.9";
    const struct error *e = core_fails(w, "HOST_IS_SLAVE", "VM.get_all", 0);
    assert_string_equal(e->params[0], "127.0.9.9");
    core_fails_as(w, "OpaqueRef:bad", "HOST_IS_SLAVE", "VM.get_all", 0);
    x->is_coordinator = true;
}

static void test_async_refused(void **state)
{
    struct core_world *w = *state;
    const struct error *e = core_fails(w, "Fault", "Async.VM.get_all", 0);

    assert_string_equal(e->params[0], "No async mode for this operation (rpc: Async.VM.get_all)");
    core_fails(w, "Fault", "Async.task.create", 2, S("a"), S("b"));
    core_fails(w, "Fault", "Async.session.logout", 0);
    core_fails_as(w, "OpaqueRef:bad", "SESSION_INVALID", "Async.VM.clone", 2, S("x"), S("y"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_aliases),
        cmocka_unit_test(test_names_unknown),
        cmocka_unit_test(test_session_invalid),
        cmocka_unit_test(test_arity),
        cmocka_unit_test(test_arity_without_session),
        cmocka_unit_test(test_types_int),
        cmocka_unit_test(test_types_bool),
        cmocka_unit_test(test_types_map_and_set),
        cmocka_unit_test(test_types_text),
        cmocka_unit_test(test_refs),
        cmocka_unit_test(test_by_name),
        cmocka_unit_test(test_system_calls),
        cmocka_unit_test(test_starting_and_member),
        cmocka_unit_test(test_async_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
