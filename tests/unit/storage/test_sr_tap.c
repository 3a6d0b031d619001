/* storage/sr*.c with tapds (tests/lib/fake_tapd.py: the protocol without data): attach to detach, pauses, copies,
 * mirrors, and what is found after a crash. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "storage/sr.h"
#include "storage/tap.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)
#define FAKE "tests/lib/fake_tapd.py"

struct world {
    struct fakecall fake;
    struct tempdir dir;
    struct call *c;
    struct taps *taps;
    struct storage *storage;
    struct member config[2][1];
    struct sr_spec sr[2];
};

static const struct vdi_use vbd = { .user = "vbd-1" }, other = { .user = "vbd-2" }, reader = { .user = "r", .read_only = true },
                            direct = { .user = "suspend", .direct = true };

static void ok(struct world *w, struct error *error)
{
    if (error != NULL)
        fail_msg("%s", error_text(w->c->arena, error));
}

static void fails(struct error *error, const char *text)
{
    assert_non_null(error);
    assert_string_equal(error->code, "SR_BACKEND_FAILURE");
    if (strstr(error->params[2], text) == NULL)
        fail_msg("'%s' does not say '%s'", error->params[2], text);
}

static void world_open(struct world *w)
{
    const struct taps_options options = { .dir = tempdir_file(&w->dir, "t"), .program = FAKE, .clock = &clock_real };

    w->taps = taps_new(&options);
    w->storage = storage_new(w->taps);
}

static void world_close(struct world *w)
{
    storage_free(w->storage);
    taps_free(w->taps);
}

static void world_init(struct world *w, const char *second)
{
    const char *names[] = { "one", second };

    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
    w->c = &w->fake.call;
    world_open(w);
    for (unsigned i = 0; i < 2; i++) {
        w->config[i][0] = member_of("location", value_string(tempdir_file(&w->dir, names[i])));
        w->sr[i] = (struct sr_spec) { .uuid = uuid_make(w->c->arena), .type = "file", .device_config = value_map(w->config[i], 1) };
        ok(w, sr_create(w->c, w->storage, &w->sr[i], 0));
        ok(w, sr_attach(w->c, w->storage, &w->sr[i]));
    }
}

static void world_release(struct world *w)
{
    assert_int_equal(taps_list(w->taps, w->c->arena).len, 0);
    world_close(w);
    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
}

static const char *disk(struct world *w, unsigned sr)
{
    const struct vdi_create_spec spec = { .uuid = uuid_make(w->c->arena), .virtual_size = 4 * MIB, .format = "vhd" };
    struct vdi_stat stat;

    ok(w, vdi_create(w->c, w->storage, w->sr[sr].uuid, &spec, &stat));
    return stat.location;
}

static const char *key_of(struct world *w, unsigned sr, const char *location)
{
    return arena_printf(w->c->arena, "%s/%s", w->sr[sr].uuid, location);
}

static const char *ask(struct world *w, const char *key, const char *word)
{
    struct value status;

    ok(w, tap_call(w->c, w->taps, key, "status", NULL, -1, &status));
    return value_get_string(&status, word, "");
}

static const char *attach(struct world *w, unsigned sr, const char *location, const struct vdi_use *use)
{
    struct vdi_where where;

    ok(w, vdi_attach(w->c, w->storage, w->sr[sr].uuid, location, use, &where));
    return where.path;
}

static const char *used_disk(struct world *w)
{
    const char *location = disk(w, 0);

    attach(w, 0, location, &vbd);
    ok(w, vdi_activate(w->c, w->storage, w->sr[0].uuid, location));
    return location;
}

static void let_go(struct world *w, unsigned sr, const char *location)
{
    ok(w, vdi_detach(w->c, w->storage, w->sr[sr].uuid, location, vbd.user));
}

static void test_life(void **state)
{
    struct world w;
    struct vdi_where where;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = disk(&w, 0), *key = key_of(&w, 0, location);
    ok(&w, vdi_attach(w.c, w.storage, sr, location, &vbd, &where));
    assert_string_equal(where.format, "nbd");
    assert_non_null(strstr(where.path, "nbd+unix:"));
    assert_string_equal(ask(&w, key, "state"), "inactive");
    assert_string_equal(ask(&w, key, "format"), "vhd");
    ok(&w, vdi_activate(w.c, w.storage, sr, location));
    ok(&w, vdi_activate(w.c, w.storage, sr, location));
    assert_string_equal(ask(&w, key, "state"), "active");
    assert_string_equal(attach(&w, 0, location, &other), where.path);
    fails(sr_detach(w.c, w.storage, sr), "is in use");
    ok(&w, vdi_deactivate(w.c, w.storage, sr, location));
    assert_string_equal(ask(&w, key, "state"), "inactive");
    ok(&w, vdi_detach(w.c, w.storage, sr, location, vbd.user));
    assert_true(tap_exists(w.taps, key));
    ok(&w, vdi_detach(w.c, w.storage, sr, location, other.user));
    ok(&w, vdi_detach(w.c, w.storage, sr, location, other.user));
    assert_false(tap_exists(w.taps, key));
    fails(vdi_activate(w.c, w.storage, sr, location), "is not attached");
    ok(&w, vdi_deactivate(w.c, w.storage, sr, location));
    world_release(&w);
}

static void test_direct(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *location = disk(&w, 0), *path = attach(&w, 0, location, &direct);
    assert_int_equal(access(path, R_OK), 0);
    assert_false(tap_exists(w.taps, key_of(&w, 0, location)));
    ok(&w, vdi_detach(w.c, w.storage, w.sr[0].uuid, location, direct.user));
    world_release(&w);
}

static void test_faults_leave_nothing(void **state)
{
    struct world w;
    struct vdi_where where;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = disk(&w, 0);
    assert_true(fault_arm("tap.attach=error"));
    fails(vdi_attach(w.c, w.storage, sr, location, &vbd, &where), "tap.attach");
    fault_disarm(NULL);
    assert_false(tap_exists(w.taps, key_of(&w, 0, location)));
    attach(&w, 0, location, &vbd);
    assert_true(fault_arm("tap.activate=error"));
    fails(vdi_activate(w.c, w.storage, sr, location), "tap.activate");
    fault_disarm(NULL);
    ok(&w, vdi_activate(w.c, w.storage, sr, location));
    let_go(&w, 0, location);
    world_release(&w);
}

/* xapi was killed and started again: nobody has attached the SR yet, but guests come and go. */
static void test_without_its_sr(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = used_disk(&w), *key = key_of(&w, 0, location);
    world_close(&w);
    world_open(&w);
    assert_false(sr_is_attached(w.storage, sr));
    ok(&w, vdi_deactivate(w.c, w.storage, sr, location));
    assert_string_equal(ask(&w, key, "state"), "inactive");
    ok(&w, vdi_activate(w.c, w.storage, sr, location));
    assert_string_equal(ask(&w, key, "state"), "active");
    ok(&w, vdi_detach(w.c, w.storage, sr, location, vbd.user));
    assert_false(tap_exists(w.taps, key));
    assert_true(error_is(vdi_activate(w.c, w.storage, sr, location), "SR_NOT_ATTACHED"));
    world_release(&w);
}

