/* Pre-copy: when it stops, and that a guest who writes all the time arrives whole. */
#include <math.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"
#include "tests/unit/xenops/memory_stream.h"
#include "xenops/stream/input.h"
#include "xenops/stream/precopy.h"
#include "xenops/stream/precopy_decide.h"

#define RATE 4104000.0 /* bytes/s: a page a millisecond */

/* Rounds in which the guest dirties the same again, until something else than going on is decided. */
static enum precopy_decision go_on(struct precopy_facts *f, const struct save_policy *p, unsigned most)
{
    enum precopy_decision d = PRECOPY_GO_ON;

    while (d == PRECOPY_GO_ON && most-- > 0) {
        f->rounds++;
        f->sent = f->dirty;
        d = precopy_decide(f, p);
    }
    return d;
}

static void test_decisions(void **state)
{
    static const struct {
        struct save_policy policy;
        struct precopy_facts facts;
        enum precopy_decision decision;
    } cases[] = {
        { { .live = true }, { .rounds = 1, .dirty = 0, .rate = RATE, .max_downtime_ms = 100 }, PRECOPY_FITS },
        { { .live = true }, { .rounds = 1, .dirty = 84, .rate = RATE, .max_downtime_ms = 100 }, PRECOPY_FITS },
        { { .live = true }, { .rounds = 1, .dirty = 99, .rate = RATE, .max_downtime_ms = 100 }, PRECOPY_GO_ON }, /* no margin */
        { { .live = true }, { .rounds = 1, .dirty = 84, .rate = RATE, .unread = 100000, .max_downtime_ms = 100 }, PRECOPY_GO_ON },
        { { .live = true }, { .rounds = 1, .dirty = 60, .rate = RATE, .fixed_us = 40000, .fixed_known = true, .max_downtime_ms = 100 }, PRECOPY_GO_ON },
        { { .live = true }, { .rounds = 1, .dirty = 40, .rate = RATE, .fixed_us = 40000, .fixed_known = true, .max_downtime_ms = 100 }, PRECOPY_FITS },
        { { .live = true }, { .rounds = 1, .dirty = 250, .rate = RATE }, PRECOPY_FITS }, /* 300 ms by default */
        { { .live = true }, { .rounds = 1, .dirty = 299, .rate = RATE }, PRECOPY_GO_ON },
        { { .live = true }, { .rounds = 1, .dirty = 10, .max_downtime_ms = 1 }, PRECOPY_GO_ON }, /* nothing measured */
        { { .live = true }, { .rounds = 1, .dirty = 8, .rate = RATE, .fixed_us = 500000, .max_downtime_ms = 100 }, PRECOPY_FITS }, /* assumed only */
        { { .live = true }, { .rounds = 1, .dirty = 0, .rate = RATE, .hold = true }, PRECOPY_GO_ON },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_CONTINUE }, { .now_ms = 5, .rounds = 1, .dirty = 999, .rate = RATE }, PRECOPY_GO_ON },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_ABORT }, { .now_ms = 4, .rounds = 1, .dirty = 999, .rate = RATE }, PRECOPY_GO_ON },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_ABORT }, { .now_ms = 5, .rounds = 1, .dirty = 999, .rate = RATE }, PRECOPY_TIMEOUT },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_ABORT }, { .now_ms = 5, .hold = true }, PRECOPY_TIMEOUT },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_SUSPEND }, { .now_ms = 5, .rounds = 1, .dirty = 999, .rate = RATE }, PRECOPY_STOP },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_POSTCOPY }, { .now_ms = 5, .dirty = 999, .can_postcopy = true }, PRECOPY_POSTCOPY },
        { { .live = true, .deadline_ms = 5, .on_deadline = SAVE_DEADLINE_POSTCOPY }, { .now_ms = 5, .dirty = 999 }, PRECOPY_STOP },
        { { .live = true, .postcopy = true, .postcopy_after_ms = 50 }, { .now_ms = 60, .began_ms = 20, .dirty = 999, .can_postcopy = true }, PRECOPY_GO_ON },
        { { .live = true, .postcopy = true, .postcopy_after_ms = 50 }, { .now_ms = 70, .began_ms = 20, .dirty = 999, .can_postcopy = true }, PRECOPY_POSTCOPY },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct precopy_facts f = cases[i].facts;
        enum precopy_decision d = precopy_decide(&f, &cases[i].policy);
        if (d != cases[i].decision)
            fail_msg("case %u: %s", i, precopy_decision_name(d));
    }
}

