/* VM.snapshot, checkpoint and revert through the dispatcher of a real daemon: rows, contents, failures at each step. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/vdi_path.h"
#include "xapi/core/vm_run.h"
#include "xapi/pool/vm_wake.h"

#define MIB (1ll << 20)

static struct vm_world world;
#define W (&world)
#define A (W->pool.arena)

static int setup(void **state)
{
    vm_world_init(W);
    return 0;
}

static int teardown(void **state)
{
    fault_disarm(NULL);
    vm_world_release(W);
    return 0;
}

/* --- aids ---------------------------------------------------------------------------------------------------- */
/* Raw, so that the test can look into it. */
static const char *raw_disk(const char *name)
{
    const struct member type[] = { member_of("type", S("raw")) }, other[] = { member_of("colour", S("blue")) };
    const struct member record[] = {
        member_of("name_label", S(name)), member_of("SR", S(W->sr)), member_of("virtual_size", value_int(MIB)), member_of("type", S("user")),
        member_of("sm_config", value_map(type, 1)), member_of("other_config", value_map(other, 1)),
    };

    return vm_ok(W, "VDI.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

static const char *image_path(struct api_call *c, const char *vdi)
{
    const struct vdi_path_use use = { .user = "test", .direct = true, .activate = true };
    const char *path;

    internal_call_init(c, pool_xapi(&W->pool, 0), A, "test");
    struct error *error = vdi_path(c, vdi, W->host, &use, &path);
    if (error != NULL)
        fail_msg("vdi_path: %s", error_text(A, error));
    return path;
}

static void write_word(const char *vdi, const char *word)
{
    struct api_call c;
    int fd = open(image_path(&c, vdi), O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, word, strlen(word), 4096), strlen(word));
    close(fd);
    vdi_path_release(&c, vdi, W->host, "test");
}

static void has_word(const char *vdi, const char *word)
{
    struct api_call c;
    char found[16] = "";
    int fd = open(image_path(&c, vdi), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, found, strlen(word), 4096), strlen(word));
    close(fd);
    vdi_path_release(&c, vdi, W->host, "test");
    assert_string_equal(found, word);
}

static const char *disk_at(const char *vm, const char *device)
{
    struct value vbds = vm_ok(W, "VM.get_VBDs", 1, S(vm));

    for (unsigned i = 0; i < vbds.len; i++)
        if (strcmp(vm_field(W, "VBD.get_userdevice", vbds.items[i].s), device) == 0)
            return vm_field(W, "VBD.get_VDI", vbds.items[i].s);
    fail_msg("no device %s", device);
    return NULL;
}

static void plug_in(const char *vm, const char *vdi, const char *device)
{
    vm_ok(W, "VBD.create", 1, vm_world_vbd_record(W, vm, vdi, device, "RW", "Disk"));
}

static const char *map_entry(const char *getter, const char *ref, const char *key)
{
    struct value map = vm_ok(W, getter, 1, S(ref));
    return arena_strdup(A, value_get_string(&map, key, "-"));
}

static const char *snapshot(const char *vm, const char *name)
{
    return vm_ok(W, "VM.snapshot", 2, S(vm), S(name)).s;
}

struct counts { unsigned vms, vdis, vbds, vifs, metrics; };

static struct counts count(void)
{
    return (struct counts) { vm_ok(W, "VM.get_all", 0).len, vm_ok(W, "VDI.get_all", 0).len, vm_ok(W, "VBD.get_all", 0).len,
                             vm_ok(W, "VIF.get_all", 0).len, vm_ok(W, "VM_metrics.get_all", 0).len };
}

static void unchanged(struct counts before)
{
    struct counts now = count();

    assert_int_equal(now.vms, before.vms);
    assert_int_equal(now.vdis, before.vdis);
    assert_int_equal(now.vbds, before.vbds);
    assert_int_equal(now.vifs, before.vifs);
    assert_int_equal(now.metrics, before.metrics);
    assert_int_equal(vm_ok(W, "SR.get_current_operations", 1, S(W->sr)).len, 0);
}