static void test_snapshot_of_a_disk_in_use(void **state)
{
    struct world w;
    struct vdi_stat snapshot;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = used_disk(&w), *key = key_of(&w, 0, location);
    ok(&w, vdi_snapshot(w.c, w.storage, sr, location, uuid_make(w.c->arena), &snapshot));
    assert_string_equal(ask(&w, key, "state"), "active");
    ok(&w, vdi_resize(w.c, w.storage, sr, location, 8 * MIB, &snapshot));
    assert_int_equal(snapshot.virtual_size, 8 * MIB);
    assert_string_equal(ask(&w, key, "size"), "8388608");
    let_go(&w, 0, location);
    ok(&w, sr_clean(w.c, w.storage, sr));
    world_release(&w);
}

static void test_a_pause_of_the_dead_is_ended(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *location = used_disk(&w), *key = key_of(&w, 0, location);
    ok(&w, tap_call(w.c, w.taps, key, "pause", NULL, -1, NULL));
    world_close(&w);
    world_open(&w);
    assert_string_equal(ask(&w, key, "state"), "paused");
    ok(&w, sr_attach(w.c, w.storage, &w.sr[0]));
    assert_string_equal(ask(&w, key, "state"), "active");
    let_go(&w, 0, location);
    world_release(&w);
}

static void test_copy(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *location = disk(&w, 0), *to = disk(&w, 1);
    ok(&w, vdi_copy(w.c, w.storage, w.sr[0].uuid, location, w.sr[1].uuid, to));
    assert_true(w.fake.n_progress > 0);
    world_release(&w);
}

