/* Drivers over real devices and mounts: ext4 and xfs on a loop device, a bind mount as NFS, a volume group. Root. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "tests/lib/file_world.h"
#include "tests/lib/image_bytes.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

struct device { struct tempdir dir; const char *path; };

static bool command(struct arena *a, char **output_r, const char *const *argv)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    int status;

    spec.argv = argv;
    if (child_run(a, &spec, 60000, 65536, &status, output_r) != 0)
        return false;
    (*output_r)[strcspn(*output_r, "\n")] = '\0';
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* False, and says so, where this machine gives us none. */
static bool device_make(struct device *d, int64_t size)
{
    const char *image;
    char *output = NULL;
    FILE *f;

    if (geteuid() != 0) {
        print_message("skipped: needs root\n");
        return false;
    }
    tempdir_make(&d->dir);
    image = tempdir_file(&d->dir, "device");
    f = fopen(image, "we");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), size), 0);
    fclose(f);
    if (!command(d->dir.arena, &output, (const char *const[]) { "losetup", "-f", "--show", image, NULL })) {
        print_message("skipped: no loop device to be had: %s\n", output == NULL ? "" : output);
        tempdir_remove(&d->dir);
        return false;
    }
    d->path = output;
    sr_drivers_base(tempdir_file(&d->dir, "mnt"));
    return true;
}

static void device_remove(struct device *d)
{
    char *output;

    assert_true(command(d->dir.arena, &output, (const char *const[]) { "losetup", "-d", d->path, NULL }));
    tempdir_remove(&d->dir);
}

static void world_on(struct file_world *w, struct device *d, const struct sr_driver *driver)
{
    file_world_make(w, d->dir.path, "");
    w->sr.driver = driver;
    w->config[0] = member_of("device", value_string(d->path));
}

static unsigned probed(struct file_world *w, const char **uuid_r)
{
    struct value found;

    file_ok(w->sr.driver->sr_probe(w->c, &w->sr.device_config, &found));
    *uuid_r = found.len == 1 ? value_get_string(&found.items[0], "uuid", "") : "";
    return found.len;
}

static const char *snapshot(struct file_world *w, const char *location)
{
    struct vdi_stat stat;

    file_ok(w->sr.driver->vdi_snapshot(w->c, &w->sr, location, file_world_uuid(w), &stat));
    assert_true(stat.is_a_snapshot);
    return stat.location;
}

/* The life of an SR with a disk, its snapshot, a revert. */
static void check_life(struct file_world *w)
{
    const struct sr_driver *driver = w->sr.driver;
    const char *vdi, *snap, *uuid;
    struct sr_stat sizes;
    struct vdi_stat stat;

    file_world_attach(w);
    assert_int_equal(probed(w, &uuid), 1);
    assert_string_equal(uuid, w->sr.uuid);
    file_ok(driver->sr_stat(w->c, &w->sr, &sizes));
    assert_true(sizes.physical_size > 100 * MIB);
    vdi = file_world_vdi(w, 20 * MIB, "");
    assert_int_equal(file_world_get(w, vdi, 16 * MIB), 0);
    file_world_put(w, vdi, 16 * MIB, 'a');
    snap = snapshot(w, vdi);
    file_world_put(w, vdi, 16 * MIB, 'b');
    file_world_reattach(w);
    assert_int_equal(file_world_count(w, false), 2);
    assert_int_equal(file_world_get(w, vdi, 16 * MIB), 'b');
    assert_int_equal(file_world_get(w, snap, 16 * MIB), 'a');
    file_ok(driver->vdi_resize(w->c, &w->sr, vdi, 40 * MIB, &stat));
    assert_int_equal(file_world_get(w, vdi, 39 * MIB), 0);
    file_ok(driver->vdi_revert(w->c, &w->sr, vdi, snap, &stat));
    assert_int_equal(stat.virtual_size, 20 * MIB);
    assert_int_equal(file_world_get(w, vdi, 16 * MIB), 'a');
    file_ok(driver->sr_stat(w->c, &w->sr, &sizes));
    assert_int_equal(sizes.virtual_allocation, 40 * MIB);
    file_ok(driver->sr_detach(w->c, &w->sr));
    assert_true(error_is(driver->sr_destroy(w->c, &w->sr), "SR_NOT_EMPTY"));
    memset(w->sr.state, 0, driver->state_size);
    file_ok(driver->sr_attach(w->c, &w->sr));
    file_ok(driver->vdi_destroy(w->c, &w->sr, vdi));
    file_ok(driver->vdi_destroy(w->c, &w->sr, snap));
    file_ok(driver->sr_detach(w->c, &w->sr));
    file_ok(driver->sr_destroy(w->c, &w->sr));
    file_ok(driver->sr_destroy(w->c, &w->sr));
    assert_int_equal(probed(w, &uuid), 0);
}