static const char *vm_with_disk(const char *name, const char *const *platform)
{
    const char *vm = vm_world_vm(W, name, platform), *disk = raw_disk(arena_printf(A, "%s 0", name));
    const struct member vif[] = { member_of("VM", S(vm)), member_of("device", S("0")), member_of("network", S(vm_ok(W, "network.get_all", 0).items[0].s)) };

    plug_in(vm, disk, "0");
    vm_ok(W, "VIF.create", 1, value_map(vif, ARRAY_LEN(vif)));
    write_word(disk, "first");
    return vm;
}

static void run(const char *vm)
{
    vm_world_start(W, vm);
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
}

/* --- snapshot -------------------------------------------------------------------------------------------------- */
static void test_rows(void **state)
{
    const char *vm = vm_with_disk("rows", NULL), *disk = disk_at(vm, "0"), *snap = snapshot(vm, "snap"), *copy = disk_at(snap, "0");

    assert_string_equal(vm_field(W, "VM.get_name_label", snap), "snap");
    assert_string_equal(vm_field(W, "VM.get_is_a_snapshot", snap), "true");
    assert_string_equal(vm_field(W, "VM.get_is_a_template", snap), "true");
    assert_string_equal(vm_field(W, "VM.get_snapshot_of", snap), vm);
    assert_string_equal(vm_field(W, "VM.get_power_state", snap), "Halted");
    assert_true(vm_ok(W, "VM.get_snapshot_time", 1, S(snap)).i > 1000000);
    assert_string_equal(map_entry("VM.get_snapshot_info", snap, "power-state-at-snapshot"), "Halted");
    assert_string_equal(map_entry("VM.get_snapshot_info", snap, "disk-snapshot-type"), "crash_consistent");
    assert_string_equal(map_entry("VM.get_other_config", snap, "mac_seed"), map_entry("VM.get_other_config", vm, "mac_seed"));
    assert_string_equal(vm_field(W, "VM.get_parent", vm), snap);
    assert_string_equal(vm_field(W, "VM.get_parent", snap), REF_NULL);
    assert_string_equal(vm_field(W, "VM.get_transportable_snapshot_id", snap), "");
    assert_true(strlen(vm_field(W, "VM.get_snapshot_metadata", snap)) > 100);
    assert_string_equal(vm_ok(W, "VM.get_snapshots", 1, S(vm)).items[0].s, snap);
    assert_string_equal(vm_field(W, "VIF.get_MAC", vm_ok(W, "VM.get_VIFs", 1, S(snap)).items[0].s),
                        vm_field(W, "VIF.get_MAC", vm_ok(W, "VM.get_VIFs", 1, S(vm)).items[0].s));
    assert_string_equal(map_entry("VBD.get_other_config", vm_ok(W, "VM.get_VBDs", 1, S(snap)).items[0].s, "owner"), "");
    assert_true(vm_world_allows(W, "VM", snap, "revert"));
    assert_false(vm_world_allows(W, "VM", snap, "start"));

    assert_string_not_equal(copy, disk);
    assert_string_equal(vm_field(W, "VDI.get_is_a_snapshot", copy), "true");
    assert_string_equal(vm_field(W, "VDI.get_snapshot_of", copy), disk);
    assert_string_equal(vm_ok(W, "VDI.get_snapshots", 1, S(disk)).items[0].s, copy);
    assert_true(vm_ok(W, "VDI.get_snapshot_time", 1, S(copy)).i > 1000000);
    assert_string_equal(vm_field(W, "VDI.get_name_label", copy), vm_field(W, "VDI.get_name_label", disk));
    assert_string_equal(map_entry("VDI.get_other_config", copy, "colour"), "blue");
    has_word(copy, "first");
}

