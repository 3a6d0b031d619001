/* The life of VMs through the dispatcher of a real daemon with simulated guests. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"

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

static void test_start_and_hard_shutdown(void **state)
{
    const char *vm = vm_world_vm(W, "start", NULL), *vdi = vm_world_vdi(W, "disk", 1 << 20), *vbd = vm_world_vbd(W, vm, vdi);

    assert_true(vm_world_allows(W, "VM", vm, "start"));
    assert_true(vm_world_allows(W, "VDI", vdi, "destroy"));
    vm_world_start(W, vm);
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    assert_string_equal(vm_field(W, "VM.get_resident_on", vm), W->host);
    assert_string_equal(vm_field(W, "VM.get_scheduled_to_be_resident_on", vm), REF_NULL);
    assert_string_not_equal(vm_field(W, "VM.get_domid", vm), "-1");
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vbd), "true");
    assert_string_equal(vm_field(W, "VBD.get_device", vbd), "xvda");
    assert_int_equal(vm_ok(W, "VBD.get_current_operations", 1, S(vbd)).len, 0);
    assert_int_equal(vm_ok(W, "VM.get_consoles", 1, S(vm)).len, 1);
    assert_false(vm_world_allows(W, "VM", vm, "start"));
    assert_true(vm_world_allows(W, "VM", vm, "hard_shutdown"));
    assert_false(vm_world_allows(W, "VDI", vdi, "destroy"));
    error_has(vm_fails(W, "VDI_IN_USE", "VDI.destroy", 1, S(vdi)), 2, vdi, "destroy");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
    assert_string_equal(vm_field(W, "VM.get_resident_on", vm), REF_NULL);
    assert_string_equal(vm_field(W, "VM.get_domid", vm), "-1");
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vbd), "false");
    assert_int_equal(vm_ok(W, "VM.get_consoles", 1, S(vm)).len, 0);
    assert_true(vm_world_allows(W, "VDI", vdi, "destroy"));
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.hard_shutdown", 1, S(vm)), 3, vm, "paused, suspended, running", "halted");
}

static void test_pause_and_unpause(void **state)
{
    const char *vm = vm_world_vm(W, "pause", NULL);

    vm_ok(W, "VM.start", 3, S(vm), value_bool(true), value_bool(false));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Paused");
    assert_true(vm_world_allows(W, "VM", vm, "unpause"));
    vm_ok(W, "VM.unpause", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    vm_ok(W, "VM.pause", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Paused");
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.pause", 1, S(vm)), 3, vm, "running", "paused");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static void test_clean_shutdown_and_reboot(void **state)
{
    const char *vm = vm_world_running(W, "clean", NULL), *before;

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "clean_shutdown"));
    before = vm_field(W, "VM.get_domid", vm);
    vm_ok(W, "VM.clean_reboot", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    assert_string_not_equal(vm_field(W, "VM.get_domid", vm), before);
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "clean_shutdown"));
    vm_ok(W, "VM.clean_shutdown", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
    vm_world_start(W, vm);
    vm_ok(W, "VM.hard_reboot", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    vm_ok(W, "VM.shutdown", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
}

static void test_suspend_and_resume(void **state)
{
    const char *vm = vm_world_running(W, "suspend", NULL), *image;

    vm_ok(W, "VM.set_suspend_SR", 2, S(vm), S(W->sr));
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
    vm_ok(W, "VM.suspend", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Suspended");
    assert_string_equal(vm_field(W, "VM.get_resident_on", vm), REF_NULL);
    image = vm_field(W, "VM.get_suspend_VDI", vm);
    assert_string_equal(vm_field(W, "VDI.get_type", image), "suspend");
    assert_string_equal(vm_field(W, "VDI.get_SR", image), W->sr);
    vm_ok(W, "VM.resume", 3, S(vm), value_bool(false), value_bool(false));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    assert_string_equal(vm_field(W, "VM.get_suspend_VDI", vm), REF_NULL);
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(image));
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
    vm_ok(W, "VM.suspend", 1, S(vm));
    image = vm_field(W, "VM.get_suspend_VDI", vm);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm)); /* drops the image */
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(image));
}

