/* Rows of VMs follow what hosts report: guests that end by themselves, stale reports, guest data. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/agent.h"

static struct vm_world world;
#define W (&world)

static int setup(void **state)
{
    vm_world_init(W);
    return 0;
}

static int teardown(void **state)
{
    vm_world_release(W);
    return 0;
}

static struct xapi *host_xapi(void)
{
    return pool_xapi(&W->pool, 0);
}

/* The host's domain of a VM ends in a way the test chooses. */
static void agent_do(const char *verb, const char *vm)
{
    struct api_call c;
    internal_call_init(&c, host_xapi(), W->pool.arena, "test");
    struct member args[] = { member_of("uuid", S(vm_field(W, "VM.get_uuid", vm))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *e = agent_call(&c, W->host, verb, &v, &ignored);
    if (e != NULL)
        fail_msg("%s: %s", verb, error_text(c.arena, e));
}

static struct value domain(const char *vm, const char *state, const char *end)
{
    struct value_dict d = { 0 };
    value_dict_add(W->pool.arena, &d, "uuid", S(vm_field(W, "VM.get_uuid", vm)));
    value_dict_add(W->pool.arena, &d, "domid", value_int(99));
    value_dict_add(W->pool.arena, &d, "state", S(state));
    value_dict_add(W->pool.arena, &d, "end", S(end));
    value_dict_add(W->pool.arena, &d, "memory_actual", value_int(VM_MEMORY));
    return value_dict_value(&d);
}

static void report(const struct value *domains, unsigned n)
{
    struct value set = value_set(domains, n);
    vm_reconcile(host_xapi(), W->host, &set);
}

/* --- guests that end by themselves ----------------------------------------------------------------------------- */
static void test_poweroff(void **state)
{
    static const char *const soon[] = { "sim-shutdown-after-ms", "300", NULL };
    const char *vm = vm_world_running(W, "poweroff", soon);

    POOL_UNTIL(vm_state_is(W, vm, "Halted"));
    assert_string_equal(vm_field(W, "VM.get_resident_on", vm), REF_NULL);
    POOL_UNTIL(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len == 0);
    assert_true(vm_world_allows(W, "VM", vm, "start"));
}

/* A user who blocks shutting down does not block that it happened. */
static void test_poweroff_while_blocked(void **state)
{
    static const char *const soon[] = { "sim-shutdown-after-ms", "300", NULL };
    const char *vm = vm_world_vm(W, "blocked", soon);
    const struct member blocked[] = { member_of("hard_shutdown", S("NO")), member_of("clean_shutdown", S("NO")) };

    vm_ok(W, "VM.set_blocked_operations", 2, S(vm), value_map(blocked, ARRAY_LEN(blocked)));
    vm_world_start(W, vm);
    POOL_UNTIL(vm_state_is(W, vm, "Halted"));
}

static void test_reboot(void **state)
{
    static const char *const soon[] = { "sim-reboot-after-ms", "300", NULL };
    const char *vm = vm_world_running(W, "reboot", soon), *first = vm_field(W, "VM.get_domid", vm);

    POOL_UNTIL(strcmp(vm_field(W, "VM.get_domid", vm), first) != 0 && vm_state_is(W, vm, "Running"));
    vm_ok(W, "VM.set_actions_after_reboot", 2, S(vm), S("destroy"));
    POOL_UNTIL(vm_state_is(W, vm, "Halted"));
}

static void test_crash(void **state)
{
    static const char *const soon[] = { "sim-crash-after-ms", "300", NULL };
    const char *vm = vm_world_vm(W, "crash", soon), *first;

    vm_ok(W, "VM.set_actions_after_crash", 2, S(vm), S("destroy"));
    vm_world_start(W, vm);
    POOL_UNTIL(vm_state_is(W, vm, "Halted"));
    vm_ok(W, "VM.set_actions_after_crash", 2, S(vm), S("restart"));
    vm_world_start(W, vm);
    first = vm_field(W, "VM.get_domid", vm);
    POOL_UNTIL(strcmp(vm_field(W, "VM.get_domid", vm), first) != 0 && strcmp(vm_field(W, "VM.get_domid", vm), "-1") != 0);
    vm_ok(W, "VM.set_actions_after_crash", 2, S(vm), S("preserve"));
    POOL_UNTIL(vm_state_is(W, vm, "Paused"));
    POOL_UNTIL(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len == 0);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
}

/* A domain that vanished without a trace: nobody has it, so its VM is halted. */
static void test_vanished(void **state)
{
    const char *vm = vm_world_running(W, "vanished", NULL);

    agent_do("vm.destroy", vm);
    POOL_UNTIL(vm_state_is(W, vm, "Halted"));
}

/* The row says halted, the host has a domain (the answer to a start was lost): the row follows. */
static void test_found_running(void **state)
{
    const char *vm = vm_world_running(W, "found", NULL);
    struct api_call c;

    internal_call_init(&c, host_xapi(), W->pool.arena, "test");
    AUTO_TXN txn = txn_begin(c.db, c.arena);
    struct error *e = vm_set_power_state(&c, txn, vm, "Halted", NULL, -1);
    assert_null(e);
    e = txn_commit(txn, NULL);
    assert_null(e);
    POOL_UNTIL(vm_state_is(W, vm, "Running"));
    assert_string_equal(vm_field(W, "VM.get_resident_on", vm), W->host);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- stale reports ------------------------------------------------------------------------------------------------ */
static void test_stale_reports(void **state)
{
    const char *vm = vm_world_running(W, "stale", NULL), *halted = vm_world_vm(W, "never started", NULL);
    struct value ended = domain(vm, "ended", "poweroff"), ghost = domain(halted, "running", ""), saving = domain(vm, "suspended", "");

    report(NULL, 0); /* made before it was started */
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    report(&ended, 1);
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    report(&saving, 1);
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    report(&ghost, 1); /* made before it was shut down */
    assert_string_equal(vm_field(W, "VM.get_power_state", halted), "Halted");
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* What an operation works on is its own affair. */
static void test_left_to_operations(void **state)
{
    const char *vm = vm_world_running(W, "busy", NULL);
    struct api_call c;

    internal_call_init(&c, host_xapi(), W->pool.arena, "test");
    c.task = "OpaqueRef:somebody";
    struct error *e = operation_begin(&c, CLASS_VM, vm, "hard_shutdown", true);
    assert_null(e);
    agent_do("vm.destroy", vm);
    report(NULL, 0);
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    operation_end(&c, CLASS_VM, vm, "hard_shutdown");
    report(NULL, 0);
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
}

/* A reservation that outlived its operation (the daemon died) goes with the host's next report. */
static void test_stale_reservation(void **state)
{
    const char *vm = vm_world_vm(W, "reserved", NULL);
    struct error *e = db_set(host_xapi()->db, W->pool.arena, CLASS_VM, vm, F_VM_scheduled_to_be_resident_on, S(W->host));

    assert_null(e);
    POOL_UNTIL(strcmp(vm_field(W, "VM.get_scheduled_to_be_resident_on", vm), REF_NULL) == 0);
}

/* --- what guests tell ----------------------------------------------------------------------------------------------- */
static void test_guest_data(void **state)
{
    const char *vm = vm_world_running(W, "talking", NULL), *guest, *metrics = vm_field(W, "VM.get_metrics", vm);

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "pool_migrate"));
    guest = vm_field(W, "VM.get_guest_metrics", vm);
    struct value drivers = vm_ok(W, "VM_guest_metrics.get_PV_drivers_version", 1, S(guest)), os = vm_ok(W, "VM_guest_metrics.get_os_version", 1, S(guest));
    assert_string_equal(value_get_string(&drivers, "major", ""), "8");
    assert_string_equal(value_get_string(&os, "distro", ""), "simulated");
    assert_string_equal(vm_field(W, "VM_guest_metrics.get_PV_drivers_detected", guest), "true");
    assert_int_equal(vm_ok(W, "VM_metrics.get_memory_actual", 1, S(metrics)).i, VM_MEMORY);
    assert_string_equal(vm_field(W, "VM_metrics.get_current_domain_type", metrics), "hvm");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_guest_metrics", vm), REF_NULL);
}

static void test_guest_without_tools(void **state)
{
    static const char *const bare[] = { "sim-no-tools", "true", NULL };
    const char *vm = vm_world_running(W, "bare", bare);

    error_has(vm_fails(W, "VM_LACKS_FEATURE", "VM.suspend", 1, S(vm)), 1, vm);
    assert_false(vm_world_allows(W, "VM", vm, "pool_migrate"));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static void test_guest_that_cannot_suspend(void **state)
{
    static const char *const reason[] = { "sim-cant-suspend-reason", "burning a disc", NULL };
    const char *vm = vm_world_running(W, "not now", reason);

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "clean_shutdown"));
    error_has(vm_fails(W, "VM_NON_SUSPENDABLE", "VM.suspend", 1, S(vm)), 2, vm, "burning a disc");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- a restart of the daemon -------------------------------------------------------------------------------------------- */
static void test_restart(void **state)
{
    const char *vm = vm_world_running(W, "survivor", NULL), *idle = vm_world_vm(W, "idle", NULL);
    const char *uuid = arena_strdup(W->pool.arena, vm_field(W, "VM.get_uuid", vm));

    pool_host_stop(&W->pool, 0);
    pool_host_start(&W->pool, 0);
    W->host = pool_host_ref(&W->pool, 0);
    assert_string_equal(vm_field(W, "VM.get_uuid", vm), uuid);
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "hard_shutdown"));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    POOL_UNTIL(vm_world_allows(W, "VM", idle, "start"));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poweroff),         cmocka_unit_test(test_poweroff_while_blocked), cmocka_unit_test(test_reboot),
        cmocka_unit_test(test_crash),            cmocka_unit_test(test_vanished),               cmocka_unit_test(test_found_running),
        cmocka_unit_test(test_stale_reports),    cmocka_unit_test(test_left_to_operations),     cmocka_unit_test(test_stale_reservation),
        cmocka_unit_test(test_guest_data),       cmocka_unit_test(test_guest_without_tools),    cmocka_unit_test(test_guest_that_cannot_suspend),
        cmocka_unit_test(test_restart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
