/* What a mirror does with time: silence, rates, forecasts, the budget, the cap. */
#include "storage/tapd/mirror_pace.h"
#include "tests/unit/tapd/mirror_world.h"

/* --- silence -------------------------------------------------------------------------------------------- */

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
    for (unsigned seed = 1; seed <= 6; seed++) {
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

/* A target that is slower to answer than the budget allows for, from when it follows on: in the end it switches. */
static void test_budget_that_cannot_be_kept_grows(void **state)
{
    struct world w;

    world_make(&w, 510, 2 * MIB);
    world_start(&w);
    while (world_state(&w) != MIRROR_FOLLOWING)
        world_step(&w, 5);
    mirror_switch(w.layer, world_commit, &w);
    w.target->later = true;
    int64_t began = w.clock.now_us;
    while (world_state(&w) != MIRROR_SWITCHED) {
        guest_act(&w);
        for (unsigned i = 0; i < 25; i++) {
            w.clock.now_us += 1000;
            loop_turn(w.loop, 0);
        }
        memory_block_step_all(w.target);
        loop_turn(w.loop, 0);
        assert_true(w.clock.now_us - began < 60000000);
    }
    w.target->later = false;
    memory_block_step_all(w.target);
    world_finish(&w, true);
    world_free(&w);
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
        cmocka_unit_test(test_silence_is_loss),
        cmocka_unit_test(test_silence_in_the_pause_lets_the_guest_go),
        cmocka_unit_test(test_too_fast_a_writer_is_told),
        cmocka_unit_test(test_slow_writer_converges_as_the_model_says),
        cmocka_unit_test(test_pause_keeps_the_budget),
        cmocka_unit_test(test_budget_that_cannot_be_kept_grows),
        cmocka_unit_test(test_cap_can_be_changed_while_it_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
