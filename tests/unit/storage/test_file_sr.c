/* The file engine: disks of every format, trees of snapshots and clones, what is live and what is repeated. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "storage/image/image.h"
#include "tests/lib/file_world.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

static const struct sr_driver *const driver = &sr_driver_file;

static struct vdi_stat stat_of(struct file_world *w, const char *location)
{
    struct vdi_stat stat;

    file_ok(driver->vdi_stat(w->c, &w->sr, location, &stat));
    return stat;
}

static const char *snapshot(struct file_world *w, const char *location)
{
    struct vdi_stat stat;

    file_ok(driver->vdi_snapshot(w->c, &w->sr, location, file_world_uuid(w), &stat));
    assert_true(stat.is_a_snapshot);
    return stat.location;
}

static const char *clone(struct file_world *w, const char *location)
{
    struct vdi_stat stat;

    file_ok(driver->vdi_clone(w->c, &w->sr, location, file_world_uuid(w), &stat));
    assert_false(stat.is_a_snapshot);
    return stat.location;
}

static void test_formats_and_sizes(void **state)
{
    static const char *const formats[] = { "raw", "vhd", "qcow2" };

    for (unsigned i = 0; i < ARRAY_LEN(formats); i++) {
        struct file_world w;
        struct vdi_stat stat;
        const char *vdi;

        file_world_init(&w, NULL, "vhd");
        vdi = file_world_vdi(&w, 10 * MIB, formats[i]);
        stat = stat_of(&w, vdi);
        assert_string_equal(stat.format, formats[i]);
        assert_int_equal(stat.virtual_size, 10 * MIB);
        assert_true(stat.physical_utilisation < MIB);
        file_ok(driver->vdi_resize(w.c, &w.sr, vdi, 64 * MIB, &stat));
        assert_int_equal(stat.virtual_size, 64 * MIB);
        assert_non_null(driver->vdi_resize(w.c, &w.sr, vdi, MIB, &stat));
        assert_int_equal(file_world_count(&w, false), 1);
        file_ok(driver->vdi_destroy(w.c, &w.sr, vdi));
        file_ok(driver->vdi_destroy(w.c, &w.sr, vdi));
        assert_int_equal(file_world_count(&w, false), 0);
        file_world_release(&w);
    }
}

static void test_default_format_is_vhd(void **state)
{
    struct file_world w;

    file_world_init(&w, NULL, "");
    assert_string_equal(stat_of(&w, file_world_vdi(&w, MIB, "")).format, "vhd");
    file_world_release(&w);
}

static void test_foreign_files_are_ignored(void **state)
{
    struct file_world w;
    const char *part;

    file_world_init(&w, NULL, "raw");
    tempdir_write(&w.dir, "sr/readme.txt", "x");
    tempdir_write(&w.dir, "sr/disk.vhd", "x");
    tempdir_write(&w.dir, "sr/video.part", "x");
    part = tempdir_write(&w.dir, "sr/00000000-0000-4000-8000-000000000001.raw.part", "x");
    file_world_reattach(&w);
    assert_int_equal(file_world_count(&w, false), 0);
    assert_int_not_equal(access(part, F_OK), 0);
    assert_int_equal(access(tempdir_file(&w.dir, "sr/video.part"), F_OK), 0);
    file_world_release(&w);
}

/* A VDI, its snapshot, writes, a clone of the snapshot. */
static void check_tree(const char *format)
{
    struct file_world w;
    const char *vdi, *snap, *copy;
    struct vdi_stat stat;

    file_world_init(&w, NULL, format);
    vdi = file_world_vdi(&w, 16 * MIB, "");
    file_world_put(&w, vdi, 0, 'a');
    file_world_put(&w, vdi, 8 * MIB, 'b');
    snap = snapshot(&w, vdi);
    file_world_put(&w, vdi, 0, 'A');
    copy = clone(&w, snap);
    file_world_put(&w, copy, 8 * MIB, 'c');
    assert_int_equal(file_world_get(&w, vdi, 0), 'A');
    assert_int_equal(file_world_get(&w, vdi, 8 * MIB), 'b');
    assert_int_equal(file_world_get(&w, snap, 0), 'a');
    assert_int_equal(file_world_get(&w, snap, 8 * MIB), 'b');
    assert_int_equal(file_world_get(&w, copy, 0), 'a');
    assert_int_equal(file_world_get(&w, copy, 8 * MIB), 'c');
    assert_true(stat_of(&w, snap).is_a_snapshot);
    assert_false(stat_of(&w, vdi).is_a_snapshot);

    file_ok(driver->vdi_revert(w.c, &w.sr, vdi, snap, &stat));
    assert_int_equal(file_world_get(&w, vdi, 0), 'a');
    file_world_put(&w, vdi, 0, 'R');
    assert_int_equal(file_world_get(&w, snap, 0), 'a');
    assert_true(stat_of(&w, snap).is_a_snapshot);
    assert_false(stat_of(&w, vdi).is_a_snapshot);

    file_ok(driver->vdi_snapshot(w.c, &w.sr, vdi, snap, &stat)); /* a repeated call */
    assert_int_equal(file_world_count(&w, false), 3);
    file_ok(driver->vdi_destroy(w.c, &w.sr, snap));
    file_ok(driver->vdi_destroy(w.c, &w.sr, vdi));
    assert_int_equal(file_world_get(&w, copy, 0), 'a');
    assert_int_equal(file_world_get(&w, copy, 8 * MIB), 'c');
    file_ok(driver->vdi_destroy(w.c, &w.sr, copy));
    assert_int_equal(file_world_count(&w, true), 0);
    file_ok(driver->sr_detach(w.c, &w.sr));
    file_ok(driver->sr_destroy(w.c, &w.sr));
    assert_int_not_equal(access(w.path, F_OK), 0);
    file_ok(driver->sr_create(w.c, &w.sr, 0));
    file_ok(driver->sr_attach(w.c, &w.sr));
    file_world_release(&w);
}

