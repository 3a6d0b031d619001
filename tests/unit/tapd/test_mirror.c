#include "storage/tapd/mirror.h"

#include <stdio.h>

#include "tests/unit/tapd/mirror_world.h"

#define KIB 1024
#define MIB (1024 * KIB)

/* How many random lives each kind of test has: RUNS in the environment for more. */
static unsigned runs(unsigned n)
{
    const char *more = getenv("RUNS");
    return more != NULL ? n * (unsigned)strtoul(more, NULL, 10) : n;
}

static int64_t random_size(struct world *w, uint32_t seed)
{
    w->seed = seed;
    pick(w, 2);
    return (int64_t)(1 + pick(w, 400)) * 4096 + (pick(w, 3) == 0 ? 512 * (int64_t)pick(w, 8) : 0);
}

/* --- plain -------------------------------------------------------------------------------------------- */

static void test_copy_is_done_and_equal(void **state)
{
    struct world w;

    world_make(&w, 1, 8 * MIB + 512);
    w.options.mode = MIRROR_COPY;
    world_start(&w);
    assert_int_equal(world_run(&w, 1000, 0), MIRROR_DONE);
    assert_same(w.source->bytes, w.target->bytes, w.size, "source and target");
    struct mirror_status s;
    world_status(&w, &s);
    assert_int_equal(s.total, w.size);
    assert_int_equal(s.copied, w.size);
    assert_int_equal(s.proven, w.size);
    assert_int_equal(s.dirty + s.unproven, 0);
    assert_int_equal(s.repaired, 0);
    assert_true(s.fraction == 1);
    assert_string_equal(s.error, "");
    assert_true(w.target->n_ops[BLOCK_FLUSH] > 0);
    world_finish(&w, false);
    world_free(&w);
}

static void test_copy_leaves_holes_alone(void **state)
{
    struct world w;
    int64_t data = 0, zeros = 0;

    world_make(&w, 2, 16 * MIB);
    memset(w.source->bytes, 0, (size_t)w.size);
    memset(w.source->held, 0, (size_t)(w.size / 4096));
    memory_block_fill(w.source, 3 * MIB, 256 * KIB, 5);
    memory_block_fill(w.source, 9 * MIB, 512 * KIB, 0); /* written zeros */
    memory_block_fill(w.source, 12 * MIB, 4 * KIB, 6);
    memcpy(w.model, w.source->bytes, (size_t)w.size);
    w.options.mode = MIRROR_COPY;
    world_start(&w);
    assert_int_equal(world_run(&w, 1000, 0), MIRROR_DONE);
    data = w.target->n_bytes[BLOCK_WRITE];
    zeros = w.target->n_bytes[BLOCK_ZERO];
    assert_int_equal(data, 260 * KIB);
    assert_int_equal(zeros, 512 * KIB);
    assert_int_equal(w.source->n_bytes[BLOCK_READ] < 2 * (772 + 256) * KIB, 1); /* once to copy, once to prove; not the holes */
    for (int64_t u = 0; u < w.size / 4096; u++)
        assert_int_equal(w.target->held[u] != 0, w.target->bytes[u * 4096] != 0);
    world_finish(&w, false);
    world_free(&w);
}

static void test_without_proof_nothing_is_read_back(void **state)
{
    struct world w;

    world_make(&w, 3, 4 * MIB);
    w.options.mode = MIRROR_COPY;
    w.options.proof = false;
    world_start(&w);
    assert_int_equal(world_run(&w, 1000, 0), MIRROR_DONE);
    assert_same(w.source->bytes, w.target->bytes, w.size, "source and target");
    assert_int_equal(w.target->n_ops[BLOCK_READ], 0);
    world_finish(&w, false);
    world_free(&w);
}

static void test_cannot_start(void **state)
{
    for (unsigned i = 0; i < 3; i++) {
        struct world w;
        struct mirror_status s;
        world_make(&w, 4, 1 * MIB);
        if (i == 0)
            w.target->block.size = 512 * KIB;
        else if (i == 1)
            w.target->block.read_only = true;
        else
            w.options.map_path = "/nonexistent/map";
        world_start(&w);
        world_status(&w, &s);
        assert_int_equal(s.state, MIRROR_FAILED);
        assert_true(s.error[0] != '\0');
        for (unsigned k = 0; k < 100; k++) /* the guest does not mind */
            world_step(&w, 50);
        mirror_switch(w.layer, world_commit, &w);
        for (unsigned k = 0; k < 100; k++)
            world_step(&w, 50);
        assert_int_equal(w.n_commits, 0);
        world_finish(&w, false);
        world_free(&w);
    }
}