static void test_ladder(void **state)
{
    static const struct {
        struct save_policy policy;
        int64_t max_downtime_ms;
        bool can_throttle, can_postcopy;
        enum precopy_decision decision;
    } cases[] = {
        { { .live = true }, 0, true, true, PRECOPY_STOP },
        { { .live = true }, 50, true, true, PRECOPY_NO_CONVERGENCE },
        { { .live = true, .fallback_stop = true }, 50, true, true, PRECOPY_STOP },
        { { .live = true, .postcopy = true, .auto_converge = true }, 50, true, true, PRECOPY_POSTCOPY },
        { { .live = true, .postcopy = true }, 50, true, false, PRECOPY_NO_CONVERGENCE },
        { { .live = true, .auto_converge = true, .fallback_stop = true }, 50, true, false, PRECOPY_SLOW_DOWN },
        { { .live = true, .auto_converge = true }, 50, false, false, PRECOPY_NO_CONVERGENCE },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct precopy_facts f = { .dirty = 1000, .rate = RATE, .max_downtime_ms = cases[i].max_downtime_ms, .previous = 1000,
                                   .can_throttle = cases[i].can_throttle, .can_postcopy = cases[i].can_postcopy };
        enum precopy_decision d = go_on(&f, &cases[i].policy, 100);
        if (d != cases[i].decision || f.rounds > (d == PRECOPY_NO_CONVERGENCE ? 9 : 4))
            fail_msg("case %u: %s after %u rounds", i, precopy_decision_name(d), f.rounds);
        assert_true(f.will_not_converge || f.rounds == 1); /* where help is allowed it is not waited for */
    }
}

/* It goes down as far as the last round asks for, and no further than 80 percent. */
static void test_slowing_down_is_bounded(void **state)
{
    static const unsigned steps[] = { 65, 80 };
    const struct save_policy policy = { .live = true, .auto_converge = true };
    struct precopy_facts mild = { .rounds = 1, .sent = 1000, .dirty = 700, .rate = RATE, .max_downtime_ms = 50, .previous = 1000, .can_throttle = true };
    struct precopy_facts f = { .dirty = 1000, .rate = RATE, .max_downtime_ms = 50, .previous = 1000, .can_throttle = true };

    assert_int_equal(precopy_decide(&mild, &policy), PRECOPY_SLOW_DOWN);
    assert_int_equal(mild.throttle, 50);
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        assert_int_equal(go_on(&f, &policy, 10), PRECOPY_SLOW_DOWN);
        assert_int_equal(f.throttle, steps[i]);
    }
    assert_int_equal(go_on(&f, &policy, 10), PRECOPY_NO_CONVERGENCE);
}

static void test_told_within_two_rounds(void **state)
{
    const struct save_policy policy = { .live = true };
    struct precopy_facts f = { .rounds = 1, .sent = 5000, .dirty = 1000, .rate = RATE, .max_downtime_ms = 50, .previous = 5000 };

    assert_int_equal(precopy_decide(&f, &policy), PRECOPY_GO_ON);
    assert_false(f.will_not_converge);
    f.rounds = 2;
    f.sent = 1000;
    f.dirty = 950;
    (void)precopy_decide(&f, &policy);
    assert_true(f.will_not_converge);
    f = (struct precopy_facts){ .rounds = 2, .sent = 1000, .dirty = 500, .rate = RATE, .max_downtime_ms = 50, .previous = 1000 };
    (void)precopy_decide(&f, &policy);
    assert_false(f.will_not_converge);
}

/* What fits is made smaller by another round for as long as that gains something. */
static void test_shrinks(void **state)
{
    const struct save_policy policy = { .live = true };
    struct precopy_facts f = { .rounds = 2, .sent = 1000, .dirty = 100, .rate = RATE, .max_downtime_ms = 300, .previous = 200 };

    assert_int_equal(precopy_decide(&f, &policy), PRECOPY_GO_ON);
    f.rounds = 3;
    f.dirty = 95; /* of 100: no gain */
    assert_int_equal(precopy_decide(&f, &policy), PRECOPY_GO_ON);
    assert_int_equal(precopy_decide(&f, &policy), PRECOPY_FITS);
    f.dirty = 10; /* 10 ms */
    assert_int_equal(precopy_decide(&f, &policy), PRECOPY_FITS);
}

/* --- predictions against a guest that is known --- */
/* It writes at 'stores' pages/s, evenly over 'set' pages. */
static double dirtied(double set, double stores, double us) { return set * -expm1(-stores * us / 1e6 / set); }