static void test_tree_of_vhd(void **state)
{
    check_tree("vhd");
}

static void test_tree_of_qcow2(void **state)
{
    check_tree("qcow2");
}

static void test_copies_of_raw(void **state)
{
    check_tree("raw");
}

static void test_clones_of_a_snapshot_make_no_chain(void **state)
{
    struct file_world w;
    const char *vdi, *snap;

    file_world_init(&w, NULL, "vhd");
    vdi = file_world_vdi(&w, 4 * MIB, "");
    file_world_put(&w, vdi, 0, 'a');
    snap = snapshot(&w, vdi);
    for (int i = 0; i < 5; i++)
        assert_int_equal(file_world_get(&w, clone(&w, snap), 0), 'a');
    assert_int_equal(file_world_count(&w, true), 1);
    assert_int_equal(file_world_count(&w, false), 7);
    file_world_release(&w);
}

static void test_chain_has_an_end(void **state)
{
    struct file_world w;
    struct vdi_stat stat;
    struct error *error = NULL;
    const char *vdi;

    file_world_init(&w, NULL, "vhd");
    vdi = file_world_vdi(&w, 4 * MIB, "");
    for (int i = 0; i < 40 && error == NULL; i++) {
        file_world_put(&w, vdi, 0, (char)('a' + i % 26));
        error = driver->vdi_snapshot(w.c, &w.sr, vdi, file_world_uuid(&w), &stat);
    }
    assert_non_null(error);
    assert_string_equal(error->params[0], "109");
    file_world_release(&w);
}

static void test_snapshot_of_a_running_guest(void **state)
{
    struct file_world w;
    const char *vdi, *snap;

    file_world_init(&w, NULL, "vhd");
    vdi = file_world_vdi(&w, 8 * MIB, "");
    file_world_guest(&w, vdi);
    guest_put(&w, 0, 'a');
    snap = snapshot(&w, vdi);
    assert_int_equal(w.guest.pauses, 1);
    guest_put(&w, 0, 'b');
    assert_int_equal(file_world_get(&w, snap, 0), 'a');
    assert_int_equal(file_world_get(&w, vdi, 0), 'b');
    file_world_release(&w);
}

