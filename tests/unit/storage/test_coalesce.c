/* Coalescing: what the VDIs read stays, the chains become short, the guest goes on, verbs come first. */
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/work.h"
#include "storage/drivers/image_coalesce.h"
#include "tests/lib/file_world.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

static const struct sr_driver *const driver = &sr_driver_file;

static const char *snapshot(struct file_world *w, const char *location)
{
    struct vdi_stat stat;

    file_ok(driver->vdi_snapshot(w->c, &w->sr, location, file_world_uuid(w), &stat));
    return stat.location;
}

/* A chain of three bases below a leaf: 'a' written first, then 'b' at 4 MiB, 'c' at 8 MiB, 'd' at 0. */
static const char *chain_of(struct file_world *w, const char *format)
{
    const char *vdi, *snaps[3];

    file_world_init(w, NULL, format);
    vdi = file_world_vdi(w, 16 * MIB, "");
    file_world_put(w, vdi, 0, 'a');
    snaps[0] = snapshot(w, vdi);
    file_world_put(w, vdi, 4 * MIB, 'b');
    snaps[1] = snapshot(w, vdi);
    file_world_put(w, vdi, 8 * MIB, 'c');
    snaps[2] = snapshot(w, vdi);
    file_world_put(w, vdi, 0, 'd');
    assert_int_equal(file_world_count(w, true), 3);
    for (int i = 0; i < 3; i++)
        file_ok(driver->vdi_destroy(w->c, &w->sr, snaps[i]));
    return vdi;
}

static const char *chain(struct file_world *w)
{
    return chain_of(w, "vhd");
}

static void check_chain(struct file_world *w, const char *vdi)
{
    assert_int_equal(file_world_get(w, vdi, 0), 'd');
    assert_int_equal(file_world_get(w, vdi, 4 * MIB), 'b');
    assert_int_equal(file_world_get(w, vdi, 8 * MIB), 'c');
    assert_int_equal(file_world_get(w, vdi, 12 * MIB), 0);
}

static void test_leaf_not_in_use(void **state)
{
    struct file_world w;
    const char *vdi = chain(&w);

    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 0);
    assert_int_equal(file_world_count(&w, false), 1);
    check_chain(&w, vdi);
    file_world_release(&w);
}

static void test_qcow2(void **state)
{
    struct file_world w;
    const char *vdi = chain_of(&w, "qcow2");

    file_world_guest(&w, vdi);
    file_world_clean(&w); /* not while it is in use */
    assert_int_equal(file_world_count(&w, true), 3);
    file_ok(driver->vdi_deactivate(w.c, &w.sr, vdi));
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 0);
    check_chain(&w, vdi);
    file_world_release(&w);
}

static void test_leaf_in_use(void **state)
{
    struct file_world w;
    const char *vdi = chain(&w);

    file_world_guest(&w, vdi);
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 0);
    assert_false(w.guest.paused);
    guest_put(&w, 12 * MIB, 'g');
    assert_int_equal(file_world_get(&w, vdi, 12 * MIB), 'g');
    file_world_put(&w, vdi, 12 * MIB, 0);
    check_chain(&w, vdi);
    file_world_release(&w);
}

static void test_a_base_with_two_children_stays(void **state)
{
    struct file_world w;
    const char *vdi, *first, *second;

    file_world_init(&w, NULL, "vhd");
    vdi = file_world_vdi(&w, 16 * MIB, "");
    file_world_put(&w, vdi, 0, 'a');
    first = snapshot(&w, vdi);
    file_world_put(&w, vdi, 4 * MIB, 'b');
    second = snapshot(&w, vdi);
    file_world_put(&w, vdi, 0, 'c');
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 2);
    file_ok(driver->vdi_destroy(w.c, &w.sr, first)); /* the oldest base now has one child: a base with two */
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 1);
    assert_int_equal(file_world_get(&w, vdi, 0), 'c');
    assert_int_equal(file_world_get(&w, vdi, 4 * MIB), 'b');
    assert_int_equal(file_world_get(&w, second, 0), 'a');
    assert_int_equal(file_world_get(&w, second, 4 * MIB), 'b');
    file_ok(driver->vdi_destroy(w.c, &w.sr, vdi)); /* the snapshot alone: it becomes one image and stays a snapshot */
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 0);
    assert_int_equal(file_world_get(&w, second, 4 * MIB), 'b');
    struct vdi_stat stat;
    file_ok(driver->vdi_stat(w.c, &w.sr, second, &stat));
    assert_true(stat.is_a_snapshot);
    assert_false(stat.hidden);
    file_world_release(&w);
}