static void test_resize_is_refused_meanwhile(void **state)
{
    struct world w;

    world_make(&w, 5, 1 * MIB);
    world_start(&w);
    assert_int_equal(block_resized(w.layer, 2 * MIB), -EBUSY);
    world_finish(&w, false);
    world_free(&w);
}

/* --- random lives --------------------------------------------------------------------------------------- */

static void vary(struct world *w)
{
    w->options.budget_us = pick(w, 3) == 0 ? 0 : (int64_t)(1 + pick(w, 200)) * 1000;
    w->options.proof = pick(w, 5) != 0;
    w->options.remote = pick(w, 2) == 0 ? &world_remote : NULL;
    w->cannot_hash = pick(w, 3) == 0;
    w->options.bandwidth = pick(w, 5) == 0 ? (int64_t)(1 + pick(w, 50)) * MIB : 0;
    if (pick(w, 4) != 0)
        world_later(w);
}

static void drive_to_switch(struct world *w)
{
    /* less and less, so that it must converge at last */
    for (unsigned busy = 60; world_state(w) != MIRROR_SWITCHED; busy /= 2) {
        assert_int_not_equal(world_state(w), MIRROR_FAILED);
        enum mirror_state s = world_run(w, busy > 0 ? 1000 : 100000, busy);
        assert_true(s == MIRROR_SWITCHED || busy > 0);
    }
}

static void one_switch(uint32_t seed)
{
    struct world w;
    int64_t size = random_size(&w, seed);

    world_make(&w, seed, size);
    vary(&w);
    w.commit_fails = pick(&w, 8) == 0;
    bool fails = w.commit_fails > 0;
    world_start(&w);
    if (pick(&w, 2) == 0)
        world_run(&w, pick(&w, 1500), pick(&w, 90));
    mirror_switch(w.layer, world_commit, &w);
    if (fails) {
        while (w.n_commits == 0)
            world_step(&w, 1);
        assert_int_equal(world_state(&w), MIRROR_FOLLOWING);
        world_run(&w, 100, 50);
        mirror_switch(w.layer, world_commit, &w);
    }
    drive_to_switch(&w);
    assert_int_equal(w.n_commits, 1 + fails);
    for (unsigned i = 0; i < 200; i++)
        world_step(&w, 50);
    world_quiet(&w);
    assert_same(w.target->bytes, w.model, w.size, "the target and what was acknowledged, afterwards");
    world_finish(&w, true);
    world_free(&w);
}

static void test_switch_equals_what_was_acknowledged(void **state)
{
    for (uint32_t seed = 1; seed <= runs(1500); seed++)
        one_switch(seed);
}

static void test_cancel_leaves_the_source(void **state)
{
    for (uint32_t seed = 1; seed <= runs(500); seed++) {
        struct world w;
        int64_t size = random_size(&w, seed);
        world_make(&w, seed, size);
        vary(&w);
        w.options.mode = (enum mirror_mode)pick(&w, 4);
        world_start(&w);
        if (w.options.mode == MIRROR_FOLLOW && pick(&w, 2) == 0)
            mirror_switch(w.layer, world_commit, &w);
        for (unsigned n = pick(&w, 600); n > 0; n--) {
            world_step(&w, 40);
            if (world_state(&w) == MIRROR_SWITCHED)
                break;
        }
        bool switched = world_state(&w) == MIRROR_SWITCHED;
        world_finish(&w, switched);
        world_free(&w);
    }
}

/* --- a target that fails ----------------------------------------------------------------------------------- */

struct failing { struct world *w; unsigned left; int error; bool failed; };
static int fail_at(void *ctx, struct memory_block *m, struct block_request *r)
{
    struct failing *f = ctx;

    if (f->failed || --f->left > 0)
        return 0;
    f->failed = true;
    return f->error;
}

