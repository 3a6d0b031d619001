/* The life of a domain, over every backend of xenops/backend.h. */
#include "tests/contract/xenops_world.h"

#define BUSY "sim-dirty-mib-s=8 sim-fill-mib=4 sim-working-set-mib=2"

static void start(struct host *h, const char *platform)
{
    struct domain_info info;

    assert_ok(xenops_start(&h->call, h->xenops, spec_of(h, VM_UUID, platform), false, &info));
    assert_int_equal(info.state, DOMAIN_RUNNING);
    assert_string_equal(info.uuid, VM_UUID);
}

static pid_t guest_pid(struct host *h, int domid)
{
    const char *record = tempdir_read(&h->dir, arena_printf(h->call.arena, "domains/%d/domain.json", domid));
    const char *pid = strstr(record, "\"pid\":");

    assert_non_null(pid);
    return (pid_t)text_number(h, pid + 6);
}

static void test_start_pause_unpause(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    assert_ok(xenops_start(&h->call, h->xenops, spec_of(h, VM_UUID, BUSY), true, &info));
    assert_int_equal(info.state, DOMAIN_PAUSED);
    assert_int_equal(info.memory_actual, 16 * MIB);
    assert_int_equal(info.vcpus, 2);
    assert_int_equal(guest_number(h, VM_UUID, "sim/pages_written"), 0);
    assert_ok(xenops_unpause(&h->call, h->xenops, VM_UUID));
    wait_number(h, VM_UUID, "sim/pages_written", 1024 + 100); /* the fill, and some */
    assert_ok(xenops_pause(&h->call, h->xenops, VM_UUID));
    assert_int_equal(info_of(h, VM_UUID).state, DOMAIN_PAUSED);
    long long written = guest_number(h, VM_UUID, "sim/pages_written");
    assert_ok(xenops_pause(&h->call, h->xenops, VM_UUID)); /* again: no harm */
    assert_int_equal(guest_number(h, VM_UUID, "sim/pages_written"), written);
    assert_ok(xenops_unpause(&h->call, h->xenops, VM_UUID));
    assert_runs(h, VM_UUID);
    assert_fails(xenops_resume(&h->call, h->xenops, VM_OTHER), "DOMAIN_NOT_FOUND");
    assert_fails(xenops_start(&h->call, h->xenops, spec_of(h, VM_UUID, BUSY), false, &info), "VM_BAD_POWER_STATE");
    assert_runs(h, VM_UUID); /* the failed start took nothing with it */
    host_close(h);
}

static void test_published_data(void **state)
{
    const struct nic_spec nic = { .device = "0", .mac = "52:54:00:0a:0b:0c", .bridge = "xenbr0", .mtu = 1500 };
    struct domain_info info;
    struct host *h = host_open(NULL);

    struct vm_spec *s = spec_of(h, VM_UUID, "sim-dirty-mib-s=0");
    s->nics = &nic;
    s->n_nics = 1;
    assert_ok(xenops_start(&h->call, h->xenops, s, false, &info));
    assert_string_equal(value_get_string(&info.guest, "control/feature-suspend", ""), "1");
    assert_string_equal(value_get_string(&info.guest, "attr/vif/0/ipv4/0", ""), "10.10.11.12");
    assert_ok(xenops_start(&h->call, h->xenops, spec_of(h, VM_OTHER, "sim-no-tools=true sim-cant-suspend-reason=busy%\nnow"), false, &info));
    assert_string_equal(value_get_string(&info.guest, "control/feature-suspend", "none"), "none");
    assert_string_equal(value_get_string(&info.guest, "data/cant_suspend_reason", ""), "busy%\nnow");
    host_close(h);
}

static void test_shutdown(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    assert_ok(xenops_shutdown(&h->call, h->xenops, VM_UUID, 20000));
    assert_fails(xenops_find(&h->call, h->xenops, VM_UUID, &info), "DOMAIN_NOT_FOUND");
    start(h, "sim-no-shutdown-ack=true");
    assert_fails(xenops_shutdown(&h->call, h->xenops, VM_UUID, 50), "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT");
    assert_runs(h, VM_UUID);
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID)); /* absent is fine */
    assert_fails(xenops_shutdown(&h->call, h->xenops, VM_UUID, 50), "DOMAIN_NOT_FOUND");
    host_close(h);
}