/* The tree of snapshots, and what is left of it when one goes. */
static void test_tree(void **state)
{
    const char *vm = vm_with_disk("tree", NULL), *a = snapshot(vm, "a"), *b = snapshot(vm, "b"), *c = snapshot(vm, "c");

    assert_string_equal(vm_field(W, "VM.get_parent", b), a);
    assert_string_equal(vm_field(W, "VM.get_parent", c), b);
    assert_string_equal(vm_field(W, "VM.get_parent", vm), c);
    const char *disk = disk_at(b, "0");
    vm_ok(W, "VM.destroy", 1, S(b));
    assert_string_equal(vm_field(W, "VM.get_parent", c), a);
    assert_string_equal(vm_field(W, "VDI.get_is_a_snapshot", disk), "true"); /* disks stay: the client removes them */
    vm_ok(W, "VDI.destroy", 1, S(disk));
    vm_ok(W, "VM.revert", 1, S(a));
    assert_string_equal(vm_field(W, "VM.get_parent", vm), a);
    assert_int_equal(vm_ok(W, "VM.get_children", 1, S(a)).len, 2);
    vm_ok(W, "VM.destroy", 1, S(a));
    assert_string_equal(vm_field(W, "VM.get_parent", vm), REF_NULL);
}

static void test_running_and_ignored(void **state)
{
    const char *vm = vm_with_disk("running", NULL), *second = raw_disk("second");
    plug_in(vm, second, "1");
    plug_in(vm, raw_disk("third"), "2");
    run(vm);
    struct value one = S(second), ignore = value_set(&one, 1);
    const char *snap = vm_ok(W, "VM.snapshot", 3, S(vm), S("live"), ignore).s;

    assert_int_equal(vm_ok(W, "VM.get_VBDs", 1, S(snap)).len, 2);
    assert_string_equal(vm_field(W, "VDI.get_snapshot_of", disk_at(snap, "2")), disk_at(vm, "2"));
    assert_string_equal(map_entry("VM.get_snapshot_info", snap, "power-state-at-snapshot"), "Running");
    assert_string_equal(vm_field(W, "VM.get_power_state", snap), "Halted");
    assert_true(vm_state_is(W, vm, "Running"));
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vm_ok(W, "VM.get_VBDs", 1, S(snap)).items[0].s), "false");
    error_has(vm_fails(W, "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", "VM.snapshot_with_quiesce", 2, S(vm), S("x")), 1, vm);
    error_has(vm_fails(W, "VM_IS_SNAPSHOT", "VM.snapshot", 2, S(snap), S("x")), 2, snap, "snapshot");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static void test_snapshot_that_fails(void **state)
{
    static const char *const faults[] = { "vm.snapshot.disk=error@1", "vm.snapshot.disk=error@2", "vm.snapshot.rows=error", "sr.vdi_snapshot=error@2" };
    const char *vm = vm_with_disk("fails", NULL);

    plug_in(vm, raw_disk("second"), "1");
    struct counts before = count();
    for (unsigned i = 0; i < ARRAY_LEN(faults); i++) {
        struct value ignored;
        assert_true(fault_arm(faults[i]));
        assert_non_null(pool_call(&W->pool, 0, "VM.snapshot", &ignored, 2, S(vm), S("x")));
        fault_disarm(NULL);
        unchanged(before);
        assert_string_equal(vm_field(W, "VM.get_parent", vm), REF_NULL);
        assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
    }
}

/* A cancel between two disks: TASK_CANCELLED, and nothing is left. */
static void test_snapshot_cancelled(void **state)
{
    const char *vm = vm_with_disk("cancelled", NULL), *task;

    plug_in(vm, raw_disk("second"), "1");
    struct counts before = count();
    assert_true(fault_arm("sr.vdi_snapshot=stop@1")); /* in the middle of the first */
    task = vm_ok(W, "Async.VM.snapshot", 2, S(vm), S("x")).s;
    POOL_UNTIL(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len == 1 && vm_ok(W, "VDI.get_all", 0).len > before.vdis);
    vm_ok(W, "task.cancel", 1, S(task));
    fault_disarm(NULL);
    POOL_UNTIL(strcmp(vm_field(W, "task.get_status", task), "cancelled") == 0);
    POOL_UNTIL(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len == 0);
    unchanged(before);
}

