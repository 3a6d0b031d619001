/* Changed block tracking of the file drivers: lines of snapshots, logs of what is gone, what a crash costs. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/image/cbt_log.h"
#include "tests/lib/file_world.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

static const struct sr_driver *const driver = &sr_driver_file;

static const char *log_path(struct file_world *w, const char *location)
{
    return arena_printf(w->c->arena, "%s/%s.cbtlog", w->path, location);
}

/* As tapd would note a write to that block. */
static void mark(struct file_world *w, const char *location, int64_t block)
{
    struct cbt_log *log;

    assert_int_equal(cbt_log_open(log_path(w, location), &log), 0);
    assert_int_equal(cbt_log_mark(log, block * CBT_BLOCK, 512), 0);
    assert_int_equal(cbt_log_close(log), 0);
}

static const char *snapshot(struct file_world *w, const char *location)
{
    struct vdi_stat stat;

    file_ok(driver->vdi_snapshot(w->c, &w->sr, location, file_world_uuid(w), &stat));
    assert_true(stat.cbt_enabled);
    return stat.location;
}

/* The first byte of the bitmap: blocks 0 to 7. */
static unsigned changed(struct file_world *w, const char *from, const char *to)
{
    uint8_t *bitmap;
    size_t len;

    file_ok(driver->vdi_changed_blocks(w->c, &w->sr, from, to, &bitmap, &len));
    assert_true(len >= 2);
    return bitmap[0];
}

static void fails(struct file_world *w, const char *from, const char *to, const char *code)
{
    uint8_t *bitmap;
    size_t len;
    struct error *error = driver->vdi_changed_blocks(w->c, &w->sr, from, to, &bitmap, &len);

    assert_non_null(error);
    assert_string_equal(error->code, code);
}

struct line { struct file_world w; const char *vdi, *first, *second; };

/* Changed: block 0, first, block 1, second, block 2. */
static void line_init(struct line *l, const char *format)
{
    file_world_init(&l->w, NULL, format);
    l->vdi = file_world_vdi(&l->w, MIB, "");
    file_ok(driver->vdi_enable_cbt(l->w.c, &l->w.sr, l->vdi));
    file_ok(driver->vdi_enable_cbt(l->w.c, &l->w.sr, l->vdi));
    mark(&l->w, l->vdi, 0);
    l->first = snapshot(&l->w, l->vdi);
    mark(&l->w, l->vdi, 1);
    l->second = snapshot(&l->w, l->vdi);
    mark(&l->w, l->vdi, 2);
}

static void check_line(const char *format)
{
    struct line l;

    line_init(&l, format);
    assert_int_equal(changed(&l.w, l.first, l.second), 0x40);
    assert_int_equal(changed(&l.w, l.second, l.vdi), 0x20);
    assert_int_equal(changed(&l.w, l.first, l.vdi), 0x60);
    assert_int_equal(changed(&l.w, l.first, l.first), 0);
    fails(&l.w, l.vdi, l.first, "SR_BACKEND_FAILURE");
    fails(&l.w, file_world_vdi(&l.w, MIB, ""), l.vdi, "VDI_NO_CBT_METADATA");
    file_world_release(&l.w);
}

static void test_line(void **state)
{
    check_line("vhd");
    check_line("raw");
}

static void test_a_snapshot_in_the_middle_goes(void **state)
{
    struct line l;

    line_init(&l, "vhd");
    file_ok(driver->vdi_destroy(l.w.c, &l.w.sr, l.second));
    assert_int_not_equal(access(log_path(&l.w, l.second), F_OK), 0);
    assert_int_equal(changed(&l.w, l.first, l.vdi), 0x60);
    file_world_release(&l.w);
}

/* While the guest's tapd has the log open nobody else writes to it. */
static void test_a_snapshot_goes_while_the_next_log_is_open(void **state)
{
    struct line l;
    struct cbt_log *log;
    const char *ghost;

    line_init(&l, "vhd");
    assert_int_equal(cbt_log_open(log_path(&l.w, l.vdi), &log), 0);
    file_ok(driver->vdi_destroy(l.w.c, &l.w.sr, l.second));
    ghost = arena_printf(l.w.c->arena, "%s/%s.cbtghost", l.w.path, l.second);
    assert_int_equal(access(ghost, F_OK), 0);
    assert_int_equal(changed(&l.w, l.first, l.vdi), 0x60);
    assert_int_equal(file_world_count(&l.w, false), 2);
    assert_int_equal(cbt_log_close(log), 0);
    file_world_clean(&l.w);
    assert_int_not_equal(access(ghost, F_OK), 0);
    assert_int_equal(changed(&l.w, l.first, l.vdi), 0x60);
    file_world_release(&l.w);
}