static void test_reboot(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    int domid = info_of(h, VM_UUID).domid;
    assert_ok(xenops_reboot(&h->call, h->xenops, spec_of(h, VM_UUID, BUSY), false, 20000, &info));
    assert_int_equal(info.domid, domid + 1);
    assert_runs(h, VM_UUID);
    assert_ok(xenops_reboot(&h->call, h->xenops, spec_of(h, VM_UUID, BUSY), true, 0, &info));
    assert_int_equal(info.domid, domid + 2);
    assert_runs(h, VM_UUID);
    host_close(h);
}

static void test_ends_of_their_own(void **state)
{
    static const struct { const char *platform; enum domain_end end; } cases[] = {
        { "sim-crash-after-ms=1", DOMAIN_END_CRASH },
        { "sim-shutdown-after-ms=1", DOMAIN_END_POWEROFF },
        { "sim-reboot-after-ms=1", DOMAIN_END_REBOOT },
    };
    struct host *h = host_open(NULL);

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        start(h, cases[i].platform);
        wait_state(h, VM_UUID, DOMAIN_ENDED);
        assert_int_equal(info_of(h, VM_UUID).end, cases[i].end);
        assert_fails(xenops_unpause(&h->call, h->xenops, VM_UUID), "VM_BAD_POWER_STATE");
        assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    }
    host_close(h);
}

static void test_kill_is_seen(void **state)
{
    struct host *h = host_open(NULL);

    start(h, BUSY);
    unsigned changes = atomic_load(&h->changes);
    kill(guest_pid(h, info_of(h, VM_UUID).domid), SIGKILL);
    wait_state(h, VM_UUID, DOMAIN_ENDED);
    assert_int_equal(info_of(h, VM_UUID).end, DOMAIN_END_KILLED);
    int64_t until = clock_ms(&clock_real) + WAIT_MS;
    while (atomic_load(&h->changes) == changes) {
        assert_true(clock_ms(&clock_real) < until);
        (void)poll(NULL, 0, 2);
    }
    host_close(h);
}

static void test_reopen_finds_guests(void **state)
{
    struct host *h = host_open(NULL);

    const char *witness = arena_printf(h->call.arena, "%s/witness", h->dir.path);
    start(h, BUSY);
    int domid = info_of(h, VM_UUID).domid;
    xenops_close(h->xenops);
    host_reopen(h, witness);
    assert_int_equal(info_of(h, VM_UUID).domid, domid);
    assert_runs(h, VM_UUID);
    assert_ok(xenops_pause(&h->call, h->xenops, VM_UUID));
    pid_t pid = guest_pid(h, domid);
    xenops_close(h->xenops);
    kill(pid, SIGKILL); /* while nobody looks */
    host_reopen(h, witness);
    wait_state(h, VM_UUID, DOMAIN_ENDED);
    assert_int_equal(info_of(h, VM_UUID).end, DOMAIN_END_KILLED);
    xenops_close(h->xenops);
    host_reopen(h, witness);
    assert_int_equal(info_of(h, VM_UUID).end, DOMAIN_END_KILLED); /* remembered */
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    start(h, BUSY);
    assert_true(info_of(h, VM_UUID).domid > domid);
    host_close(h);
}

static void test_rename(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    assert_ok(xenops_rename(&h->call, h->xenops, VM_UUID, VM_OTHER));
    assert_fails(xenops_find(&h->call, h->xenops, VM_UUID, &info), "DOMAIN_NOT_FOUND");
    assert_runs(h, VM_OTHER);
    start(h, BUSY);
    assert_fails(xenops_rename(&h->call, h->xenops, VM_UUID, VM_OTHER), "VM_BAD_POWER_STATE");
    assert_fails(xenops_rename(&h->call, h->xenops, "nobody", VM_UUID), "DOMAIN_NOT_FOUND");
    xenops_close(h->xenops);
    host_reopen(h, arena_printf(h->call.arena, "%s/witness", h->dir.path));
    assert_runs(h, VM_OTHER);
    assert_runs(h, VM_UUID);
    host_close(h);
}