static void test_copy_that_fails_or_is_cancelled(void **state)
{
    struct world w;

    world_init(&w, "lost");
    const char *location = disk(&w, 0), *to = disk(&w, 1), *here = disk(&w, 0);
    fails(vdi_copy(w.c, w.storage, w.sr[0].uuid, location, w.sr[1].uuid, to), "told to lose it");
    assert_int_equal(taps_list(w.taps, w.c->arena).len, 0);
    cancel_raise(w.c->cancel);
    assert_true(error_is(vdi_copy(w.c, w.storage, w.sr[0].uuid, location, w.sr[0].uuid, here), "TASK_CANCELLED"));
    world_release(&w);
}

static void mirror(struct world *w, const char *location, const char *to)
{
    const struct vdi_mirror_spec spec = { .to_sr = w->sr[1].uuid, .to = to, .uri = "" };

    ok(w, vdi_mirror_start(w->c, w->storage, w->sr[0].uuid, location, &spec));
}

static const char *mirror_state(struct world *w, const char *location)
{
    struct value status;

    ok(w, vdi_mirror_status(w->c, w->storage, w->sr[0].uuid, location, &status));
    return value_get_string(&status, "mirror", "");
}

static void test_mirror(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = used_disk(&w), *to = disk(&w, 1), *uri = attach(&w, 0, location, &other);
    assert_string_equal(mirror_state(&w, location), "none");
    fails(vdi_mirror_switch(w.c, w.storage, sr, location), "is not being mirrored");
    mirror(&w, location, to);
    mirror(&w, location, to); /* again */
    assert_string_equal(mirror_state(&w, location), "copying");
    ok(&w, vdi_mirror_set(w.c, w.storage, sr, location, 1000, -1));
    ok(&w, vdi_mirror_switch(w.c, w.storage, sr, location));
    assert_false(tap_exists(w.taps, key_of(&w, 0, location)));
    assert_string_equal(mirror_state(&w, location), "switched");
    struct value status; /* what it was like is told afterwards */
    ok(&w, vdi_mirror_status(w.c, w.storage, sr, location, &status));
    assert_string_equal(value_get_string(&status, "mirror_total", ""), "100");
    ok(&w, vdi_mirror_switch(w.c, w.storage, sr, location));
    fails(vdi_mirror_abort(w.c, w.storage, sr, location), "switched already");
    assert_string_equal(attach(&w, 1, to, &vbd), uri);
    assert_string_equal(ask(&w, key_of(&w, 1, to), "state"), "active");
    let_go(&w, 1, to);
    ok(&w, vdi_detach(w.c, w.storage, w.sr[1].uuid, to, other.user));
    ok(&w, vdi_destroy(w.c, w.storage, sr, location));
    world_release(&w);
}

static void test_mirror_needs_a_disk_in_use(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *location = disk(&w, 0), *to = disk(&w, 1);
    const struct vdi_mirror_spec spec = { .to_sr = w.sr[1].uuid, .to = to, .uri = "" };
    fails(vdi_mirror_start(w.c, w.storage, w.sr[0].uuid, location, &spec), "not in use");
    attach(&w, 0, location, &vbd);
    fails(vdi_mirror_start(w.c, w.storage, w.sr[0].uuid, location, &spec), "not in use");
    ok(&w, vdi_activate(w.c, w.storage, w.sr[0].uuid, location));
    attach(&w, 1, to, &vbd);
    fails(vdi_mirror_start(w.c, w.storage, w.sr[0].uuid, location, &spec), "is in use");
    let_go(&w, 0, location);
    let_go(&w, 1, to);
    world_release(&w);
}

static void test_mirror_aborted(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = used_disk(&w), *to = disk(&w, 1);
    mirror(&w, location, to);
    ok(&w, vdi_mirror_abort(w.c, w.storage, sr, location));
    ok(&w, vdi_mirror_abort(w.c, w.storage, sr, location));
    assert_string_equal(mirror_state(&w, location), "none");
    assert_false(tap_is_target(w.taps, key_of(&w, 1, to)));
    ok(&w, vdi_destroy(w.c, w.storage, w.sr[1].uuid, to));
    let_go(&w, 0, location);
    world_release(&w);
}

static void test_mirror_lost(void **state)
{
    struct world w;

    world_init(&w, "lost");
    const char *sr = w.sr[0].uuid, *location = used_disk(&w), *to = disk(&w, 1);
    mirror(&w, location, to);
    fails(vdi_mirror_switch(w.c, w.storage, sr, location), "told to lose it");
    assert_string_equal(ask(&w, key_of(&w, 0, location), "state"), "active");
    ok(&w, vdi_mirror_abort(w.c, w.storage, sr, location));
    let_go(&w, 0, location);
    world_release(&w);
}

