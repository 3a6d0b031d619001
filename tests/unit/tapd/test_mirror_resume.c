/* A mirror whose connection breaks, and one whose process is killed. */
#include <unistd.h>

#include "rpc/base/fd.h"
#include "tests/lib/tempdir.h"
#include "tests/unit/tapd/mirror_world.h"

/* --- a connection that breaks -------------------------------------------------------------------------------- */

static void test_connection_breaks_and_comes_back(void **state)
{
    for (uint32_t seed = 1; seed <= runs(120); seed++) {
        struct world w;
        int64_t size = random_size(&w, seed);
        world_make(&w, seed, size);
        vary(&w);
        w.options.remote = &world_remote;
        w.options.bandwidth = 0;
        w.options.reconnect_us = 3600 * (int64_t)1000000;
        world_start(&w);
        mirror_switch(w.layer, world_commit, &w);
        for (unsigned breaks = 1 + pick(&w, 4); breaks > 0 && world_state(&w) != MIRROR_SWITCHED; breaks--) {
            world_run(&w, pick(&w, 300), 40);
            if (world_state(&w) == MIRROR_SWITCHED)
                break;
            unsigned changed = w.n_changed;
            struct mirror_status s;
            remote_break(&w);
            world_status(&w, &s);
            assert_true(w.n_changed > changed); /* told at once */
            assert_non_null(strstr(s.error, "lost"));
            assert_true(s.state == MIRROR_COPYING || s.state == MIRROR_FOLLOWING);
            w.unreachable = pick(&w, 2) == 0;
            for (unsigned i = 0; w.lost; i++) {
                assert_true(i < 100000);
                world_step(&w, 30);
                if (pick(&w, 50) == 0) {
                    remote_return(&w);
                    w.unreachable = false;
                }
            }
            world_status(&w, &s);
            assert_string_equal(s.error, "");
            assert_true(s.state == MIRROR_COPYING || s.state == MIRROR_FOLLOWING);
        }
        drive_to_switch(&w);
        world_finish(&w, true);
        world_free(&w);
    }
}

static void test_break_resends_only_what_was_under_way(void **state)
{
    struct world w;

    world_make(&w, 90, 32 * MIB);
    memory_block_fill(w.source, 0, w.size, 7);
    memset(w.model, 7, (size_t)w.size);
    w.options.remote = &world_remote;
    world_later(&w);
    world_start(&w);
    struct mirror_status s = { 0 };
    while (s.sent < 24 * MIB) {
        world_step(&w, 0);
        world_status(&w, &s);
    }
    remote_break(&w);
    while (w.lost) {
        world_step(&w, 0);
        remote_return(&w);
    }
    mirror_switch(w.layer, world_commit, &w);
    assert_int_equal(world_run(&w, 100000, 0), MIRROR_SWITCHED);
    world_status(&w, &s);
    assert_true(s.sent <= 32 * MIB + 8 * MIB); /* eight requests may have been in flight */
    world_finish(&w, true);
    world_free(&w);
}

static void test_target_that_does_not_come_back(void **state)
{
    struct world w;
    struct mirror_status s;

    world_make(&w, 91, 2 * MIB);
    w.options.remote = &world_remote;
    w.options.reconnect_us = 1000000;
    world_later(&w);
    world_start(&w);
    world_run(&w, 20, 20);
    w.unreachable = true;
    remote_break(&w);
    int64_t began = w.clock.now_us;
    while (world_state(&w) != MIRROR_FAILED) {
        world_step(&w, 20);
        remote_return(&w);
        assert_true(w.clock.now_us - began < 1500000);
    }
    assert_true(w.clock.now_us - began >= 1000000);
    world_status(&w, &s);
    assert_non_null(strstr(s.error, "could not be reached again"));
    world_finish(&w, false);
    world_free(&w);
}

static void test_point_does_not_wait_for_a_lost_target(void **state)
{
    struct world w;

    world_make(&w, 93, 2 * MIB);
    w.options.remote = &world_remote;
    w.options.mode = MIRROR_POINT;
    world_later(&w);
    world_start(&w);
    world_run(&w, 4, 100);
    remote_break(&w);
    assert_int_equal(world_state(&w), MIRROR_FAILED);
    assert_int_equal(w.n_reconnects, 0);
    world_quiet(&w);
    world_finish(&w, false);
    world_free(&w);
}

