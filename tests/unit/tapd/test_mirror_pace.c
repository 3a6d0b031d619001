#include "storage/tapd/mirror_pace.h"

#include <math.h>

#include "rpc/base/attributes.h"
#include "tests/lib/unit.h"

#define MIB 1048576.0

/* --- the model against figures worked out elsewhere --------------------------------------------------- */

static const struct { double write, seconds, early; } figures[] = {
    /* 512 MiB over 200 MB/s: seconds to the end, and to 10 MB left */
    { 50e6, 3.09, 3.02 },
    { 180e6, 6.87, 6.41 },
    { 4000 * 4096.0, 2.80, 2.75 },
    { 12000 * 4096.0, 3.08, 3.01 },
};

static void test_model_figures(void **state)
{
    double left;

    for (unsigned i = 0; i < ARRAY_LEN(figures); i++) {
        assert_true(fabs(pace_model(512 * MIB, 200e6, figures[i].write, 512 * MIB, 0, &left) - figures[i].seconds) < 0.006);
        assert_true(fabs(pace_model(512 * MIB, 200e6, figures[i].write, 512 * MIB, 10e6, &left) - figures[i].early) < 0.006);
    }
    assert_true(fabs(pace_model(512 * MIB, 200e6, 0, 512 * MIB, 0, &left) - 2.68) < 0.006);
    assert_true(pace_model(512 * MIB, 200e6, 300e6, 512 * MIB, 10e6, &left) < 0);
    assert_true(fabs(left / MIB - 171) < 0.5);
    assert_true(pace_model(512 * MIB, 200e6, 300e6, 5e6, 10e6, &left) == 0); /* it fits already */
}

/* --- a link and a guest, in steps of time --------------------------------------------------------------- */

struct sim { struct mirror_pace pace; int64_t now; double size, dirty, hot, hot_dirty, link, write; };

static void sim_start(struct sim *s, double link, double write, double hot)
{
    s->now = 1000;
    s->size = s->dirty = 512 * MIB;
    s->hot = hot; /* the guest writes there only; 0: everywhere */
    s->hot_dirty = hot;
    s->link = link;
    s->write = write;
    pace_init(&s->pace, (int64_t)s->size, s->now);
    pace_load(&s->pace.send, PACE_FULL, s->now);
}

/* What the copier and the guest do in 'us': both spread evenly over what is dirty and what is written to. */
static void sim_step(struct sim *s, int64_t us)
{
    double t = (double)us * 1e-6, fresh;
    bool limited = s->link * t < s->dirty; /* by the link; else by what there is */
    double sent = limited ? s->link * t : s->dirty;

    if (s->hot > 0) {
        double of_hot = s->dirty > 0 ? sent * (s->hot_dirty / s->dirty) : 0;
        fresh = s->write * t * (1 - s->hot_dirty / s->hot);
        s->hot_dirty += fresh - of_hot;
    } else {
        fresh = s->write * t * (1 - s->dirty / s->size);
    }
    s->dirty += fresh - sent;
    s->now += us;
    pace_moved(&s->pace.send, (int64_t)sent);
    pace_wrote(&s->pace, (int64_t)(s->write * t), (int64_t)fresh);
    pace_load(&s->pace.send, limited ? PACE_FULL : PACE_PART, s->now);
    pace_tick(&s->pace, s->now, (int64_t)s->dirty);
}

static struct pace_forecast sim_forecast(const struct sim *s) { return pace_forecast(&s->pace, (int64_t)s->dirty, 0, 0); }

static void test_forecast_is_right_after_a_second(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(figures); i++) {
        struct sim s;
        sim_start(&s, 200e6, figures[i].write, 0);
        while (s.now < 1000000)
            sim_step(&s, 20000);
        double end = (double)(s.now + sim_forecast(&s).eta_us) * 1e-6;
        if (fabs(end - figures[i].seconds) > figures[i].seconds * 0.05)
            fail_msg("%.0f bytes/s: predicted %.2f s, the model says %.2f", figures[i].write, end, figures[i].seconds);
        while (s.dirty > 1e5 + s.write * 0.006)
            sim_step(&s, 5000);
        end = (double)s.now * 1e-6; /* and that is what happens */
        assert_true(fabs(end - figures[i].seconds) < figures[i].seconds * 0.05);
        assert_true(fabs((double)pace_rate(&s.pace) - 200e6) < 4e6);
        assert_true(fabs((double)pace_write_rate(&s.pace) - figures[i].write) < figures[i].write * 0.02);
    }
}