static void test_predictions(void **state)
{
    static const struct { double set, stores, pages_s; int64_t downtime_ms; } guests[] = {
        { 50000, 4000, 20000, 100 }, { 50000, 15000, 20000, 100 }, { 5000, 15000, 20000, 50 }, { 1e6, 2000, 100000, 30 }, { 20000, 17000, 20000, 300 },
    };
    const struct save_policy policy = { .live = true };

    for (unsigned i = 0; i < ARRAY_LEN(guests); i++) {
        double rate = guests[i].pages_s * 4104, us = 200000 / guests[i].pages_s * 1e6;
        struct precopy_facts f = { .sent = 200000, .rate = rate, .fixed_us = 10000, .fixed_known = true, .max_downtime_ms = guests[i].downtime_ms, .previous = 200000 };
        struct precopy_history h = { .us = { 0 } };
        struct precopy_prediction said = { 0 };
        double total = 0;
        enum precopy_decision d = PRECOPY_GO_ON;
        while (d == PRECOPY_GO_ON) {
            f.rounds++;
            f.dirty = (uint64_t)dirtied(guests[i].set, guests[i].stores, us);
            h = (struct precopy_history){ .us = { h.us[1], us }, .dirty = { h.dirty[1], (double)f.dirty } };
            d = precopy_decide(&f, &policy);
            if (f.rounds == 2) {
                said = precopy_predict(&h, (double)f.dirty, rate, &f, &policy);
                total = 0;
            }
            us = (double)f.dirty * 4104e6 / rate;
            f.sent = f.dirty;
            total += d == PRECOPY_GO_ON ? us : 0;
        }
        double blackout = precopy_blackout_us(&f);
        assert_true(d == PRECOPY_FITS);
        if (f.rounds >= 2 && (fabs(said.blackout_us - blackout) > 0.25 * blackout || fabs(said.more_us - total - blackout) > 0.25 * (total + blackout)))
            fail_msg("guest %u: said %.0f and %.0f us, it was %.0f and %.0f after %u rounds", i, said.blackout_us, said.more_us, blackout,
                     total + blackout, f.rounds);
    }
}

static void test_fixed_costs_are_remembered(void **state)
{
    precopy_fixed_forget();
    assert_false(precopy_fixed_known());
    assert_true(precopy_fixed_us(1000) > 0);
    precopy_fixed_learn(70000, 40000);
    assert_true(precopy_fixed_known());
    assert_int_equal(precopy_fixed_us(70000), 40000);
    assert_int_equal(precopy_fixed_us(140000), 80000); /* nothing is known of twice as large */
    assert_int_equal(precopy_fixed_us(1000), 40000);
    precopy_fixed_learn(70000, 20000);
    assert_int_equal(precopy_fixed_us(70000), 35000);
    precopy_fixed_learn(70000, 10000000);
    assert_int_equal(precopy_fixed_us(70000), 105000);
    precopy_fixed_forget();
}

/* --- a guest that writes whenever the saver does --- */

#define PAGES 3000u

struct world {
    struct fakecall f;
    struct memory_stream stream;
    uint8_t *memory;
    _Atomic uint64_t dirty[PAGES / 64 + 1];
    uint64_t rng;
    unsigned stores_a_write; /* pages it dirties at every write of the saver */
    bool zeroes; /* every second store is of zeroes */
    bool suspended, tracking;
    unsigned resumed;
    const char *fail; /* "suspend", "after" */
    unsigned progress;
    double fraction;
    struct save_progress last;
};

static void store(struct world *w, unsigned page)
{
    uint64_t word = w->zeroes && (w->rng >> 33 & 1) != 0 ? 0 : w->rng;

    for (unsigned i = 0; i < LIBXC_PAGE; i += 8)
        memcpy(w->memory + page * LIBXC_PAGE + i, &word, 8);
    atomic_fetch_or_explicit(&w->dirty[page / 64], 1ull << (page % 64), memory_order_release);
}

static void run_guest(void *ctx)
{
    struct world *w = ctx;

    w->f.clock.now_us += 100;
    for (unsigned i = 0; !w->suspended && i < w->stores_a_write; i++) {
        w->rng = w->rng * 6364136223846793005ull + 1442695040888963407ull;
        store(w, (unsigned)(w->rng >> 40) % 500); /* a working set at the start; the rest was never written */
    }
}

static void track(void *ctx, bool on) { ((struct world *)ctx)->tracking = on; }
static struct error *suspend(void *ctx, struct call *c, const void **context_r, size_t *len_r)
{
    struct world *w = ctx;

    if (w->fail != NULL && strcmp(w->fail, "suspend") == 0)
        return err_internal(c->arena, "no");
    w->suspended = true;
    *context_r = "vcpus";
    *len_r = 5;
    return NULL;
}
static struct error *resume(void *ctx, struct call *c)
{
    struct world *w = ctx;

