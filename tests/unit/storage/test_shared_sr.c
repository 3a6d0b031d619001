/* Two hosts with one SR: who has a disk open there is left alone here, and what one left undone the other mends. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "storage/drivers/image_journal.h"
#include "tests/lib/file_world.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

static const struct sr_driver *const driver = &sr_driver_file;

struct hosts { struct tempdir dir; struct file_world a, b; };

static void host_init(struct file_world *w, const char *dir, const char *uuid)
{
    file_world_make(w, dir, "vhd");
    w->sr.uuid = uuid;
    w->sr.shared = true;
    file_world_attach(w);
}

static void hosts_init(struct hosts *h)
{
    tempdir_make(&h->dir);
    host_init(&h->a, h->dir.path, "01234567-0123-4123-8123-0123456789ab");
    host_init(&h->b, h->dir.path, h->a.sr.uuid);
}

static void hosts_release(struct hosts *h)
{
    file_world_release(&h->b);
    file_world_release(&h->a);
    tempdir_remove(&h->dir);
}

/* As a tapd holds a leaf it writes to. */
static int tapd_lock(struct file_world *w, const char *location)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
    struct vdi_where where;
    int fd;

    file_ok(driver->vdi_attach(w->c, &w->sr, location, false, &where));
    fd = open(where.path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    return fd;
}

static void test_no_snapshot_from_elsewhere(void **state)
{
    struct hosts h;
    struct vdi_stat stat;
    const char *vdi, *uuid;
    struct error *error;
    int fd;

    hosts_init(&h);
    vdi = file_world_vdi(&h.a, 4 * MIB, "");
    file_world_put(&h.a, vdi, 0, 'a');
    fd = tapd_lock(&h.a, vdi);
    uuid = file_world_uuid(&h.b);
    error = driver->vdi_snapshot(h.b.c, &h.b.sr, vdi, uuid, &stat);
    assert_non_null(error);
    assert_string_equal(error->params[0], "46");
    assert_int_equal(file_world_count(&h.b, true), 0);
    file_world_guest(&h.a, vdi);
    file_ok(driver->vdi_snapshot(h.a.c, &h.a.sr, vdi, uuid, &stat)); /* where it runs it works */
    assert_int_equal(file_world_get(&h.b, uuid, 0), 'a');
    close(fd);
    hosts_release(&h);
}

static void test_no_coalescing_under_another_host(void **state)
{
    struct hosts h;
    struct vdi_stat stat;
    const char *vdi, *snaps[2];
    int fd;

    hosts_init(&h);
    vdi = file_world_vdi(&h.a, 4 * MIB, "");
    for (int i = 0; i < 2; i++) {
        file_world_put(&h.a, vdi, i * 65536, (char)('a' + i));
        file_ok(driver->vdi_snapshot(h.a.c, &h.a.sr, vdi, file_world_uuid(&h.a), &stat));
        snaps[i] = stat.location;
    }
    file_world_put(&h.a, vdi, 3 * MIB, 'c');
    for (int i = 0; i < 2; i++)
        file_ok(driver->vdi_destroy(h.a.c, &h.a.sr, snaps[i]));
    assert_int_equal(file_world_count(&h.b, true), 2);
    fd = tapd_lock(&h.a, vdi);
    file_world_clean(&h.b); /* in use on the other host: nothing */
    assert_int_equal(file_world_count(&h.b, true), 2);
    file_world_guest(&h.a, vdi);
    file_world_clean(&h.a); /* in use on this one: all of it */
    assert_int_equal(file_world_count(&h.b, true), 0);
    close(fd);
    assert_int_equal(file_world_get(&h.b, vdi, 0), 'a');
    assert_int_equal(file_world_get(&h.b, vdi, 65536), 'b');
    assert_int_equal(file_world_get(&h.b, vdi, 3 * MIB), 'c');
    hosts_release(&h);
}

static void test_a_leaf_nobody_uses_stays(void **state)
{
    struct hosts h;
    struct vdi_stat stat;
    const char *vdi;

    hosts_init(&h);
    vdi = file_world_vdi(&h.a, 4 * MIB, "");
    file_ok(driver->vdi_snapshot(h.a.c, &h.a.sr, vdi, file_world_uuid(&h.a), &stat));
    file_ok(driver->vdi_destroy(h.a.c, &h.a.sr, stat.location));
    file_world_clean(&h.b); /* the other host might open it meanwhile */
    assert_int_equal(file_world_count(&h.b, true), 1);
    hosts_release(&h);
}

/* A copy in the making is not taken for a leftover. */
static struct hosts *attaching;
static void attach_there(struct file_world *w, const char *location)
{
    file_world_reattach(&attaching->b);
}

static struct error *copy_slowly(void *ctx, struct call *c, const char *location, const struct vdi_where *from, const struct vdi_where *to)
{
    attach_there(ctx, location);
    return access(to->path, F_OK) == 0 ? NULL : error_make(c->arena, __FILE__, __LINE__, "SR_BACKEND_FAILURE", 3, "5", "", "gone");
}

static void test_parts_of_another_host_stay(void **state)
{
    struct hosts h;
    struct vdi_stat stat;
    const char *vdi;

    hosts_init(&h);
    attaching = &h;
    vdi = file_world_vdi(&h.a, 4 * MIB, "raw");
    file_ok(driver->vdi_enable_cbt(h.a.c, &h.a.sr, vdi));
    file_world_guest(&h.a, vdi);
    h.a.live.copy_point = copy_slowly;
    file_ok(driver->vdi_snapshot(h.a.c, &h.a.sr, vdi, file_world_uuid(&h.a), &stat));
    assert_true(stat.cbt_enabled);
    hosts_release(&h);
}

static void test_a_journal_that_is_none(void **state)
{
    struct hosts h;
    const char *path;

    hosts_init(&h);
    path = tempdir_write(&h.dir, ".journal-01234567-0123-4123-8123-0123456789ab", "image journal 1\noperation=snapshot\nleaf=");
    assert_int_equal(file_world_count(&h.b, false), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    path = tempdir_write(&h.dir, ".journal-01234567-0123-4123-8123-0123456789ab", "");
    file_world_reattach(&h.a);
    assert_int_not_equal(access(path, F_OK), 0);
    hosts_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_snapshot_from_elsewhere),
        cmocka_unit_test(test_no_coalescing_under_another_host),
        cmocka_unit_test(test_a_leaf_nobody_uses_stays),
        cmocka_unit_test(test_parts_of_another_host_stay),
        cmocka_unit_test(test_a_journal_that_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