/* A guest that does not answer the suspend request runs on, and its image goes. */
static void test_suspend_that_fails(void **state)
{
    static const char *const deaf[] = { "sim-no-suspend-ack", "true", NULL };
    const char *vm = vm_world_running(W, "deaf", deaf);
    vm_ok(W, "VM.set_suspend_SR", 2, S(vm), S(W->sr));
    struct value before = vm_ok(W, "SR.get_VDIs", 1, S(W->sr));

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
    struct value ignored;
    const struct error *e = pool_call(&W->pool, 0, "VM.suspend", &ignored, 1, S(vm));
    assert_non_null(e);
    assert_string_equal(e->code, "VM_FAILED_SUSPEND_ACKNOWLEDGMENT");
    error_has(e, 1, vm);
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    assert_int_equal(vm_ok(W, "SR.get_VDIs", 1, S(W->sr)).len, before.len);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* Two VMs cannot run on one disk. */
static void test_disk_of_two(void **state)
{
    const char *a = vm_world_vm(W, "first", NULL), *b = vm_world_vm(W, "second", NULL), *vdi = vm_world_vdi(W, "disk", 1 << 20);

    vm_world_vbd(W, a, vdi);
    vm_world_vbd(W, b, vdi);
    vm_world_start(W, a);
    error_has(vm_fails(W, "VDI_IN_USE", "VM.start", 3, S(b), value_bool(false), value_bool(false)), 1, vdi);
    assert_string_equal(vm_field(W, "VM.get_power_state", b), "Halted");
    assert_string_equal(vm_field(W, "VM.get_scheduled_to_be_resident_on", b), REF_NULL);
    vm_ok(W, "VM.hard_shutdown", 1, S(a));
    vm_world_start(W, b);
    vm_ok(W, "VM.hard_shutdown", 1, S(b));
}

static void test_power_state_reset(void **state)
{
    const char *vm = vm_world_running(W, "reset", NULL);

    error_has(vm_fails(W, "DOMAIN_EXISTS", "VM.power_state_reset", 1, S(vm)), 2, vm, vm_field(W, "VM.get_domid", vm));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_ok(W, "VM.power_state_reset", 1, S(vm));
    const char *dom0 = vm_field(W, "host.get_control_domain", W->host);
    error_has(vm_fails(W, "OPERATION_NOT_ALLOWED", "VM.power_state_reset", 1, S(dom0)), 1, "This operation is not allowed on a control domain");
}

static void test_localhost_migration(void **state)
{
    const char *vm = vm_world_running(W, "here", NULL);
    const struct member live[] = { member_of("live", S("true")) };

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "pool_migrate"));
    vm_ok(W, "VM.pool_migrate", 3, S(vm), S(W->host), value_map(live, 1));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    assert_string_equal(vm_field(W, "VM.get_resident_on", vm), W->host);
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
    vm_ok(W, "VM.restart_device_models", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.restart_device_models", 1, S(vm)), 3, vm, "running", "halted");
}

static void test_memory_live(void **state)
{
    const char *vm = vm_world_vm(W, "balloon", NULL);
    int64_t half = VM_MEMORY / 2;

    vm_ok(W, "VM.set_memory_dynamic_range", 3, S(vm), value_int(half), value_int(VM_MEMORY));
    vm_world_start(W, vm);
    vm_ok(W, "VM.set_memory_dynamic_range", 3, S(vm), value_int(half), value_int(half));
    vm_ok(W, "VM.wait_memory_target_live", 1, S(vm));
    const char *metrics = vm_field(W, "VM.get_metrics", vm);
    POOL_UNTIL(vm_ok(W, "VM_metrics.get_memory_actual", 1, S(metrics)).i <= half + (1 << 20));
    vm_fails(W, "MEMORY_CONSTRAINT_VIOLATION", "VM.set_memory_dynamic_range", 3, S(vm), value_int(half), value_int(2 * VM_MEMORY));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- what goes wrong, and what comes in between ------------------------------------------------------------------ */
static void test_migration_networks(void **state)
{
    const char *vm = vm_world_running(W, "networks", NULL), *lonely;
    const struct member record[] = { member_of("name_label", S("lonely")) };

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "pool_migrate"));
    lonely = vm_ok(W, "network.create", 1, value_map(record, 1)).s;
    const struct member options[] = { member_of("network", S(lonely)) };
    error_has(vm_fails(W, "PIF_NOT_PRESENT", "VM.pool_migrate", 3, S(vm), S(W->host), value_map(options, 1)), 2, W->host, lonely);
    assert_string_equal(vm_field(W, "VM.get_scheduled_to_be_resident_on", vm), REF_NULL);
    assert_int_equal(vm_ok(W, "host.get_current_operations", 1, S(W->host)).len, 0);
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* The CPU is looked at before anything is marked; force does not look. */
static void test_migration_cpu(void **state)
{
    const char *vm = vm_world_running(W, "another CPU", NULL);
    const struct member force[] = { member_of("force", S("true")) };
    struct error *e = db_map_put(pool_xapi(&W->pool, 0)->db, W->pool.arena, CLASS_VM, vm, F_VM_last_boot_CPU_flags, "vendor", "Elbrus");

    assert_null(e);
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "pool_migrate"));
    error_has(vm_fails(W, "VM_INCOMPATIBLE_WITH_THIS_HOST", "VM.pool_migrate", 3, S(vm), S(W->host), value_map(NULL, 0)), 3, vm, W->host,
              "VM last booted on a host which had a CPU from a different vendor.");
    vm_ok(W, "VM.pool_migrate", 3, S(vm), S(W->host), value_map(force, 1));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static bool task_is(const char *task, const char *status)
{
    return strcmp(vm_field(W, "task.get_status", task), status) == 0;
}

