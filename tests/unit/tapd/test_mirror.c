#include "tests/unit/tapd/mirror_world.h"

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
    for (uint32_t seed = 1; seed <= runs(400); seed++)
        one_switch(seed);
}

static void test_cancel_leaves_the_source(void **state)
{
    for (uint32_t seed = 1; seed <= runs(200); seed++) {
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

/* --- point, merge ---------------------------------------------------------------------------------------------- */

static void test_point_is_the_moment_of_the_start(void **state)
{
    for (uint32_t seed = 1; seed <= runs(200); seed++) {
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
    for (uint32_t seed = 1; seed <= runs(100); seed++) {
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
        cmocka_unit_test(test_point_is_the_moment_of_the_start),
        cmocka_unit_test(test_point_that_fails_lets_the_guest_go),
        cmocka_unit_test(test_merge_copies_only_what_is_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