static void test_memory(void **state)
{
    struct host_facts before, facts;
    struct domain_info info;
    struct host *h = host_open(NULL);

    assert_ok(xenops_facts(&h->call, h->xenops, &before));
    assert_int_equal(before.memory_total, 256 * MIB);
    assert_int_equal(before.memory_free, 256 * MIB);
    start(h, BUSY);
    assert_ok(xenops_facts(&h->call, h->xenops, &facts));
    assert_int_equal(facts.memory_free, 240 * MIB);
    struct vm_spec *big = spec_of(h, VM_OTHER, BUSY);
    big->memory_static_max = big->memory_dynamic_max = 241 * MIB;
    struct error *e = xenops_start(&h->call, h->xenops, big, false, &info);
    assert_true(error_is(e, "HOST_NOT_ENOUGH_FREE_MEMORY"));
    assert_string_equal(e->params[0], "252706816");
    assert_string_equal(e->params[1], "251658240");
    assert_ok(xenops_balloon(&h->call, h->xenops, VM_UUID, 8 * MIB));
    assert_int_equal(info_of(h, VM_UUID).memory_actual, 8 * MIB);
    assert_ok(xenops_facts(&h->call, h->xenops, &facts));
    assert_int_equal(facts.memory_free, 248 * MIB);
    assert_ok(xenops_start(&h->call, h->xenops, big, false, &info));
    assert_fails(xenops_balloon(&h->call, h->xenops, VM_UUID, 16 * MIB), "HOST_NOT_ENOUGH_FREE_MEMORY");
    assert_int_equal(info_of(h, VM_UUID).memory_target, 8 * MIB);
    assert_runs(h, VM_UUID);
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_OTHER));
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_ok(xenops_facts(&h->call, h->xenops, &facts));
    assert_int_equal(facts.memory_free, 256 * MIB);
    start(h, "sim-no-balloon=true");
    assert_ok(xenops_balloon(&h->call, h->xenops, VM_UUID, 8 * MIB));
    assert_int_equal(info_of(h, VM_UUID).memory_actual, 16 * MIB);
    assert_int_equal(info_of(h, VM_UUID).memory_target, 8 * MIB);
    host_close(h);
}

static void test_disks(void **state)
{
    struct disk_spec disk = { .device = "0", .vdi_uuid = VM_OTHER, .size = 8 * MIB };
    struct domain_info info;
    struct stat st;
    struct host *h = host_open(NULL);

    disk.path = tempdir_write(&h->dir, "disk", "");
    assert_int_equal(truncate(disk.path, disk.size), 0);
    struct vm_spec *s = spec_of(h, VM_UUID, "sim-disk-iops=2000 sim-dirty-mib-s=8");
    s->disks = &disk;
    s->n_disks = 1;
    assert_ok(xenops_start(&h->call, h->xenops, s, false, &info));
    wait_number(h, VM_UUID, "sim/blocks_written", 50);
    assert_ok(xenops_disk_unplug(&h->call, h->xenops, VM_UUID, &disk));
    long long written = guest_number(h, VM_UUID, "sim/blocks_written");
    assert_runs(h, VM_UUID);
    assert_int_equal(guest_number(h, VM_UUID, "sim/blocks_written"), written);
    assert_ok(xenops_disk_plug(&h->call, h->xenops, VM_UUID, &disk));
    wait_number(h, VM_UUID, "sim/blocks_written", written + 50);
    assert_int_equal(guest_number(h, VM_UUID, "sim/disk_errors"), 0);
    assert_int_equal(stat(disk.path, &st), 0);
    assert_int_equal(st.st_size, disk.size);
    host_close(h);
}

static void test_faults_and_queue(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    assert_true(fault_arm("xenops.start=error"));
    assert_fails(xenops_start(&h->call, h->xenops, spec_of(h, VM_UUID, BUSY), false, &info), "INTERNAL_ERROR");
    fault_disarm(NULL);
    assert_fails(xenops_find(&h->call, h->xenops, VM_UUID, &info), "DOMAIN_NOT_FOUND");
    start(h, BUSY);
    cancel_raise(h->call.cancel);
    assert_fails(xenops_shutdown(&h->call, h->xenops, VM_UUID, 20000), "TASK_CANCELLED");
    host_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_start_pause_unpause, hosts_close), cmocka_unit_test_teardown(test_published_data, hosts_close), cmocka_unit_test_teardown(test_shutdown, hosts_close),
        cmocka_unit_test_teardown(test_reboot, hosts_close),              cmocka_unit_test_teardown(test_ends_of_their_own, hosts_close), cmocka_unit_test_teardown(test_kill_is_seen, hosts_close),
        cmocka_unit_test_teardown(test_reopen_finds_guests, hosts_close), cmocka_unit_test_teardown(test_rename, hosts_close),         cmocka_unit_test_teardown(test_memory, hosts_close),
        cmocka_unit_test_teardown(test_disks, hosts_close),               cmocka_unit_test_teardown(test_faults_and_queue, hosts_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