static void test_writer_faster_than_the_link_is_told(void **state)
{
    static const double writes[] = { 1.05, 1.2, 1.5, 3 };

    for (unsigned i = 0; i < ARRAY_LEN(writes); i++) {
        struct sim s;
        double left = 512 * MIB * (1 - 1 / writes[i]);
        sim_start(&s, 200e6, 200e6 * writes[i], 0);
        while (sim_forecast(&s).eta_us >= 0 && s.now < 10000000)
            sim_step(&s, 20000);
        assert_true(s.now <= 3000000);
        assert_true(fabs((double)sim_forecast(&s).left - left) < 0.05 * 512 * MIB);
        for (unsigned n = 0; n < 1000; n++) { /* and stays told, with the same figure */
            sim_step(&s, 20000);
            assert_int_equal(sim_forecast(&s).eta_us, -1);
        }
        assert_true(fabs((double)sim_forecast(&s).left - s.dirty) < 0.02 * 512 * MIB);
        s.write = 20e6; /* it calms down */
        for (unsigned n = 0; n < 100; n++)
            sim_step(&s, 20000);
        assert_true(sim_forecast(&s).eta_us >= 0);
        assert_int_equal(sim_forecast(&s).left, 0);
    }
}

static void test_writer_in_a_small_place_is_not_told(void **state)
{
    struct sim s;

    /* 300 MB/s into 8 MiB: most of it is dirty before it is copied; what stays is at most 8 MiB */
    sim_start(&s, 200e6, 300e6, 8 * MIB);
    while (s.dirty > 12 * MIB) {
        sim_step(&s, 20000);
        struct pace_forecast f = sim_forecast(&s);
        assert_true(f.eta_us >= 0 || f.left <= (int64_t)(12 * MIB));
        assert_true(s.now < 20000000);
    }
}

static void test_idle_mirror_is_not_slow(void **state)
{
    struct sim s;

    sim_start(&s, 200e6, 1e6, 0);
    while (s.now < 20000000) { /* for long it has next to nothing to send */
        sim_step(&s, 1000);
        assert_true(sim_forecast(&s).eta_us >= 0);
    }
    assert_true(fabs((double)pace_rate(&s.pace) - 200e6) < 4e6);
    assert_true(pace_pause(&s.pace, 2000000, 0) < 11000);
}

static void test_pause_of_dirty_and_unproven(void **state)
{
    struct mirror_pace p;

    pace_init(&p, (int64_t)(512 * MIB), 0);
    assert_int_equal(pace_pause(&p, 0, 0), 0);
    assert_true(pace_pause(&p, 4096, 0) == INT64_MAX);
    assert_true(pace_pause(&p, 0, 4096) == INT64_MAX);
    pace_load(&p.send, PACE_FULL, 0);
    pace_load(&p.prove, PACE_FULL, 0);
    pace_moved(&p.send, 100000000);
    pace_moved(&p.prove, 400000000);
    pace_tick(&p, 1000000, 0);
    assert_in_range(pace_pause(&p, 1000000, 4000000), 19900, 20100);
}

/* --- the cap --------------------------------------------------------------------------------------------------- */

static void test_cap_holds(void **state)
{
    static const int64_t caps[] = { 100000, 1 << 20, 20 << 20, 500 << 20 };

    for (unsigned i = 0; i < ARRAY_LEN(caps); i++) {
        struct mirror_pace p;
        int64_t now = 0, sent = 0;
        pace_init(&p, (int64_t)(512 * MIB), 0);
        assert_int_equal(pace_wait(&p, 0), 0); /* no cap */
        pace_limit(&p, caps[i], 0);
        while (now < 10000000) {
            int64_t wait = pace_wait(&p, now);
            if (wait == 0) {
                pace_spend(&p, 65536);
                sent += 65536;
            }
            now += wait;
        }
        assert_true(fabs((double)sent / 10 - (double)caps[i]) < (double)caps[i] * 0.08 + 65536);
        pace_limit(&p, 0, now);
        assert_int_equal(pace_wait(&p, now), 0);
    }
}

static void test_cap_saves_little(void **state)
{
    struct mirror_pace p;
    int64_t sent = 0;

    pace_init(&p, (int64_t)(512 * MIB), 0);
    pace_limit(&p, 10 << 20, 0);
    pace_wait(&p, 0);
    while (pace_wait(&p, 3600000000ll) == 0) { /* after an hour of nothing */
        pace_spend(&p, 4096);
        sent += 4096;
    }
    assert_true(sent <= (10 << 20) / 20 + 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_figures),
        cmocka_unit_test(test_forecast_is_right_after_a_second),
        cmocka_unit_test(test_writer_faster_than_the_link_is_told),
        cmocka_unit_test(test_writer_in_a_small_place_is_not_told),
        cmocka_unit_test(test_idle_mirror_is_not_slow),
        cmocka_unit_test(test_pause_of_dirty_and_unproven),
        cmocka_unit_test(test_cap_holds),
        cmocka_unit_test(test_cap_saves_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
