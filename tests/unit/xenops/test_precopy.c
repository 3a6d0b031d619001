/* Pre-copy: when it stops, and that a guest who writes all the time arrives whole. */
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"
#include "tests/unit/xenops/memory_stream.h"
#include "xenops/stream/input.h"
#include "xenops/stream/precopy.h"

static void test_decisions(void **state)
{
    static const struct {
        struct save_policy policy;
        struct precopy_facts facts;
        enum precopy_decision decision;
    } cases[] = {
        { { .max_downtime_ms = 100 }, { .rounds = 1, .dirty = 0 }, PRECOPY_FITS },
        { { .max_downtime_ms = 100 }, { .rounds = 1, .dirty = 98, .throughput = 1000 }, PRECOPY_FITS },
        { { .max_downtime_ms = 100 }, { .rounds = 1, .dirty = 99, .throughput = 1000 }, PRECOPY_GO_ON },
        { { .max_downtime_ms = 0 }, { .rounds = 1, .dirty = 298, .throughput = 1000 }, PRECOPY_FITS }, /* 300 ms by default */
        { { .max_downtime_ms = 0 }, { .rounds = 1, .dirty = 299, .throughput = 1000 }, PRECOPY_GO_ON },
        { { .max_downtime_ms = 1 }, { .rounds = 1, .dirty = 10, .throughput = 0 }, PRECOPY_GO_ON },
        { { .max_downtime_ms = 1 }, { .rounds = 29, .dirty = 10, .previous = 100, .throughput = 1 }, PRECOPY_GO_ON },
        { { .max_downtime_ms = 1 }, { .rounds = 30, .dirty = 10, .previous = 100, .throughput = 1 }, PRECOPY_MAX_ROUNDS },
        { { .max_downtime_ms = 1, .max_rounds = 2 }, { .rounds = 2, .dirty = 10, .previous = 100, .throughput = 1 }, PRECOPY_MAX_ROUNDS },
        { { .max_downtime_ms = 1 }, { .rounds = 5, .dirty = 96, .previous = 100, .stalled = 1, .throughput = 1 }, PRECOPY_GO_ON },
        { { .max_downtime_ms = 1 }, { .rounds = 5, .dirty = 96, .previous = 100, .stalled = 2, .throughput = 1 }, PRECOPY_NO_PROGRESS },
        { { .max_downtime_ms = 1 }, { .rounds = 5, .dirty = 90, .previous = 100, .stalled = 2, .throughput = 1 }, PRECOPY_GO_ON },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct precopy_facts f = cases[i].facts;
        if (precopy_decide(&f, &cases[i].policy) != cases[i].decision)
            fail_msg("case %u", i);
    }
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
        { 0, true, 1 }, { 1, true, 3 }, { 50, true, 3 }, { 1000, true, 1 }, { 50, false, 1 },
    };
    struct save_result r;
    struct world w;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        const struct save_policy policy = { .live = cases[i].live, .max_downtime_ms = cases[i].downtime_ms };
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

static void test_zero_pages_travel_as_a_word(void **state)
{
    const struct save_policy policy = { .live = false };
    struct save_result r;
    struct world w;

    world_init(&w);
    memset(w.memory + 10 * LIBXC_PAGE, 0, LIBXC_PAGE);
    assert_null(save(&w, &policy, false, &r));
    assert_int_equal(r.pages_sent, 999);
    assert_true(r.bytes_sent < 999 * 4104 + 2001 * 8 + 2000);
    assert_true(arrived_whole(&w));
    world_release(&w);
}

/* Zeroed after it was sent: then it must travel whole. */
static void test_rezeroed_pages_are_sent(void **state)
{
    const struct save_policy policy = { .live = true, .max_downtime_ms = 1 };
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
        cmocka_unit_test(test_decisions), cmocka_unit_test(test_writing_guest_arrives_whole),
        cmocka_unit_test(test_stale_page_differs), cmocka_unit_test(test_failures_leave_it_running),
        cmocka_unit_test(test_zero_pages_travel_as_a_word), cmocka_unit_test(test_rezeroed_pages_are_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