static void test_disk_lost_after_the_switch_makes_the_guest_wait(void **state)
{
    struct world w;

    world_make(&w, 92, 2 * MIB);
    w.options.remote = &world_remote;
    world_later(&w);
    world_start(&w);
    mirror_switch(w.layer, world_commit, &w);
    drive_to_switch(&w);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 50; i++)
            world_step(&w, 60);
        remote_break(&w);
        for (unsigned i = 0; i < 50; i++) /* nobody gets an error */
            world_step(&w, 60);
        while (w.lost) {
            world_step(&w, 0);
            remote_return(&w);
        }
    }
    world_quiet(&w);
    assert_same(w.target->bytes, w.model, w.size, "the target and what was acknowledged");
    world_finish(&w, true);
    world_free(&w);
}

/* --- killed and started again ------------------------------------------------------------------------------------ */

/* What a kill leaves: the disks and the map as they are this moment, and a guest that will repeat what it was not
 * answered. */
struct remains {
    uint8_t *source, *target, *source_held, *target_held, *model, *moment;
    char *map;
    size_t map_len;
    struct block_request repeat[WORLD_GUESTS];
    uint8_t *data[WORLD_GUESTS];
    unsigned n_repeat;
    int64_t dirty;
};

static uint8_t *copy_of(struct world *w, const void *bytes, int64_t n) { return arena_memdup(w->arena, bytes, (size_t)n); }

static void remains_take(struct world *w, struct arena *a, struct remains *r)
{
    struct mirror_status s;
    struct arena *own = w->arena;

    memset(r, 0, sizeof(*r));
    w->arena = a;
    r->source = copy_of(w, w->source->bytes, w->size);
    r->target = copy_of(w, w->target->bytes, w->size);
    r->source_held = copy_of(w, w->source->held, w->size / 4096 + 1);
    r->target_held = copy_of(w, w->target->held, w->size / 4096 + 1);
    r->model = copy_of(w, w->model, w->size);
    r->moment = copy_of(w, w->moment, w->size);
    for (unsigned i = 0; i < WORLD_GUESTS; i++) {
        const struct guest_op *g = &w->guests[i];
        if (!g->busy || g->r.op == BLOCK_READ || g->r.op == BLOCK_FLUSH)
            continue;
        r->data[r->n_repeat] = copy_of(w, g->buffer, 512 * SECTOR);
        r->repeat[r->n_repeat++] = g->r;
    }
    w->arena = own;
    assert_int_equal(file_read(a, w->options.map_path, 1 << 24, &r->map, &r->map_len), 0);
    world_status(w, &s);
    r->dirty = s.dirty;
}

static void remains_revive(struct world *w, const struct remains *r)
{
    memcpy(w->source->bytes, r->source, (size_t)w->size);
    memcpy(w->target->bytes, r->target, (size_t)w->size);
    memcpy(w->source->held, r->source_held, (size_t)w->size / 4096 + 1);
    memcpy(w->target->held, r->target_held, (size_t)w->size / 4096 + 1);
    memcpy(w->model, r->model, (size_t)w->size);
    memcpy(w->moment, r->moment, (size_t)w->size);
    assert_int_equal(file_replace(w->options.map_path, r->map, r->map_len, 0600), 0);
    w->serial = 1 << 20;
}

static void remains_repeat(struct world *w, const struct remains *r)
{
    for (unsigned i = 0; i < r->n_repeat; i++) {
        struct guest_op *g = &w->guests[i];
        g->w = w;
        g->busy = true;
        w->n_guests++;
        memcpy(g->buffer, r->data[i], 512 * SECTOR);
        g->r = (struct block_request){ .op = r->repeat[i].op, .offset = r->repeat[i].offset, .length = r->repeat[i].length,
                                       .buffer = g->buffer, .done = guest_done, .owner = g };
        claim(w, &g->r, true);
        block_submit(w->layer, &g->r);
    }
}

static void one_kill(uint32_t seed, enum mirror_mode mode, const char *map_path)
{
    struct world w, again;
    struct mirror_options options;
    struct remains r;
    AUTO_ARENA a = arena_new();
    int64_t size = random_size(&w, seed);

    world_make(&w, seed, size);
    vary(&w);
    world_later(&w);
    w.options.mode = mode;
    w.options.map_path = map_path;
    w.options.source = "raw:/source";
    options = w.options;
    world_start(&w);
    if (pick(&w, 3) == 0)
        mirror_switch(w.layer, world_commit, &w);
    enum mirror_state s = world_run(&w, pick(&w, 1200), 40);
    assert_int_not_equal(s, MIRROR_FAILED);
    bool killed = s != MIRROR_SWITCHED;
    if (killed)
        remains_take(&w, a, &r);
    world_finish(&w, !killed);
    world_free(&w);
    if (!killed)
        return;
    world_make(&again, seed + 1, size);
    again.options = options;
    remains_revive(&again, &r);
    world_later(&again);
    world_start(&again);
    remains_repeat(&again, &r);
    struct mirror_status now;
    world_status(&again, &now);
    assert_int_not_equal(now.state, MIRROR_FAILED);
    if (mode == MIRROR_POINT || mode == MIRROR_COPY) {
        assert_int_equal(world_run(&again, 100000, mode == MIRROR_POINT ? 5 : 0), MIRROR_DONE);
        if (mode == MIRROR_POINT)
            assert_same(again.target->bytes, again.moment, size, "the target and the moment");
    } else {
        mirror_switch(again.layer, world_commit, &again);
        drive_to_switch(&again);
    }
    world_finish(&again, mode != MIRROR_POINT && mode != MIRROR_COPY);
    world_free(&again);
}

