#include "storage/tapd/mirror.h"

#include <stdio.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/tapd/mirror_pace.h"
#include "tests/lib/tempdir.h"
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

    for (uint32_t seed = 1; seed <= runs(400); seed++)
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

/* --- budget, divergence ------------------------------------------------------------------------------------------- */

/* A target with a link: it answers so many bytes a millisecond, in order. */
static void link_step(struct world *w, int64_t bytes)
{
    static int64_t credit;

    credit += bytes;
    while (w->target->n_pending > 0 && credit >= (int64_t)w->target->pending[0].r->length) {
        credit -= w->target->pending[0].r->length;
        memory_block_step(w->target, 0);
    }
    if (w->target->n_pending == 0 && credit > bytes)
        credit = bytes;
    w->clock.now_us += 1000;
    loop_turn(w->loop, 0);
}

static void write_somewhere(struct world *w, uint32_t length)
{
    uint8_t *bytes = w->guests[0].buffer;
    int64_t at = (int64_t)pick(w, (uint32_t)(w->size / length)) * length;

    memset(bytes, (int)(1 + pick(w, 255)), length);
    assert_int_equal(memory_block_do(w->layer, NULL, BLOCK_WRITE, at, length, bytes), 0);
    memcpy(w->model + at, bytes, length);
}

static void linked_world(struct world *w, uint32_t seed, bool proof)
{
    world_make(w, seed, 64 * MIB);
    memory_block_fill(w->source, 0, w->size, 1);
    memset(w->model, 1, (size_t)w->size);
    w->target->later = true;
    w->options.proof = proof;
    world_start(w);
}

static void test_too_fast_a_writer_is_told(void **state)
{
    struct world w;
    struct mirror_status s;
    int64_t told = 0;

    linked_world(&w, 300, false); /* 20 MB/s over the link, the guest writes 32 MB/s */
    while (w.clock.now_us < 6000000) {
        write_somewhere(&w, 32 * KIB);
        link_step(&w, 20000);
        world_status(&w, &s);
        assert_int_equal(s.state, MIRROR_COPYING);
        if (told == 0 && s.eta_us < 0)
            told = w.clock.now_us;
    }
    assert_int_equal(s.eta_us, -1);
    assert_in_range(told, 1, 3000000);
    assert_in_range(s.left, 64 * MIB / 100 * 32, 64 * MIB / 100 * 46); /* 1 - 20/32.8 = 39 % */
    assert_in_range(s.rate, 18000000, 22000000);
    assert_in_range(s.write_rate, 31000000, 34000000);
    w.target->later = false;
    memory_block_step_all(w.target);
    world_finish(&w, false);
    world_free(&w);
}

static void test_slow_writer_converges_as_the_model_says(void **state)
{
    for (unsigned k = 1; k <= 2; k++) {
        struct world w;
        struct mirror_status s;
        double left, write = 4096.0 * k * 1000;
        linked_world(&w, 300 + k, false); /* 20 MB/s over the link, the guest 4 or 8 MB/s of 4 KiB */
        double model = pace_model(64 * MIB, 20e6, write, 64 * MIB, 0, &left) * 1e6;
        do {
            for (unsigned i = 0; i < k; i++)
                write_somewhere(&w, 4096);
            link_step(&w, 20000);
            world_status(&w, &s);
            assert_true(s.eta_us >= 0);
            if (w.clock.now_us > 1000000 && w.clock.now_us < 1002000)
                assert_in_range(s.eta_us, (uint64_t)(model * 0.85) - 1000000, (uint64_t)(model * 1.15) - 1000000);
        } while (s.state == MIRROR_COPYING);
        assert_true((double)w.clock.now_us <= model * 1.05);
        w.target->later = false;
        memory_block_step_all(w.target);
        world_finish(&w, false);
        world_free(&w);
    }
}

static void test_pause_keeps_the_budget(void **state)
{
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct world w;
        struct mirror_status s;
        linked_world(&w, 400 + seed, true);
        w.options.budget_us = 0;
        mirror_set(w.layer, -1, 30000);
        mirror_switch(w.layer, world_commit, &w);
        do {
            if (pick(&w, 6) == 0)
                guest_act(&w);
            link_step(&w, 50000);
            world_status(&w, &s);
            assert_true(w.clock.now_us < 60000000);
        } while (s.state != MIRROR_SWITCHED);
        assert_in_range(s.pause_us, 0, 30000);
        w.target->later = false;
        memory_block_step_all(w.target);
        world_finish(&w, true);
        world_free(&w);
    }
}

static void test_cap_can_be_changed_while_it_runs(void **state)
{
    struct world w;
    struct mirror_status s;

    world_make(&w, 500, 64 * MIB);
    memory_block_fill(w.source, 0, w.size, 1);
    memset(w.model, 1, (size_t)w.size);
    w.options.bandwidth = 4 * MIB;
    w.options.proof = false;
    world_start(&w);
    int64_t began = w.clock.now_us;
    while (w.clock.now_us - began < 4000000) {
        w.clock.now_us += 1000;
        loop_turn(w.loop, 0);
    }
    world_status(&w, &s);
    assert_in_range(s.sent, 15 * MIB, 17 * MIB);
    assert_in_range(s.rate, 3800000, 4600000);
    assert_in_range(s.eta_us, 10500000, 13500000);
    mirror_set(w.layer, 0, -1);
    world_run(&w, 100, 0);
    world_status(&w, &s);
    assert_int_equal(s.state, MIRROR_FOLLOWING);
    assert_int_equal(s.sent, 64 * MIB);
    world_finish(&w, false);
    world_free(&w);
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
        cmocka_unit_test(test_kill_and_resume),
        cmocka_unit_test(test_resume_sends_only_the_rest),
        cmocka_unit_test(test_map_of_a_failed_mirror_is_not_resumed),
        cmocka_unit_test(test_closed_in_the_middle_leaves_its_map),
        cmocka_unit_test(test_too_fast_a_writer_is_told),
        cmocka_unit_test(test_slow_writer_converges_as_the_model_says),
        cmocka_unit_test(test_pause_keeps_the_budget),
        cmocka_unit_test(test_cap_can_be_changed_while_it_runs),
    };

    if (getenv("ONLY") != NULL)
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