/* At every k-th operation of the target, until one life sees no failure. */
static void test_failure_at_every_operation(void **state)
{
    bool clean = false;

    for (unsigned k = 1; !clean; k++) {
        struct world w;
        assert_true(k < 3000);
        world_make(&w, 77, 700 * KIB);
        world_later(&w);
        struct failing f = { .w = &w, .left = k, .error = k % 2 ? -EIO : -ENOSPC };
        w.target->hook = fail_at;
        w.target->ctx = &f;
        world_start(&w);
        mirror_switch(w.layer, world_commit, &w);
        world_run(&w, 1500, 30);
        enum mirror_state s = world_run(&w, 100000, 0);
        clean = !f.failed;
        if (f.failed && s == MIRROR_FAILED) {
            struct mirror_status now;
            world_status(&w, &now);
            assert_int_equal(w.n_commits, 0);
            assert_non_null(strstr(now.error, k % 2 ? "Input/output error" : "No space left"));
            assert_true(now.lost_us >= 0 && now.lost_us <= 100000);
            assert_true(now.fraction < 1);
        } else { /* it failed after the switch at the earliest */
            assert_int_equal(s, MIRROR_SWITCHED);
        }
        world_finish(&w, s == MIRROR_SWITCHED);
        world_free(&w);
    }
}

static void test_source_read_error_fails_the_mirror_only(void **state)
{
    struct world w;

    world_make(&w, 78, 2 * MIB);
    assert_true(fault_arm("mirror.read=error@2"));
    world_start(&w);
    assert_int_equal(world_run(&w, 5000, 20), MIRROR_FAILED);
    world_finish(&w, false);
    world_free(&w);
}

static void test_silence_is_loss(void **state)
{
    struct world w;
    struct mirror_status s;

    world_make(&w, 79, 2 * MIB);
    w.options.silence_us = 500000;
    w.target->later = true; /* never answers */
    world_start(&w);
    int64_t began = w.clock.now_us;
    while (world_state(&w) == MIRROR_COPYING) {
        guest_act(&w);
        w.clock.now_us += 1000;
        loop_turn(w.loop, 0);
    }
    world_status(&w, &s);
    assert_int_equal(s.state, MIRROR_FAILED);
    assert_true(w.clock.now_us - began >= 500000);
    assert_true(w.clock.now_us - began <= 600000);
    assert_non_null(strstr(s.error, "silent"));
    assert_true(s.lost_us >= 500000 && s.lost_us <= 600000);
    memory_block_step_all(w.target);
    world_finish(&w, false);
    world_free(&w);
}

static void test_silence_in_the_pause_lets_the_guest_go(void **state)
{
    struct world w;

    world_make(&w, 80, 2 * MIB);
    w.options.silence_us = 500000;
    w.options.budget_us = 20000;
    world_start(&w);
    while (world_state(&w) != MIRROR_FOLLOWING)
        world_step(&w, 5);
    w.target->later = true;
    mirror_switch(w.layer, world_commit, &w);
    loop_turn(w.loop, 0);
    memory_block_step_all(w.target); /* what is flushed ahead; from now on it is silent */
    int64_t longest = 0;
    for (unsigned i = 0; i < 3000 && world_state(&w) != MIRROR_FAILED; i++) {
        int64_t at = w.clock.now_us;
        guest_act(&w);
        while (w.n_guests > 0 && world_state(&w) != MIRROR_FAILED) {
            w.clock.now_us += 500;
            loop_turn(w.loop, 0);
        }
        longest = w.clock.now_us - at > longest ? w.clock.now_us - at : longest;
        w.clock.now_us += 500;
        loop_turn(w.loop, 0);
    }
    assert_int_equal(world_state(&w), MIRROR_FAILED);
    assert_int_equal(w.n_commits, 0);
    assert_true(longest <= 25000);
    memory_block_step_all(w.target);
    world_finish(&w, false);
    world_free(&w);
}

/* --- a connection that breaks -------------------------------------------------------------------------------- */