static void test_kill_and_resume(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    tempdir_make(&dir);
    const char *map_path = tempdir_file(&dir, "map");

    for (uint32_t seed = 1; seed <= runs(150); seed++)
        one_kill(seed, seed % 3 == 0 ? MIRROR_POINT : MIRROR_FOLLOW, map_path);
}

/* Only what the kill left undone is sent again. */
static void test_resume_sends_only_the_rest(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    AUTO_ARENA a = arena_new();
    struct world w, again;
    struct mirror_status s = { 0 };
    struct remains r;
    tempdir_make(&dir);

    world_make(&w, 200, 32 * MIB);
    memory_block_fill(w.source, 0, w.size, 7);
    memset(w.model, 7, (size_t)w.size);
    w.options.map_path = tempdir_file(&dir, "map");
    world_later(&w);
    world_start(&w);
    while (s.copied < 24 * MIB) {
        world_step(&w, 0);
        world_status(&w, &s);
    }
    remains_take(&w, a, &r);
    world_make(&again, 201, 32 * MIB);
    again.options = w.options;
    world_finish(&w, false);
    world_free(&w);
    world_of_remote = &again;
    remains_revive(&again, &r);
    world_start(&again);
    mirror_switch(again.layer, world_commit, &again);
    assert_int_equal(world_run(&again, 100000, 0), MIRROR_SWITCHED);
    world_status(&again, &s);
    assert_true(s.sent <= r.dirty && r.dirty <= 8 * MIB);
    world_finish(&again, true);
    world_free(&again);
}

/* A mirror that failed is not followed any more: its map must not be believed after a kill. */
static void test_map_of_a_failed_mirror_is_not_resumed(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    AUTO_ARENA a = arena_new();
    struct world w, again;
    struct remains r;
    tempdir_make(&dir);

    world_make(&w, 202, 2 * MIB);
    w.options.map_path = tempdir_file(&dir, "map");
    world_start(&w);
    while (world_state(&w) != MIRROR_FOLLOWING)
        world_step(&w, 10);
    assert_true(fault_arm("mirror.write=error@1"));
    assert_int_equal(world_run(&w, 10000, 30), MIRROR_FAILED);
    for (unsigned i = 0; i < 200; i++)
        world_step(&w, 50);
    world_quiet(&w);
    remains_take(&w, a, &r);
    struct mirror_options options = w.options;
    world_finish(&w, false);
    world_free(&w);
    world_make(&again, 203, 2 * MIB);
    again.options = options;
    remains_revive(&again, &r);
    world_start(&again);
    mirror_switch(again.layer, world_commit, &again); /* all over again: the target is equal at the end all the same */
    drive_to_switch(&again);
    struct mirror_status s;
    world_status(&again, &s);
    world_finish(&again, true);
    world_free(&again);
}

static void test_closed_in_the_middle_leaves_its_map(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    struct world w;
    tempdir_make(&dir);

    world_make(&w, 204, 8 * MIB);
    w.options.map_path = tempdir_file(&dir, "map");
    world_start(&w);
    world_run(&w, 3, 10);
    world_quiet(&w);
    assert_int_equal(block_close(w.layer), 0);
    assert_true(w.source_closed && w.target_closed);
    assert_int_equal(access(w.options.map_path, F_OK), 0);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connection_breaks_and_comes_back),
        cmocka_unit_test(test_break_resends_only_what_was_under_way),
        cmocka_unit_test(test_target_that_does_not_come_back),
        cmocka_unit_test(test_point_does_not_wait_for_a_lost_target),
        cmocka_unit_test(test_disk_lost_after_the_switch_makes_the_guest_wait),
        cmocka_unit_test(test_kill_and_resume),
        cmocka_unit_test(test_resume_sends_only_the_rest),
        cmocka_unit_test(test_map_of_a_failed_mirror_is_not_resumed),
        cmocka_unit_test(test_closed_in_the_middle_leaves_its_map),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