/* Between the tapd's switch and the new key: the tapd has gone over, whoever asks hears it, and a repeated switch
 * finishes it. */
static void test_crash_before_the_new_key(void **state)
{
    for (int restart = 0; restart < 2; restart++) {
        struct world w;

        world_init(&w, "two");
        const char *sr = w.sr[0].uuid, *location = used_disk(&w), *to = disk(&w, 1);
        mirror(&w, location, to);
        assert_true(fault_arm("vdi.mirror.before-rekey=error"));
        fails(vdi_mirror_switch(w.c, w.storage, sr, location), "vdi.mirror.before-rekey");
        fault_disarm(NULL);
        if (restart) {
            world_close(&w);
            world_open(&w);
            ok(&w, sr_attach(w.c, w.storage, &w.sr[0]));
            ok(&w, sr_attach(w.c, w.storage, &w.sr[1]));
        }
        assert_string_equal(mirror_state(&w, location), "switched");
        fails(vdi_mirror_abort(w.c, w.storage, sr, location), "switched already");
        ok(&w, vdi_mirror_switch(w.c, w.storage, sr, location));
        assert_true(tap_exists(w.taps, key_of(&w, 1, to)));
        let_go(&w, 1, to);
        world_release(&w);
    }
}

/* The storage is gone with a mirror in flight: it is still there, and can be aborted. */
static void test_mirror_found_again(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *sr = w.sr[0].uuid, *location = used_disk(&w), *to = disk(&w, 1);
    mirror(&w, location, to);
    world_close(&w);
    world_open(&w);
    ok(&w, sr_attach(w.c, w.storage, &w.sr[0]));
    ok(&w, sr_attach(w.c, w.storage, &w.sr[1]));
    assert_string_not_equal(mirror_state(&w, location), "none");
    ok(&w, vdi_mirror_abort(w.c, w.storage, sr, location));
    let_go(&w, 0, location);
    world_release(&w);
}

/* A copy's tapd, and a copy in a disk's own tapd, have nobody to wait for them after a crash. */
static void test_copies_of_the_dead_are_given_up(void **state)
{
    struct world w;
    const char *uri;

    world_init(&w, "two");
    const char *location = used_disk(&w), *key = key_of(&w, 0, location), *copy = arena_printf(w.c->arena, "%s#copy-0", key);
    const struct tap_spec spec = { .key = copy, .format = "raw", .path = "x", .read_only = true, .cbt = "" };
    const struct member args[] = { member_of("format", value_string("raw")), member_of("path", value_string("y")), member_of("mode", value_string("point")) };
    struct value v = value_map(args, 3);
    ok(&w, tap_attach(w.c, w.taps, &spec, "copy", &uri));
    ok(&w, tap_call(w.c, w.taps, key, "mirror-start", &v, -1, NULL));
    world_close(&w);
    world_open(&w);
    ok(&w, sr_attach(w.c, w.storage, &w.sr[0]));
    assert_false(tap_exists(w.taps, copy));
    assert_string_equal(ask(&w, key, "mirror"), "none");
    assert_string_equal(ask(&w, key, "state"), "active");
    let_go(&w, 0, location);
    world_release(&w);
}

static void test_reader_and_writer(void **state)
{
    struct world w;

    world_init(&w, "two");
    const char *location = disk(&w, 0), *uri = attach(&w, 0, location, &reader);
    ok(&w, vdi_activate(w.c, w.storage, w.sr[0].uuid, location));
    assert_string_equal(ask(&w, key_of(&w, 0, location), "read_only"), "1");
    assert_string_equal(attach(&w, 0, location, &vbd), uri);
    assert_string_equal(ask(&w, key_of(&w, 0, location), "read_only"), "0");
    let_go(&w, 0, location);
    ok(&w, vdi_detach(w.c, w.storage, w.sr[0].uuid, location, reader.user));
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_faults_leave_nothing),
        cmocka_unit_test(test_without_its_sr),
        cmocka_unit_test(test_snapshot_of_a_disk_in_use),
        cmocka_unit_test(test_a_pause_of_the_dead_is_ended),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_copy_that_fails_or_is_cancelled),
        cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_mirror_needs_a_disk_in_use),
        cmocka_unit_test(test_mirror_aborted),
        cmocka_unit_test(test_mirror_lost),
        cmocka_unit_test(test_crash_before_the_new_key),
        cmocka_unit_test(test_mirror_found_again),
        cmocka_unit_test(test_copies_of_the_dead_are_given_up),
        cmocka_unit_test(test_reader_and_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