static void test_snapshot_is_taken_back_when_the_guest_cannot_go_on(void **state)
{
    struct file_world w;
    struct vdi_stat stat;
    const char *vdi, *uuid;

    file_world_init(&w, NULL, "vhd");
    vdi = file_world_vdi(&w, 8 * MIB, "");
    file_world_guest(&w, vdi);
    guest_put(&w, 0, 'a');
    w.guest.refuse_resume = true;
    uuid = file_world_uuid(&w);
    assert_non_null(driver->vdi_snapshot(w.c, &w.sr, vdi, uuid, &stat));
    assert_int_equal(file_world_count(&w, false), 1);
    assert_int_equal(file_world_count(&w, true), 0);
    guest_put(&w, 4096, 'b');
    assert_int_equal(file_world_get(&w, vdi, 0), 'a');
    assert_int_equal(file_world_get(&w, vdi, 4096), 'b');
    file_world_release(&w);
}

static void test_online_resize(void **state)
{
    static const char *const formats[] = { "vhd", "raw" };

    for (unsigned i = 0; i < ARRAY_LEN(formats); i++) {
        struct file_world w;
        struct vdi_stat stat;
        const char *vdi;

        file_world_init(&w, NULL, formats[i]);
        vdi = file_world_vdi(&w, 8 * MIB, "");
        file_world_guest(&w, vdi);
        guest_put(&w, 0, 'a');
        file_ok(driver->vdi_resize(w.c, &w.sr, vdi, 5000 * MIB, &stat));
        assert_int_equal(w.guest.size, 5000 * MIB);
        assert_false(w.guest.paused);
        assert_int_equal(stat.virtual_size, 5000 * MIB);
        assert_int_equal(file_world_get(&w, vdi, 0), 'a');
        assert_int_equal(file_world_get(&w, vdi, 4999 * MIB), 0);
        file_world_release(&w);
    }
}

static void test_snapshot_without_room(void **state)
{
    struct file_world w;
    struct vdi_stat stat;
    struct error *error;
    char config[32];
    const char *vdi;

    file_world_init(&w, NULL, "raw");
    file_ok(driver->sr_detach(w.c, &w.sr));
    w.sr.driver = &sr_driver_dummy;
    sr_drivers_base(w.dir.path);
    snprintf(config, sizeof(config), "%lld", (long long)(100 << 10));
    w.config[0] = member_of("size", value_string(config));
    file_ok(sr_driver_dummy.sr_attach(w.c, &w.sr));
    vdi = file_world_vdi(&w, MIB, "");
    for (int i = 0; i < 20; i++)
        file_world_put(&w, vdi, i * 4096, 'a');
    error = sr_driver_dummy.vdi_snapshot(w.c, &w.sr, vdi, file_world_uuid(&w), &stat);
    if (error != NULL) { /* where blocks are shared none are needed */
        assert_string_equal(error->code, "SR_FULL");
        assert_int_equal(file_world_count(&w, false), 1);
    }
    file_world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats_and_sizes),
        cmocka_unit_test(test_default_format_is_vhd),
        cmocka_unit_test(test_foreign_files_are_ignored),
        cmocka_unit_test(test_tree_of_vhd),
        cmocka_unit_test(test_tree_of_qcow2),
        cmocka_unit_test(test_copies_of_raw),
        cmocka_unit_test(test_clones_of_a_snapshot_make_no_chain),
        cmocka_unit_test(test_chain_has_an_end),
        cmocka_unit_test(test_snapshot_of_a_running_guest),
        cmocka_unit_test(test_snapshot_is_taken_back_when_the_guest_cannot_go_on),
        cmocka_unit_test(test_online_resize),
        cmocka_unit_test(test_snapshot_without_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