    w->suspended = false;
    w->resumed++;
    return NULL;
}
static struct error *after(void *ctx, struct call *c)
{
    const struct world *w = ctx;

    return w->fail != NULL && strcmp(w->fail, "after") == 0 ? err_internal(c->arena, "no") : NULL;
}
static void progress(void *ctx, const struct save_progress *p)
{
    struct world *w = ctx;

    assert_true(p->fraction >= w->fraction && p->fraction <= 1);
    w->fraction = p->fraction;
    w->last = *p;
    w->progress++;
}

static void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    fakecall_init(&w->f);
    memory_stream_init(&w->stream);
    w->memory = xcalloc(PAGES, LIBXC_PAGE);
    w->rng = 42;
    for (unsigned i = 0; i < 1000; i++)
        store(w, i);
    w->stream.on_write = run_guest;
    w->stream.ctx = w;
}
static void world_release(struct world *w)
{
    memory_stream_release(&w->stream);
    xfree(w->memory);
    fakecall_release(&w->f);
}

static struct error *save(struct world *w, const struct save_policy *policy, bool stale, struct save_result *r)
{
    const struct precopy_source source = { .ctx = w, .memory = w->memory, .n_pages = PAGES, .memory_fd = -1, .dirty = w->dirty,
                                           .stale_page = stale, .track = track, .suspend = suspend, .resume = resume };
    const struct save_callbacks callbacks = { .ctx = w, .progress = progress, .after_suspend = after };

    return precopy_save(&w->f.call, &source, "{}", 2, &w->stream.stream, policy, &callbacks, r);
}

/* What arrives is what the suspended guest holds. */
static bool arrived_whole(struct world *w)
{
    uint8_t *to = xcalloc(PAGES, LIBXC_PAGE);
    const struct input_target target = { .memory = to, .n_pages = PAGES, .memory_fd = -1 };
    struct input_result r;

    assert_null(input_read(&w->f.call, &w->stream.stream, &target, &r));
    bool same = memcmp(to, w->memory, PAGES * LIBXC_PAGE) == 0;
    xfree(to);
    return same;
}

static void test_writing_guest_arrives_whole(void **state)
{
    static const struct { unsigned stores; bool live; unsigned downtime_ms; } cases[] = {
        { 0, true, 1 }, { 1, true, 3 }, { 50, true, 0 }, { 1000, true, 1 }, { 50, false, 1 },
    };
    struct save_result r;
    struct world w;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        const struct save_policy policy = { .live = cases[i].live, .max_downtime_ms = cases[i].downtime_ms, .fallback_stop = true };
        world_init(&w);
        w.stores_a_write = cases[i].stores;
        assert_null(save(&w, &policy, false, &r));
        assert_true(w.suspended && !w.tracking && w.resumed == 0);
        assert_int_equal(w.fraction == 1, 1);
        assert_true(w.last.suspended);
        assert_true(arrived_whole(&w));
        assert_int_equal(r.bytes_sent, w.stream.kept.len);
        if (!cases[i].live)
            assert_int_equal(r.rounds, 1);
        if (cases[i].stores == 1000) /* hopeless: it stops all the same */
            assert_true(r.rounds > 3 && r.rounds <= 31);
        world_release(&w);
    }
}

static void test_stale_page_differs(void **state)
{
    const struct save_policy policy = { .live = true, .max_downtime_ms = 3 };
    struct save_result r;
    struct world w;

    for (unsigned stores = 0; stores <= 50; stores += 50) {
        world_init(&w);
        w.stores_a_write = stores;
        assert_null(save(&w, &policy, true, &r));
        assert_false(arrived_whole(&w));
        world_release(&w);
    }
}

static void test_failures_leave_it_running(void **state)
{
    const struct save_policy policy = { .live = true, .max_downtime_ms = 3 };
    struct save_result r;
    struct world w;

    world_init(&w);
    w.fail = "suspend";
    assert_true(error_is(save(&w, &policy, false, &r), "INTERNAL_ERROR"));
    assert_true(!w.suspended && w.resumed == 0 && !w.tracking);
    world_release(&w);
    world_init(&w);
    w.fail = "after";
    assert_true(error_is(save(&w, &policy, false, &r), "INTERNAL_ERROR"));
    assert_true(!w.suspended && w.resumed == 1 && !w.tracking);
    world_release(&w);
    for (size_t at = 1; at < 5 << 20; at += 300000) { /* the connection breaks anywhere */
        world_init(&w);
        w.stores_a_write = 20;
        w.stream.fail_at = at;
        struct error *e = save(&w, &policy, false, &r);
        assert_true(e == NULL ? w.suspended : !w.suspended);
        world_release(&w);
    }
    world_init(&w);
    cancel_raise(w.f.call.cancel);
    assert_true(error_is(save(&w, &policy, false, &r), "TASK_CANCELLED"));
    assert_true(!w.suspended && w.resumed == 0);
    world_release(&w);
}