static void test_blocked(void **state)
{
    const char *vm = vm_with_disk("blocked", NULL);
    const struct member blocked[] = { member_of("snapshot", S("MY_REASON")), member_of("revert", S("NO")) };

    vm_ok(W, "VM.set_blocked_operations", 2, S(vm), value_map(blocked, 1));
    error_has(vm_fails(W, "OPERATION_BLOCKED", "VM.snapshot", 2, S(vm), S("x")), 2, vm, "MY_REASON");
    vm_ok(W, "VM.set_blocked_operations", 2, S(vm), value_map(NULL, 0));
    const char *snap = snapshot(vm, "free");
    assert_int_equal(vm_ok(W, "VM.get_blocked_operations", 1, S(snap)).len, 0);
    vm_ok(W, "VM.set_blocked_operations", 2, S(snap), value_map(blocked + 1, 1));
    error_has(vm_fails(W, "OPERATION_BLOCKED", "VM.revert", 1, S(snap)), 2, snap, "NO");
}

/* --- revert ------------------------------------------------------------------------------------------------------ */
static void test_revert(void **state)
{
    const char *vm = vm_with_disk("revert", NULL), *disk = disk_at(vm, "0"), *extra = raw_disk("extra");
    const char *snap = snapshot(vm, "before"), *later, *now;
    const char *vif = vm_ok(W, "VM.get_VIFs", 1, S(vm)).items[0].s, *mac = vm_field(W, "VIF.get_MAC", vif);

    write_word(disk, "later");
    later = snapshot(vm, "after");
    vm_ok(W, "VM.set_name_label", 2, S(vm), S("changed"));
    vm_ok(W, "VM.set_memory_limits", 5, S(vm), value_int(8 * MIB), value_int(32 * MIB), value_int(32 * MIB), value_int(32 * MIB));
    vm_ok(W, "VM.add_to_other_config", 3, S(vm), S("new"), S("key"));
    plug_in(vm, extra, "1");
    run(vm);
    vm_ok(W, "VM.revert", 1, S(snap));

    now = disk_at(vm, "0");
    assert_true(vm_state_is(W, vm, "Halted"));
    assert_string_equal(vm_field(W, "VM.get_name_label", vm), "revert");
    assert_int_equal(vm_ok(W, "VM.get_memory_static_max", 1, S(vm)).i, VM_MEMORY);
    assert_string_equal(map_entry("VM.get_other_config", vm, "new"), "-");
    assert_string_equal(vm_field(W, "VM.get_is_a_snapshot", vm), "false");
    assert_string_equal(vm_field(W, "VM.get_is_a_template", vm), "false");
    assert_string_equal(vm_field(W, "VM.get_parent", vm), snap);
    assert_string_equal(vm_field(W, "VIF.get_MAC", vm_ok(W, "VM.get_VIFs", 1, S(vm)).items[0].s), mac);
    assert_int_equal(vm_ok(W, "VM.get_VBDs", 1, S(vm)).len, 1);
    assert_int_equal(vm_ok(W, "VDI.get_VBDs", 1, S(extra)).len, 0); /* there, but not the VM's any more */
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(disk));
    has_word(now, "first");
    assert_string_equal(vm_field(W, "VDI.get_is_a_snapshot", now), "false");
    assert_string_equal(vm_field(W, "VDI.get_snapshot_of", disk_at(snap, "0")), now); /* and so forward and back */
    assert_string_equal(vm_field(W, "VDI.get_snapshot_of", disk_at(later, "0")), now);
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
    vm_ok(W, "VM.revert", 1, S(later));
    has_word(disk_at(vm, "0"), "later");
    assert_string_equal(vm_field(W, "VM.get_name_label", vm), "revert");
    run(vm);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    error_has(vm_fails(W, "REVERT_ONLY_ALLOWED_ON_SNAPSHOT", "VM.revert", 1, S(vm)), 0);
}

/* Before its rows are changed a failure costs nothing; the guest runs on until all is ready. */
static void test_revert_that_fails(void **state)
{
    static const struct { const char *fault; bool runs; } cases[] = {
        { "vm.revert.disk=error", true }, { "sr.vdi_clone=error", true }, { "vm.revert.shutdown=error", true }, { "vm.revert.rows=error", false },
    };
    const char *vm = vm_with_disk("revert fails", NULL), *disk = disk_at(vm, "0"), *snap = snapshot(vm, "before");

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct value ignored;
        run(vm);
        struct counts before = count();
        assert_true(fault_arm(cases[i].fault));
        assert_non_null(pool_call(&W->pool, 0, "VM.revert", &ignored, 1, S(snap)));
        fault_disarm(NULL);
        unchanged(before);
        assert_string_equal(disk_at(vm, "0"), disk);
        assert_true(vm_state_is(W, vm, cases[i].runs ? "Running" : "Halted"));
        if (cases[i].runs)
            vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    }
    assert_true(fault_arm("vm.revert.disk=error"));
    error_has(vm_fails(W, "VM_REVERT_FAILED", "VM.revert", 1, S(snap)), 2, snap, vm);
    fault_disarm(NULL);
}