static void world_end(struct file_world *w)
{
    xfree(w->sr.state);
    fakecall_release(&w->fake);
}

static void check_ext(const char *filesystem, const char *format)
{
    struct device d;
    struct file_world w;

    if (!device_make(&d, 400 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_ext);
    w.config[1] = member_of("image-format", value_string(format));
    w.config[2] = member_of("filesystem", value_string(filesystem));
    check_life(&w);
    world_end(&w);
    device_remove(&d);
}

static void test_ext4(void **state)
{
    check_ext("ext4", "vhd");
}

static void test_xfs_raw(void **state)
{
    check_ext("xfs", "raw");
}

static void test_ext_devices_are_not_taken_for_granted(void **state)
{
    struct device d;
    struct file_world w;
    const char *mine;

    if (!device_make(&d, 64 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_ext);
    file_world_attach(&w);
    mine = w.sr.uuid;
    file_ok(sr_driver_ext.sr_create(w.c, &w.sr, 0)); /* a repeated call */
    w.sr.uuid = uuid_make(w.c->arena);
    assert_non_null(sr_driver_ext.sr_create(w.c, &w.sr, 0)); /* it is mounted */
    w.sr.uuid = mine;
    file_ok(sr_driver_ext.sr_detach(w.c, &w.sr));
    w.sr.uuid = uuid_make(w.c->arena);
    memset(w.sr.state, 0, w.sr.driver->state_size);
    assert_non_null(sr_driver_ext.sr_attach(w.c, &w.sr)); /* another SR */
    w.config[0] = member_of("device", value_string("/dev/null"));
    assert_non_null(sr_driver_ext.sr_create(w.c, &w.sr, 0));
    world_end(&w);
    device_remove(&d);
}

static void test_busy_mount_stays_attached(void **state)
{
    struct device d;
    struct file_world w;
    const char *vdi;
    struct vdi_where where;
    struct vdi_stat stat;
    int fd;

    if (!device_make(&d, 64 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_ext);
    file_world_attach(&w);
    vdi = file_world_vdi(&w, MIB, "");
    file_ok(sr_driver_ext.vdi_attach(w.c, &w.sr, vdi, true, &where));
    fd = open(where.path, O_RDONLY | O_CLOEXEC);
    assert_non_null(sr_driver_ext.sr_detach(w.c, &w.sr));
    file_ok(sr_driver_ext.vdi_stat(w.c, &w.sr, vdi, &stat));
    close(fd);
    file_ok(sr_driver_ext.sr_detach(w.c, &w.sr));
    world_end(&w);
    device_remove(&d);
}

static void test_nfs_by_bind_mount(void **state)
{
    struct tempdir dir;
    struct file_world w;
    const char *export;

    if (geteuid() != 0) {
        print_message("skipped: needs root\n");
        skip();
    }
    tempdir_make(&dir);
    export = tempdir_file(&dir, "export");
    assert_int_equal(mkdir(export, 0755), 0);
    sr_drivers_base(tempdir_file(&dir, "mnt"));
    file_world_make(&w, dir.path, "");
    w.sr.driver = &sr_driver_nfs;
    w.sr.shared = true;
    w.config[0] = member_of("server", value_string("server"));
    w.config[1] = member_of("serverpath", value_string(export));
    w.config[2] = member_of("options", value_string("bind"));
    check_life(&w);
    world_end(&w);
    tempdir_remove(&dir);
}

/* --- lvm --------------------------------------------------------------------------------------------------- */
static void test_lvm(void **state)
{
    struct device d;
    struct file_world w;

    if (!device_make(&d, 300 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_lvm);
    check_life(&w);
    world_end(&w);
    device_remove(&d);
}

static void soil(const char *device, int64_t size)
{
    char *bytes = xcalloc(1, MIB);
    int fd = open(device, O_WRONLY | O_CLOEXEC);

    memset(bytes, 'x', MIB);
    assert_true(fd >= 0);
    for (int64_t at = 0; at < size; at += MIB)
        assert_int_equal(fd_pwrite_all(fd, bytes, MIB, at), 0);
    close(fd);
    xfree(bytes);
}

static void test_lvm_volumes_read_as_zeros(void **state)
{
    struct device d;
    struct file_world w;
    const char *vdi;
    struct vdi_stat stat;

    if (!device_make(&d, 100 * MIB))
        skip();
    soil(d.path, 100 * MIB);
    world_on(&w, &d, &sr_driver_lvm);
    file_world_attach(&w);
    vdi = file_world_vdi(&w, 8 * MIB, "");
    for (int64_t at = 0; at < 8 * MIB; at += 64 << 10)
        assert_int_equal(file_world_get(&w, vdi, at), 0);
    (void)file_world_vdi(&w, 8 * MIB, ""); /* so that growing makes a second segment */
    file_world_put(&w, vdi, 4 * MIB, 'a');
    file_world_guest(&w, vdi);
    file_ok(sr_driver_lvm.vdi_resize(w.c, &w.sr, vdi, 24 * MIB, &stat));
    assert_int_equal(w.guest.size, 24 * MIB);
    assert_non_null(strchr(w.guest.path, ';'));
    assert_false(w.guest.paused);
    for (int64_t at = 8 * MIB; at < 24 * MIB; at += 64 << 10)
        assert_int_equal(file_world_get(&w, vdi, at), 0);
    assert_int_equal(file_world_get(&w, vdi, 4 * MIB), 'a');
    file_ok(sr_driver_lvm.sr_detach(w.c, &w.sr));
    world_end(&w);
    device_remove(&d);
}

static void test_lvm_without_room(void **state)
{
    struct device d;
    struct file_world w;
    struct vdi_stat stat;
    struct error *error;
    const char *vdi;

    if (!device_make(&d, 100 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_lvm);
    file_world_attach(&w);
    vdi = file_world_vdi(&w, 60 * MIB, "");
    error = sr_driver_lvm.vdi_snapshot(w.c, &w.sr, vdi, file_world_uuid(&w), &stat);
    assert_true(error_is(error, "SR_FULL"));
    assert_string_equal(error->params[0], "62914560");
    assert_true(error_is(sr_driver_lvm.vdi_resize(w.c, &w.sr, vdi, 120 * MIB, &stat), "SR_FULL"));
    assert_int_equal(file_world_count(&w, false), 1);
    file_ok(sr_driver_lvm.sr_detach(w.c, &w.sr));
    world_end(&w);
    device_remove(&d);
}

static void test_lvm_leaves_others_alone(void **state)
{
    struct device d;
    struct file_world w;

    if (!device_make(&d, 64 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_lvm);
    file_world_attach(&w);
    file_ok(sr_driver_lvm.sr_create(w.c, &w.sr, 0)); /* a repeated call */
    w.sr.uuid = uuid_make(w.c->arena);
    assert_true(error_is(sr_driver_lvm.sr_create(w.c, &w.sr, 0), "SR_DEVICE_IN_USE"));
    assert_non_null(sr_driver_lvm.sr_attach(w.c, &w.sr));
    world_end(&w);
    device_remove(&d);
}

/* --- lvm: every command of every operation fails, or is the last thing this process did ------------------------ */
#define VDI "00000000-0000-4000-8000-0000000000aa"
#define SNAP "00000000-0000-4000-8000-0000000000bb"
#define MADE "00000000-0000-4000-8000-0000000000cc"

static struct error *lvm_create(struct file_world *w)
{
    const struct vdi_create_spec spec = { .uuid = MADE, .virtual_size = 4 * MIB, .format = "" };
    struct vdi_stat stat;

    return sr_driver_lvm.vdi_create(w->c, &w->sr, &spec, &stat);
}

static struct error *lvm_snapshot(struct file_world *w)
{
    struct vdi_stat stat;

    return sr_driver_lvm.vdi_snapshot(w->c, &w->sr, VDI, MADE, &stat);
}

static struct error *lvm_revert(struct file_world *w)
{
    struct vdi_stat stat;

    return sr_driver_lvm.vdi_revert(w->c, &w->sr, VDI, SNAP, &stat);
}

static struct error *lvm_resize(struct file_world *w)
{
    struct vdi_stat stat;

    return sr_driver_lvm.vdi_resize(w->c, &w->sr, VDI, 8 * MIB, &stat);
}

static struct error *lvm_destroy(struct file_world *w)
{
    return sr_driver_lvm.vdi_destroy(w->c, &w->sr, MADE);
}

static const struct { struct error *(*run)(struct file_world *); const char *command; } lvm_steps[] = {
    { lvm_create, "lvcreate" },   { lvm_create, "lvrename" },   { lvm_destroy, "lvremove" }, { lvm_snapshot, "lvcreate" },
    { lvm_snapshot, "lvrename" }, { lvm_destroy, "lvremove" },  { lvm_resize, "lvchange" },  { lvm_resize, "lvextend" },
    { lvm_revert, "lvcreate" },   { lvm_revert, "lvrename" },   { lvm_revert, "lvremove" },
};

/* A process of its own: --run <step> <device> <base directory> <sr uuid>. */
static void lvm_killed(char **argv)
{
    struct file_world w;

    fault_init_from_env();
    sr_drivers_base(argv[4]);
    file_world_make(&w, "/nowhere", "");
    w.sr.driver = &sr_driver_lvm;
    w.sr.uuid = argv[5];
    w.config[0] = member_of("device", value_string(argv[3]));
    file_world_attach(&w);
    exit(lvm_steps[strtoul(argv[2], NULL, 10)].run(&w) == NULL ? 0 : 1);
}

/* True where the step has no nth command of that name. */
static bool lvm_kill(struct file_world *w, struct device *d, unsigned step, unsigned nth)
{
    struct arena *a = w->c->arena;
    const char *const argv[] = { "/proc/self/exe", "--run", arena_printf(a, "%u", step), d->path, sr_drivers_base_dir(), w->sr.uuid, NULL };
    const char *const env[] = { arena_printf(a, "FAULTS=sr.lvm.%s.run=crash@%u", lvm_steps[step].command, nth),
                                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output;
    int status;

    spec.argv = argv;
    spec.env = env;
    assert_int_equal(child_run(a, &spec, 60000, 65536, &status, &output), 0);
    if (WIFSIGNALED(status))
        return false;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s: %#x %s", argv[2], (unsigned)status, output);
    return true;
}

static void lvm_check(struct file_world *w, unsigned step)
{
    char now;

    file_world_reattach(w);
    assert_in_range(file_world_count(w, false), 2, 3);
    assert_int_equal(file_world_get(w, SNAP, 0), 'a');
    now = file_world_get(w, VDI, 0);
    assert_true(now == 'b' || (now == 'a' && lvm_steps[step].run == lvm_revert));
    file_world_put(w, VDI, 0, 'b');
}

static void test_lvm_at_every_command(void **state)
{
    struct device d;
    struct file_world w;
    struct vdi_stat stat;
    const struct vdi_create_spec spec = { .uuid = VDI, .virtual_size = 4 * MIB, .format = "raw" };

    if (!device_make(&d, 300 * MIB))
        skip();
    world_on(&w, &d, &sr_driver_lvm);
    file_world_attach(&w);
    file_ok(sr_driver_lvm.vdi_create(w.c, &w.sr, &spec, &stat));
    file_world_put(&w, VDI, 0, 'a');
    file_ok(sr_driver_lvm.vdi_snapshot(w.c, &w.sr, VDI, SNAP, &stat));
    file_world_put(&w, VDI, 0, 'b');
    for (unsigned step = 0; step < ARRAY_LEN(lvm_steps); step++) {
        for (unsigned nth = 1; !lvm_kill(&w, &d, step, nth); nth++) {
            assert_true(nth < 20);
            lvm_check(&w, step);
            assert_true(fault_arm(arena_printf(w.c->arena, "sr.lvm.%s.run=error@%u", lvm_steps[step].command, nth)));
            (void)lvm_steps[step].run(&w);
            fault_disarm(NULL);
            lvm_check(&w, step);
        }
        lvm_check(&w, step);
    }
    file_ok(sr_driver_lvm.sr_detach(w.c, &w.sr));
    world_end(&w);
    device_remove(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ext4),
        cmocka_unit_test(test_xfs_raw),
        cmocka_unit_test(test_ext_devices_are_not_taken_for_granted),
        cmocka_unit_test(test_busy_mount_stays_attached),
        cmocka_unit_test(test_nfs_by_bind_mount),
        cmocka_unit_test(test_lvm),
        cmocka_unit_test(test_lvm_volumes_read_as_zeros),
        cmocka_unit_test(test_lvm_without_room),
        cmocka_unit_test(test_lvm_leaves_others_alone),
        cmocka_unit_test(test_lvm_at_every_command),
    };

    if (argc == 6 && strcmp(argv[1], "--run") == 0)
        lvm_killed(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
