#include "storage/tapd/gate.h"

#include <errno.h>

#include "rpc/base/attributes.h"
#include "rpc/base/check.h"
#include "tests/lib/unit.h"

/* A bottom that keeps what it gets until told to finish it. */
struct bottom {
    struct block block;
    struct block_request *got[16];
    unsigned n;
    bool closed;
};

static void bottom_submit(struct block *b, struct block_request *r)
{
    struct bottom *k = CONTAINER_OF(b, struct bottom, block);

    CHECK(k->n < ARRAY_LEN(k->got));
    k->got[k->n++] = r;
}

static int bottom_close(struct block *b)
{
    CONTAINER_OF(b, struct bottom, block)->closed = true;
    return 0;
}

static const struct block_ops bottom_ops = { .name = "bottom", .submit = bottom_submit, .close = bottom_close };

static void bottom_finish(struct bottom *k, int result)
{
    struct block_request *r = k->got[0];

    for (unsigned i = 1; i < k->n; i++)
        k->got[i - 1] = k->got[i];
    k->n--;
    block_finish(r, result);
}

static unsigned n_done, n_drained;
static int last_result;

static void request_done(struct block_request *r)
{
    n_done++;
    last_result = r->result;
}

static void drained(void *ctx) { n_drained++; }

struct bench {
    struct loop *loop;
    struct bottom one, two;
    struct block *gate;
    struct block_request requests[8];
};

static void bench_make(struct bench *b)
{
    *b = (struct bench){ .loop = loop_new(&clock_real) };
    b->one.block = (struct block){ .ops = &bottom_ops, .loop = b->loop, .size = 1 << 20, .thin = true };
    b->two.block = (struct block){ .ops = &bottom_ops, .loop = b->loop, .size = 2 << 20 };
    b->gate = gate_new(b->loop, 4096, false);
    for (unsigned i = 0; i < ARRAY_LEN(b->requests); i++)
        b->requests[i] = (struct block_request){ .op = BLOCK_WRITE, .offset = (int64_t)i * 512, .length = 512, .done = request_done };
    n_done = n_drained = 0;
}

static void bench_end(struct bench *b)
{
    block_close(b->gate);
    loop_free(b->loop);
}

static void test_holds_until_open(void **state)
{
    struct bench b;

    bench_make(&b);
    assert_true(block_is_gate(b.gate));
    assert_int_equal(b.gate->size, 4096);
    for (unsigned i = 0; i < 3; i++)
        block_submit(b.gate, &b.requests[i]);
    assert_int_equal(gate_held(b.gate), 3);
    gate_set_below(b.gate, &b.one.block);
    assert_int_equal(b.gate->size, 1 << 20);
    assert_true(b.gate->thin);
    gate_open(b.gate);
    assert_int_equal(b.one.n, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_ptr_equal(b.one.got[i], &b.requests[i]); /* in order */
    block_submit(b.gate, &b.requests[3]);
    assert_int_equal(gate_in_flight(b.gate), 4);
    for (unsigned i = 0; i < 4; i++)
        bottom_finish(&b.one, i == 3 ? -EIO : 0);
    assert_int_equal(n_done, 4);
    assert_int_equal(last_result, -EIO);
    assert_int_equal(gate_in_flight(b.gate), 0);
    bench_end(&b);
    assert_true(b.one.closed);
}

static void test_drains_then_tells(void **state)
{
    struct bench b;

    bench_make(&b);
    gate_set_below(b.gate, &b.one.block);
    gate_open(b.gate);
    block_submit(b.gate, &b.requests[0]);
    block_submit(b.gate, &b.requests[1]);
    gate_close(b.gate, drained, NULL);
    block_submit(b.gate, &b.requests[2]);
    assert_int_equal(b.one.n, 2); /* the third waits */
    loop_turn(b.loop, 0);
    bottom_finish(&b.one, 0);
    loop_turn(b.loop, 0);
    assert_int_equal(n_drained, 0);
    bottom_finish(&b.one, 0);
    assert_int_equal(n_drained, 0); /* not inside */
    loop_turn(b.loop, 0);
    loop_turn(b.loop, 0);
    assert_int_equal(n_drained, 1);
    gate_set_below(b.gate, &b.two.block);
    assert_int_equal(b.gate->size, 2 << 20);
    gate_open(b.gate);
    assert_int_equal(b.two.n, 1);
    bottom_finish(&b.two, 0);
    bench_end(&b);
    assert_false(b.one.closed);
}

static void test_closing_an_idle_or_closed_one_tells_too(void **state)
{
    struct bench b;

    bench_make(&b);
    gate_close(b.gate, drained, NULL);
    loop_turn(b.loop, 0);
    assert_int_equal(n_drained, 1);
    gate_set_below(b.gate, &b.one.block);
    gate_open(b.gate);
    gate_open(b.gate);
    assert_true(gate_is_open(b.gate));
    gate_close(b.gate, drained, NULL);
    loop_turn(b.loop, 0);
    assert_int_equal(n_drained, 2);
    bench_end(&b);
}

static bool no_extent(void *ctx, const struct block_extent *e) { return true; }

static void test_extents_of_a_closed_one(void **state)
{
    struct bench b;

    bench_make(&b);
    assert_int_equal(block_extents(b.gate, 0, 4096, false, no_extent, NULL), -EAGAIN);
    gate_set_below(b.gate, &b.one.block);
    gate_open(b.gate);
    assert_int_equal(block_extents(b.gate, 0, 4096, false, no_extent, NULL), 0);
    bench_end(&b);
}

static void test_refuses_at_the_end(void **state)
{
    struct bench b;

    bench_make(&b);
    block_submit(b.gate, &b.requests[0]);
    block_submit(b.gate, &b.requests[1]);
    gate_refuse(b.gate, -ESHUTDOWN);
    assert_int_equal(n_done, 2);
    assert_int_equal(last_result, -ESHUTDOWN);
    bench_end(&b);
}

/* A request that is done while the gate opens sends another one: it goes behind those that waited. */
static struct bench *chained;
static void send_another(struct block_request *r)
{
    n_done++;
    if (r == &chained->requests[0])
        block_submit(chained->gate, &chained->requests[5]);
}

static void instant_submit(struct block *b, struct block_request *r)
{
    bottom_submit(b, r);
    block_finish(r, 0);
}

static void test_order_is_kept_while_it_opens(void **state)
{
    static const struct block_ops instant_ops = { .name = "instant", .submit = instant_submit, .close = bottom_close };
    struct bench b;

    bench_make(&b);
    chained = &b;
    b.one.block.ops = &instant_ops;
    for (unsigned i = 0; i < 3; i++) {
        b.requests[i].done = send_another;
        block_submit(b.gate, &b.requests[i]);
    }
    gate_set_below(b.gate, &b.one.block);
    gate_open(b.gate);
    assert_int_equal(b.one.n, 4);
    assert_ptr_equal(b.one.got[3], &b.requests[5]);
    assert_int_equal(n_done, 4);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holds_until_open),
        cmocka_unit_test(test_drains_then_tells),
        cmocka_unit_test(test_closing_an_idle_or_closed_one_tells_too),
        cmocka_unit_test(test_extents_of_a_closed_one),
        cmocka_unit_test(test_refuses_at_the_end),
        cmocka_unit_test(test_order_is_kept_while_it_opens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