static void test_revert_of_the_destroyed(void **state)
{
    const char *vm = vm_with_disk("gone", NULL), *uuid = vm_field(W, "VM.get_uuid", vm), *disk = disk_at(vm, "0"), *snap = snapshot(vm, "before");

    vm_ok(W, "VM.destroy", 1, S(vm));
    vm_ok(W, "VDI.destroy", 1, S(disk));
    vm_ok(W, "VM.revert", 1, S(snap));
    vm = vm_field(W, "VM.get_snapshot_of", snap);
    assert_string_equal(vm_field(W, "VM.get_uuid", vm), uuid);
    assert_string_equal(vm_field(W, "VM.get_name_label", vm), "gone");
    has_word(disk_at(vm, "0"), "first");
    run(vm);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- checkpoint --------------------------------------------------------------------------------------------------- */
static void test_checkpoint(void **state)
{
    const char *vm = vm_with_disk("memory", NULL), *mark, *image;

    run(vm);
    mark = vm_ok(W, "VM.checkpoint", 2, S(vm), S("mark")).s;
    assert_true(vm_state_is(W, vm, "Running"));
    assert_string_equal(vm_field(W, "VM.get_suspend_VDI", vm), REF_NULL);
    assert_true(vm_state_is(W, mark, "Suspended"));
    image = vm_field(W, "VM.get_suspend_VDI", mark);
    assert_string_equal(vm_field(W, "VDI.get_type", image), "suspend");
    assert_string_equal(map_entry("VM.get_snapshot_info", mark, "power-state-at-snapshot"), "Running");
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vm_ok(W, "VM.get_VBDs", 1, S(mark)).items[0].s), "true");
    assert_string_equal(vm_field(W, "VM.get_parent", vm), mark);

    for (unsigned i = 0; i < 2; i++) { /* an image that was gone back to once can be gone back to again */
        vm_ok(W, "VM.revert", 1, S(mark));
        assert_true(vm_state_is(W, vm, "Suspended"));
        assert_string_not_equal(vm_field(W, "VM.get_suspend_VDI", vm), image);
        vm_ok(W, "VM.resume", 3, S(vm), value_bool(false), value_bool(false));
        assert_true(vm_state_is(W, vm, "Running"));
        POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
    }
    struct counts before = count();
    vm_ok(W, "VM.suspend", 1, S(vm));
    vm_ok(W, "VM.resume", 3, S(vm), value_bool(false), value_bool(false));
    unchanged(before);
    assert_string_equal(vm_field(W, "VDI.get_type", image), "suspend"); /* the checkpoint's own */
    const char *disk = disk_at(mark, "0");
    vm_ok(W, "VM.destroy", 1, S(mark));
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(image));
    vm_ok(W, "VDI.destroy", 1, S(disk));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* Of a VM that is suspended already: it keeps its image, the checkpoint gets a copy. */
static void test_checkpoint_suspended(void **state)
{
    const char *vm = vm_with_disk("asleep", NULL), *mark;

    run(vm);
    vm_ok(W, "VM.suspend", 1, S(vm));
    mark = vm_ok(W, "VM.checkpoint", 2, S(vm), S("mark")).s;
    assert_true(vm_state_is(W, vm, "Suspended") && vm_state_is(W, mark, "Suspended"));
    assert_string_not_equal(vm_field(W, "VM.get_suspend_VDI", mark), vm_field(W, "VM.get_suspend_VDI", vm));
    vm_ok(W, "VM.resume", 3, S(vm), value_bool(false), value_bool(false));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_ok(W, "VM.revert", 1, S(mark));
    vm_ok(W, "VM.resume", 3, S(vm), value_bool(false), value_bool(false));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.checkpoint", 2, S(vm), S("x")), 3, vm, "paused, suspended, running", "halted");
}