static void test_connection_breaks_and_comes_back(void **state)
{
    for (uint32_t seed = 1; seed <= runs(400); seed++) {
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
    assert_true(s.sent <= 32 * MIB + 8 * MIB); /* eight requests of 1 MiB may have been in flight */
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

/* --- point, merge ---------------------------------------------------------------------------------------------- */

static void test_point_is_the_moment_of_the_start(void **state)
{
    for (uint32_t seed = 1; seed <= runs(600); seed++) {
        struct world w;
        int64_t size = random_size(&w, seed);
        world_make(&w, seed, size);
        vary(&w);
        w.options.bandwidth = 0;
        w.options.mode = MIRROR_POINT;
        world_start(&w);
        world_run(&w, 1000, 60);
        assert_int_equal(world_run(&w, 100000, 5), MIRROR_DONE);
        assert_same(w.target->bytes, w.moment, w.size, "the target and the moment");
        for (unsigned i = 0; i < 50; i++)
            world_step(&w, 50);
        world_quiet(&w);
        assert_same(w.target->bytes, w.moment, w.size, "the target and the moment, later");
        world_finish(&w, false);
        world_free(&w);
    }
}

static void test_point_that_fails_lets_the_guest_go(void **state)
{
    for (unsigned k = 1; k < 60; k++) {
        struct world w;
        world_make(&w, 100 + k, 900 * KIB);
        w.options.mode = MIRROR_POINT;
        world_later(&w);
        struct failing f = { .w = &w, .left = k, .error = -EIO };
        w.target->hook = fail_at;
        w.target->ctx = &f;
        world_start(&w);
        for (unsigned i = 0; i < 400; i++)
            world_step(&w, 60);
        assert_int_equal(world_run(&w, 100000, 0), f.failed ? MIRROR_FAILED : MIRROR_DONE);
        world_quiet(&w);
        world_finish(&w, false);
        world_free(&w);
    }
}

/* The parent holds the old bytes, the leaf its own: what is not its own is not touched. */
static void test_merge_copies_only_what_is_its_own(void **state)
{
    for (uint32_t seed = 1; seed <= runs(300); seed++) {
        struct world w;
        int64_t size = random_size(&w, seed), own = 0;
        world_make(&w, seed, size);
        for (int64_t u = 0; u * 4096 < size; u++) {
            if (w.source->held[u] == 1 && pick(&w, 2) == 0)
                w.source->held[u] = 2;
            int64_t n = (u + 1) * 4096 < size ? 4096 : size - u * 4096;
            if (w.source->held[u] == 2)
                memory_block_fill(w.target, u * 4096, n, w.source->bytes[u * 4096]);
            own += w.source->held[u] == 1 ? n : 0;
        }
        vary(&w);
        w.options.bandwidth = 0;
        w.options.mode = MIRROR_MERGE;
        world_start(&w);
        struct mirror_status s;
        while (world_status(&w, &s), s.state == MIRROR_COPYING)
            world_step(&w, 0);
        assert_int_equal(s.state, MIRROR_FOLLOWING);
        assert_true(w.target->n_bytes[BLOCK_WRITE] + w.target->n_bytes[BLOCK_ZERO] <= own);
        world_run(&w, 300, 30);
        mirror_switch(w.layer, world_commit, &w);
        drive_to_switch(&w);
        world_finish(&w, true);
        world_free(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_is_done_and_equal),
        cmocka_unit_test(test_copy_leaves_holes_alone),
        cmocka_unit_test(test_without_proof_nothing_is_read_back),
        cmocka_unit_test(test_cannot_start),
        cmocka_unit_test(test_resize_is_refused_meanwhile),
        cmocka_unit_test(test_switch_equals_what_was_acknowledged),
        cmocka_unit_test(test_cancel_leaves_the_source),
        cmocka_unit_test(test_failure_at_every_operation),
        cmocka_unit_test(test_source_read_error_fails_the_mirror_only),
        cmocka_unit_test(test_silence_is_loss),
        cmocka_unit_test(test_silence_in_the_pause_lets_the_guest_go),
        cmocka_unit_test(test_connection_breaks_and_comes_back),
        cmocka_unit_test(test_break_resends_only_what_was_under_way),
        cmocka_unit_test(test_target_that_does_not_come_back),
        cmocka_unit_test(test_disk_lost_after_the_switch_makes_the_guest_wait),
        cmocka_unit_test(test_point_is_the_moment_of_the_start),
        cmocka_unit_test(test_point_that_fails_lets_the_guest_go),
        cmocka_unit_test(test_merge_copies_only_what_is_its_own),
    };

    if (getenv("ONLY") != NULL)
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