/* --- what is asked while it goes on --- */
static struct error *save_controlled(struct world *w, struct save_policy policy, struct save_control *control, struct save_result *r)
{
    policy.control = control;
    return save(w, &policy, false, r);
}

static void test_control(void **state)
{
    struct save_result r;
    struct world w;

    for (unsigned i = 0; i < 3; i++) {
        struct save_control control = SAVE_CONTROL_INIT;
        world_init(&w);
        w.stores_a_write = 50;
        struct save_policy policy = { .live = true, .max_downtime_ms = 1, .fallback_stop = i == 2 };
        atomic_store(&control.yield, i == 0);
        atomic_store(&control.finish, i == 1);
        struct error *e = save_controlled(&w, policy, &control, &r);
        if (i == 0) {
            assert_true(error_is(e, SAVE_YIELDED));
            assert_true(!w.suspended && w.resumed == 0 && !w.tracking);
        } else {
            assert_null(e);
            assert_true(w.suspended && arrived_whole(&w));
            assert_true(i == 1 ? r.rounds == 2 : r.rounds > 2);
        }
        world_release(&w);
    }
}

static void test_declared_downtime_is_kept_or_refused(void **state)
{
    const struct save_policy policy = { .live = true, .max_downtime_ms = 1 };
    struct save_result r;
    struct world w;

    world_init(&w);
    w.stores_a_write = 1000;
    assert_true(error_is(save(&w, &policy, false, &r), SAVE_NO_CONVERGENCE));
    assert_true(!w.suspended && w.resumed == 0 && !w.tracking && r.will_not_converge);
    world_release(&w);
}

static void test_deadline(void **state)
{
    struct save_result r;
    struct world w;

    for (enum save_deadline d = SAVE_DEADLINE_CONTINUE; d <= SAVE_DEADLINE_SUSPEND; d++) {
        world_init(&w);
        w.stores_a_write = 50;
        const struct save_policy policy = { .live = true, .deadline_ms = clock_ms(w.f.call.clock) + 1, .on_deadline = d };
        struct error *e = save(&w, &policy, false, &r);
        assert_true(d == SAVE_DEADLINE_ABORT ? error_is(e, SAVE_TIMEOUT) : e == NULL);
        assert_true(w.suspended == (d != SAVE_DEADLINE_ABORT));
        if (e == NULL)
            assert_true(arrived_whole(&w));
        world_release(&w);
    }
}

static void test_zero_pages_travel_as_a_word(void **state)
{
    const struct save_policy policy = { .live = false };
    struct save_result r;
    struct world w;

    world_init(&w);
    memset(w.memory + 10 * LIBXC_PAGE, 0, LIBXC_PAGE);
    assert_null(save(&w, &policy, false, &r));
    assert_int_equal(r.pages_sent, 999);
    assert_int_equal(r.zero_pages, PAGES - 999);
    assert_true(r.bytes_sent < 999 * 4104 + 2001 * 8 + 2000);
    assert_true(arrived_whole(&w));
    world_release(&w);
}

/* Zeroed after it was sent: then it must travel whole. */
static void test_rezeroed_pages_are_sent(void **state)
{
    const struct save_policy policy = { .live = true, .max_downtime_ms = 1, .fallback_stop = true };
    struct save_result r;
    struct world w;

    world_init(&w);
    w.stores_a_write = 50;
    w.zeroes = true;
    assert_null(save(&w, &policy, false, &r));
    assert_true(r.rounds > 2);
    assert_true(arrived_whole(&w));
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions), cmocka_unit_test(test_ladder), cmocka_unit_test(test_slowing_down_is_bounded),
        cmocka_unit_test(test_told_within_two_rounds),
        cmocka_unit_test(test_shrinks), cmocka_unit_test(test_predictions), cmocka_unit_test(test_fixed_costs_are_remembered),
        cmocka_unit_test(test_control), cmocka_unit_test(test_declared_downtime_is_kept_or_refused), cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_writing_guest_arrives_whole),
        cmocka_unit_test(test_stale_page_differs), cmocka_unit_test(test_failures_leave_it_running),
        cmocka_unit_test(test_zero_pages_travel_as_a_word), cmocka_unit_test(test_rezeroed_pages_are_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