static void test_checkpoint_that_fails(void **state)
{
    static const char *const faults[] = { "vm.checkpoint.suspend=error", "vm.snapshot.disk=error", "sr.vdi_snapshot=error", "vm.snapshot.image=error",
                                          "vm.snapshot.rows=error" };
    const char *vm = vm_with_disk("stays up", NULL);

    run(vm);
    struct counts before = count();
    for (unsigned i = 0; i < ARRAY_LEN(faults); i++) {
        struct value ignored;
        POOL_UNTIL(vm_world_allows(W, "VM", vm, "checkpoint"));
        assert_true(fault_arm(faults[i]));
        assert_non_null(pool_call(&W->pool, 0, "VM.checkpoint", &ignored, 2, S(vm), S("x")));
        fault_disarm(NULL);
        assert_true(vm_state_is(W, vm, "Running"));
        unchanged(before);
    }
    POOL_UNTIL(vm_world_allows(W, "VM", vm, "checkpoint"));
    assert_true(fault_arm("vm.checkpoint.resume=error")); /* once where it was, then anywhere */
    vm_ok(W, "VM.checkpoint", 2, S(vm), S("mark"));
    fault_disarm(NULL);
    assert_true(vm_state_is(W, vm, "Running"));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* The coordinator died in the middle of a checkpoint: the next one resumes the guest, and that guest only. */
static void test_wake(void **state)
{
    const char *vm = vm_with_disk("cut short", NULL), *other = vm_with_disk("meant", NULL), *image;
    struct xapi *xapi = pool_xapi(&W->pool, 0);
    struct api_call c;

    run(vm);
    run(other);
    vm_ok(W, "VM.suspend", 1, S(vm));
    vm_ok(W, "VM.suspend", 1, S(other));
    image = vm_field(W, "VM.get_suspend_VDI", vm);
    struct error *e = db_map_put(xapi->db, A, CLASS_VDI, image, F_VDI_other_config, VM_IMAGE_WAKES, "true");
    assert_null(e);
    internal_call_init(&c, xapi, A, "test");
    vm_wake_all(&c);
    assert_true(vm_state_is(W, vm, "Running"));
    assert_true(vm_state_is(W, other, "Suspended"));
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(image));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    run(vm);
    const char *mark = vm_ok(W, "VM.checkpoint", 2, S(vm), S("mark")).s;
    assert_string_equal(map_entry("VDI.get_other_config", vm_field(W, "VM.get_suspend_VDI", mark), VM_IMAGE_WAKES), "-");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_ok(W, "VM.hard_shutdown", 1, S(other));
}

/* A clone of a checkpoint is suspended too, and another VM. */
static void test_clone_of_checkpoint(void **state)
{
    const char *vm = vm_with_disk("origin", NULL), *mark, *clone;

    run(vm);
    mark = vm_ok(W, "VM.checkpoint", 2, S(vm), S("mark")).s;
    clone = vm_ok(W, "VM.clone", 2, S(mark), S("clone")).s;
    assert_true(vm_state_is(W, clone, "Suspended"));
    assert_string_equal(vm_field(W, "VM.get_is_a_snapshot", clone), "false");
    assert_string_equal(vm_field(W, "VM.get_parent", clone), REF_NULL);
    vm_ok(W, "VM.set_is_a_template", 2, S(clone), value_bool(false));
    vm_ok(W, "VM.resume", 3, S(clone), value_bool(false), value_bool(false));
    vm_ok(W, "VM.hard_shutdown", 1, S(clone));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_running_and_ignored),
        cmocka_unit_test(test_snapshot_that_fails),
        cmocka_unit_test(test_snapshot_cancelled),
        cmocka_unit_test(test_blocked),
        cmocka_unit_test(test_revert),
        cmocka_unit_test(test_revert_that_fails),
        cmocka_unit_test(test_revert_of_the_destroyed),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_checkpoint_suspended),
        cmocka_unit_test(test_checkpoint_that_fails),
        cmocka_unit_test(test_wake),
        cmocka_unit_test(test_clone_of_checkpoint),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