/* A hard shutdown cancels a clean one that waits for a deaf guest. */
static void test_hard_beats_clean(void **state)
{
    static const char *const deaf[] = { "sim-no-shutdown-ack", "true", NULL };
    const char *vm = vm_world_running(W, "does not listen", deaf), *task;

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "clean_shutdown"));
    task = vm_ok(W, "Async.VM.clean_shutdown", 1, S(vm)).s;
    POOL_UNTIL(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len == 1 || !task_is(task, "pending"));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
    POOL_UNTIL(!task_is(task, "pending"));
    assert_false(task_is(task, "success"));
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
}

static void test_suspend_cancelled(void **state)
{
    static const char *const slow[] = { "sim-suspend-hangs", "true", NULL };
    const char *vm = vm_world_running(W, "slow", slow), *task;

    vm_ok(W, "VM.set_suspend_SR", 2, S(vm), S(W->sr));
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
    unsigned vdis = vm_ok(W, "SR.get_VDIs", 1, S(W->sr)).len;
    task = vm_ok(W, "Async.VM.suspend", 1, S(vm)).s;
    POOL_UNTIL(vm_ok(W, "SR.get_VDIs", 1, S(W->sr)).len > vdis || !task_is(task, "pending"));
    vm_ok(W, "task.cancel", 1, S(task));
    POOL_UNTIL(!task_is(task, "pending"));
    assert_true(task_is(task, "cancelled"));
    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Running");
    assert_int_equal(vm_ok(W, "SR.get_VDIs", 1, S(W->sr)).len, vdis);
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* VMs that share a disk, all started at once: one gets it. */
static void test_disk_raced_for(void **state)
{
    enum { N = 6 };
    const char *vdi = vm_world_vdi(W, "raced for", 1 << 20), *vms[N], *tasks[N];
    unsigned won = 0;

    for (unsigned i = 0; i < N; i++) {
        vms[i] = vm_world_vm(W, arena_printf(W->pool.arena, "racer %u", i), NULL);
        vm_world_vbd(W, vms[i], vdi);
    }
    for (unsigned i = 0; i < N; i++)
        tasks[i] = vm_ok(W, "Async.VM.start", 3, S(vms[i]), value_bool(false), value_bool(false)).s;
    for (unsigned i = 0; i < N; i++) {
        POOL_UNTIL(!task_is(tasks[i], "pending"));
        won += task_is(tasks[i], "success");
        assert_true(task_is(tasks[i], "success") == vm_state_is(W, vms[i], "Running"));
    }
    assert_int_equal(won, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_and_hard_shutdown),
        cmocka_unit_test(test_pause_and_unpause),
        cmocka_unit_test(test_clean_shutdown_and_reboot),
        cmocka_unit_test(test_suspend_and_resume),
        cmocka_unit_test(test_suspend_that_fails),
        cmocka_unit_test(test_disk_of_two),
        cmocka_unit_test(test_power_state_reset),
        cmocka_unit_test(test_localhost_migration),
        cmocka_unit_test(test_memory_live),
        cmocka_unit_test(test_migration_networks),
        cmocka_unit_test(test_migration_cpu),
        cmocka_unit_test(test_hard_beats_clean),
        cmocka_unit_test(test_suspend_cancelled),
        cmocka_unit_test(test_disk_raced_for),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