static void test_data_destroy(void **state)
{
    struct line l;
    struct vdi_stat stat;
    const char *untracked;

    line_init(&l, "vhd");
    file_ok(driver->vdi_data_destroy(l.w.c, &l.w.sr, l.first));
    file_ok(driver->vdi_data_destroy(l.w.c, &l.w.sr, l.first));
    file_ok(driver->vdi_stat(l.w.c, &l.w.sr, l.first, &stat));
    assert_true(stat.cbt_metadata);
    assert_int_equal(stat.virtual_size, MIB);
    assert_int_equal(changed(&l.w, l.first, l.vdi), 0x60);
    assert_int_equal(file_world_count(&l.w, false), 3);
    file_ok(driver->vdi_destroy(l.w.c, &l.w.sr, l.first));
    fails(&l.w, l.first, l.vdi, "VDI_NO_CBT_METADATA");
    untracked = file_world_vdi(&l.w, MIB, "");
    assert_true(error_is(driver->vdi_data_destroy(l.w.c, &l.w.sr, untracked), "VDI_NO_CBT_METADATA"));
    file_world_release(&l.w);
}

static void test_disabled(void **state)
{
    struct line l;
    struct vdi_stat stat;

    line_init(&l, "vhd");
    file_world_guest(&l.w, l.vdi);
    assert_string_equal(l.w.guest.cbt, log_path(&l.w, l.vdi));
    file_ok(driver->vdi_disable_cbt(l.w.c, &l.w.sr, l.vdi));
    assert_string_equal(l.w.guest.cbt, "");
    file_ok(driver->vdi_stat(l.w.c, &l.w.sr, l.vdi, &stat));
    assert_false(stat.cbt_enabled);
    file_ok(driver->vdi_enable_cbt(l.w.c, &l.w.sr, l.vdi));
    assert_string_equal(l.w.guest.cbt, log_path(&l.w, l.vdi));
    fails(&l.w, l.first, l.vdi, "SR_BACKEND_FAILURE");
    file_world_release(&l.w);
}

static void test_resize_and_revert(void **state)
{
    struct line l;
    struct vdi_stat stat;

    line_init(&l, "vhd");
    file_ok(driver->vdi_resize(l.w.c, &l.w.sr, l.vdi, 2 * MIB, &stat));
    mark(&l.w, l.vdi, 20);
    assert_int_equal(changed(&l.w, l.second, l.vdi), 0x20);
    file_ok(driver->vdi_revert(l.w.c, &l.w.sr, l.vdi, l.first, &stat));
    assert_int_equal(changed(&l.w, l.second, l.vdi), 0xff);
    file_world_release(&l.w);
}

/* Open, by a boot that is not this one. */
static void crash(struct file_world *w, const char *location)
{
    static const char other[36] = "01234567-0123-4123-8123-0123456789ab";
    struct cbt_log *log;
    char head[4096], *boot = NULL, *id;
    size_t len;
    AUTO_FD fd = open(log_path(w, location), O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(cbt_log_open(log_path(w, location), &log), 0);
    assert_int_equal(fd_pread_all(fd, head, sizeof(head), 0), 0);
    assert_int_equal(cbt_log_close(log), 0);
    assert_int_equal(file_read(w->c->arena, "/proc/sys/kernel/random/boot_id", 100, &id, &len), 0);
    boot = memmem(head, sizeof(head), id, 36);
    assert_non_null(boot);
    memcpy(boot, other, sizeof(other));
    assert_int_equal(fd_pwrite_all(fd, head, sizeof(head), 0), 0);
}

static void test_after_a_crash_of_the_host(void **state)
{
    struct line l;
    struct vdi_stat stat;
    struct vdi_where where;

    line_init(&l, "vhd");
    crash(&l.w, l.vdi);
    fails(&l.w, l.second, l.vdi, "SR_BACKEND_FAILURE");
    file_ok(driver->vdi_attach(l.w.c, &l.w.sr, l.vdi, false, &where));
    assert_string_equal(where.cbt, "");
    file_ok(driver->vdi_stat(l.w.c, &l.w.sr, l.vdi, &stat));
    assert_false(stat.cbt_enabled);
    assert_int_equal(changed(&l.w, l.first, l.second), 0x40);
    file_world_release(&l.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_a_snapshot_in_the_middle_goes),
        cmocka_unit_test(test_a_snapshot_goes_while_the_next_log_is_open),
        cmocka_unit_test(test_data_destroy),
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_resize_and_revert),
        cmocka_unit_test(test_after_a_crash_of_the_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