static void test_a_leaf_that_grew(void **state)
{
    struct file_world w;
    const char *vdi, *snap;
    struct vdi_stat stat;

    file_world_init(&w, NULL, "vhd");
    vdi = file_world_vdi(&w, 16 * MIB, "");
    file_world_put(&w, vdi, 0, 'a');
    snap = snapshot(&w, vdi);
    file_ok(driver->vdi_resize(w.c, &w.sr, vdi, 8000 * MIB, &stat));
    file_world_put(&w, vdi, 7000 * MIB, 'z');
    file_ok(driver->vdi_destroy(w.c, &w.sr, snap));
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 0);
    file_ok(driver->vdi_stat(w.c, &w.sr, vdi, &stat));
    assert_int_equal(stat.virtual_size, 8000 * MIB);
    assert_int_equal(file_world_get(&w, vdi, 0), 'a');
    assert_int_equal(file_world_get(&w, vdi, 7000 * MIB), 'z');
    file_world_release(&w);
}

/* --- verbs come first ---------------------------------------------------------------------------------- */
struct rival { struct file_world *w; const char *vdi, *made; pthread_t thread; bool started; } rival;

static void *rival_run(void *arg)
{
    AUTO_ARENA arena = arena_new();
    struct call c = { .arena = arena, .clock = &clock_real };
    struct vdi_stat stat;

    file_ok(driver->vdi_snapshot(&c, &rival.w->sr, rival.vdi, rival.made, &stat));
    return NULL;
}

static void rival_start(struct file_world *w, const char *location)
{
    struct file_sr *fs = w->sr.state;

    if (rival.started || strcmp(location, rival.vdi) != 0)
        return;
    rival.started = true;
    rival.thread = thread_start("rival", rival_run, NULL);
    while (!cancel_raised(fs->turn.merge_cancel))
        poll(NULL, 0, 1);
}

static void test_a_snapshot_ends_the_merge(void **state)
{
    struct file_world w;
    const char *vdi = chain(&w);

    rival = (struct rival) { .w = &w, .vdi = vdi, .made = file_world_uuid(&w) };
    file_world_clean(&w); /* the bases */
    assert_int_equal(file_world_count(&w, true), 0);
    file_ok(driver->vdi_destroy(w.c, &w.sr, snapshot(&w, vdi)));
    file_world_put(&w, vdi, 0, 'd');
    w.merging = rival_start;
    bool more;
    file_ok(driver->sr_clean(w.c, &w.sr, &more));
    assert_true(more);
    assert_int_equal(pthread_join(rival.thread, NULL), 0);
    check_chain(&w, vdi);
    check_chain(&w, rival.made);
    file_world_clean(&w);
    assert_int_equal(file_world_count(&w, true), 1);
    check_chain(&w, vdi);
    check_chain(&w, rival.made);
    file_world_release(&w);
}

static void give_up(struct file_world *w, const char *location)
{
    cancel_raise(w->c->cancel);
    call_progress(w->c, 0.5);
}

static void test_cancelled(void **state)
{
    struct file_world w;
    const char *vdi = chain(&w);
    bool more;

    w.merging = give_up;
    assert_true(error_is(driver->sr_clean(w.c, &w.sr, &more), "TASK_CANCELLED"));
    check_chain(&w, vdi);
    cancel_unref(w.c->cancel);
    w.c->cancel = NULL;
    w.merging = NULL;
    file_world_clean(&w);
    check_chain(&w, vdi);
    assert_int_equal(file_world_count(&w, true), 0);
    file_world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaf_not_in_use),
        cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_leaf_in_use),
        cmocka_unit_test(test_a_base_with_two_children_stays),
        cmocka_unit_test(test_a_leaf_that_grew),
        cmocka_unit_test(test_a_snapshot_ends_the_merge),
        cmocka_unit_test(test_cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
