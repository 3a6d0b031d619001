#include <errno.h>

#include "rpc/base/attributes.h"
#include "rpc/base/fault.h"
#include "storage/tapd/block.h"
#include "tests/lib/unit.h"

/* A bottom that answers at once and remembers. */
struct bottom {
    struct block block;
    unsigned n;
    uint32_t last_length;
    int64_t at_us;
    int result;
};

static struct clock_fake clock_now;

static void bottom_submit(struct block *b, struct block_request *r)
{
    struct bottom *k = CONTAINER_OF(b, struct bottom, block);

    k->n++;
    k->last_length = r->length;
    block_finish(r, k->result);
}

static int bottom_close(struct block *b) { return 0; }

static bool one_extent(void *ctx, const struct block_extent *e)
{
    *(int64_t *)ctx += e->length;
    return true;
}

static int bottom_resized(struct block *b, int64_t size)
{
    b->size = size;
    return 0;
}

static const struct block_ops bottom_ops = { .name = "bottom", .submit = bottom_submit, .close = bottom_close, .resized = bottom_resized };

struct bench {
    struct loop *loop;
    struct bottom bottom;
    struct block *layer;
    struct block_request requests[300];
};

static unsigned n_done;
static int last_result;

static void request_done(struct block_request *r)
{
    n_done++;
    last_result = r->result;
    assert_int_equal(r->n_frames, 0);
}

static void bench_make(struct bench *b, struct block *(*layer)(struct block *))
{
    clock_fake_init(&clock_now, 0);
    clock_now.now_us = 1000000;
    *b = (struct bench){ .loop = loop_new(&clock_now.clock) };
    b->bottom.block = (struct block){ .ops = &bottom_ops, .loop = b->loop, .size = 1 << 30, .thin = true };
    b->layer = layer(&b->bottom.block);
    n_done = 0;
    last_result = 1;
}

static void bench_end(struct bench *b)
{
    block_close(b->layer);
    loop_free(b->loop);
}

static void submit(struct bench *b, unsigned i, enum block_op op, uint32_t length, unsigned flags)
{
    b->requests[i] = (struct block_request){ .op = op, .flags = flags, .length = length, .done = request_done };
    block_submit(b->layer, &b->requests[i]);
}

static void pass_time(struct bench *b, int64_t us)
{
    clock_now.now_us += us;
    loop_turn(b->loop, 0);
}

static struct block *source_faults(struct block *below) { return fault_layer(below, false); }

static void test_stats(void **state)
{
    struct bench b;
    struct block_stats s;

    bench_make(&b, stats_layer);
    submit(&b, 0, BLOCK_READ, 1024, 0);
    submit(&b, 1, BLOCK_WRITE, 512, 0);
    submit(&b, 2, BLOCK_FLUSH, 0, 0);
    submit(&b, 3, BLOCK_WRITE, 4096, BLOCK_COPIER); /* not the guest's */
    b.bottom.result = -EIO;
    submit(&b, 4, BLOCK_READ, 512, 0);
    stats_get(b.layer, &s);
    assert_int_equal(n_done, 5);
    assert_int_equal(s.reads, 2);
    assert_int_equal(s.bytes_read, 1536);
    assert_int_equal(s.writes, 1);
    assert_int_equal(s.bytes_written, 512);
    assert_int_equal(s.flushes, 1);
    assert_int_equal(s.errors, 1);
    assert_int_equal(s.latency_us[0], 1);
    bench_end(&b);
}

/* More than can be timed at once pass all the same (they never do above the NBD server's depth). */
static void hold_submit(struct block *b, struct block_request *r)
{
    struct bottom *k = CONTAINER_OF(b, struct bottom, block);

    k->n++;
}

static void test_stats_latency_and_depth(void **state)
{
    static const struct block_ops hold_ops = { .name = "hold", .submit = hold_submit, .close = bottom_close };
    struct bench b;
    struct block_stats s;

    bench_make(&b, stats_layer);
    b.bottom.block.ops = &hold_ops;
    for (unsigned i = 0; i < 300; i++)
        submit(&b, i, BLOCK_WRITE, 512, 0);
    assert_int_equal(b.bottom.n, 300);
    clock_now.now_us += 1000;
    for (unsigned i = 0; i < 300; i++)
        block_finish(&b.requests[i], 0);
    stats_get(b.layer, &s);
    assert_int_equal(n_done, 300);
    assert_int_equal(s.latency_us[9], BLOCK_GUEST_DEPTH); /* 512…1023 */
    clock_now.now_us += (int64_t)1 << 50;
    bench_end(&b);
}

static void test_layers_pass_the_rest(void **state)
{
    struct block *(*const layers[])(struct block *) = { stats_layer, throttle_layer, source_faults };

    for (size_t i = 0; i < ARRAY_LEN(layers); i++) {
        struct bench b;
        int64_t covered = 0;
        bench_make(&b, layers[i]);
        assert_int_equal(b.layer->size, 1 << 30);
        assert_true(b.layer->thin);
        assert_int_equal(block_extents(b.layer, 0, 8192, false, one_extent, &covered), 0);
        assert_int_equal(covered, 8192);
        assert_int_equal(block_resized(b.layer, (int64_t)1 << 31), 0);
        assert_int_equal(b.layer->size, (int64_t)1 << 31);
        submit(&b, 0, BLOCK_DISCARD, 512, 0);
        assert_int_equal(n_done, 1);
        bench_end(&b);
    }
}

static void test_throttle_bytes(void **state)
{
    struct bench b;

    bench_make(&b, throttle_layer);
    throttle_set(b.layer, 1000 * 1024, 0);
    for (unsigned i = 0; i < 200; i++)
        submit(&b, i, BLOCK_WRITE, 10240, 0);
    unsigned burst = b.bottom.n;
    assert_in_range(burst, 1, 11); /* a tenth of a second's worth, and one in debt */
    submit(&b, 200, BLOCK_WRITE, 10240, BLOCK_COPIER);
    assert_int_equal(b.bottom.n, burst + 1);
    for (unsigned i = 0; i < 100; i++)
        pass_time(&b, 10000);
    assert_in_range(b.bottom.n, burst + 1 + 99, burst + 1 + 101); /* one second: 100 of them */
    for (unsigned i = 0; i < 100; i++)
        pass_time(&b, 10000);
    assert_int_equal(n_done, 201);
    bench_end(&b);
}

static void test_throttle_operations_and_order(void **state)
{
    struct bench b;

    bench_make(&b, throttle_layer);
    throttle_set(b.layer, 0, 10);
    submit(&b, 0, BLOCK_WRITE, 1 << 20, 0);
    submit(&b, 1, BLOCK_READ, 512, 0);
    submit(&b, 2, BLOCK_FLUSH, 0, 0);
    assert_int_equal(n_done, 1);
    pass_time(&b, 50000);
    assert_int_equal(n_done, 1);
    pass_time(&b, 60000);
    assert_int_equal(n_done, 2);
    assert_int_equal(b.requests[2].n_frames, 0);
    throttle_set(b.layer, 0, 0); /* lifted: all go at once */
    assert_int_equal(n_done, 3);
    submit(&b, 3, BLOCK_WRITE, 512, 0);
    assert_int_equal(n_done, 4);
    bench_end(&b);
}

/* One request larger than a second's worth goes, and the next ones wait for its debt. */
static void test_throttle_large_request(void **state)
{
    struct bench b;

    bench_make(&b, throttle_layer);
    throttle_set(b.layer, 512 * 1024, 0);
    submit(&b, 0, BLOCK_WRITE, 1 << 20, 0);
    submit(&b, 1, BLOCK_WRITE, 512, 0);
    assert_int_equal(n_done, 1);
    for (unsigned i = 0; i < 18; i++)
        pass_time(&b, 100000);
    assert_int_equal(n_done, 1);
    for (unsigned i = 0; i < 3; i++)
        pass_time(&b, 100000);
    assert_int_equal(n_done, 2);
    bench_end(&b);
}

static void test_throttle_idle_time_saves_little(void **state)
{
    struct bench b;

    bench_make(&b, throttle_layer);
    throttle_set(b.layer, 0, 100);
    pass_time(&b, 3600 * (int64_t)1000000);
    for (unsigned i = 0; i < 100; i++)
        submit(&b, i, BLOCK_READ, 512, 0);
    assert_in_range(n_done, 1, 11);
    throttle_set(b.layer, 0, 0);
    assert_int_equal(n_done, 100);
    bench_end(&b);
}

static void test_faults(void **state)
{
    struct bench b;

    bench_make(&b, source_faults);
    submit(&b, 0, BLOCK_WRITE, 512, 0);
    assert_int_equal(last_result, 0);
    assert_true(fault_arm("tapd.read=error,tapd.write=enospc,tapd.flush=error@2"));
    submit(&b, 0, BLOCK_WRITE, 512, 0);
    assert_int_equal(last_result, -ENOSPC);
    submit(&b, 0, BLOCK_ZERO, 512, 0);
    assert_int_equal(last_result, -ENOSPC);
    submit(&b, 0, BLOCK_READ, 512, 0);
    assert_int_equal(last_result, -EIO);
    submit(&b, 0, BLOCK_FLUSH, 0, 0);
    assert_int_equal(last_result, 0);
    submit(&b, 0, BLOCK_FLUSH, 0, 0);
    assert_int_equal(last_result, -EIO);
    fault_disarm(NULL);
    submit(&b, 0, BLOCK_READ, 512, 0);
    assert_int_equal(last_result, 0);
    bench_end(&b);
}

static void test_delay(void **state)
{
    struct bench b;

    bench_make(&b, source_faults);
    assert_true(fault_arm("tapd.read=delay-50"));
    submit(&b, 0, BLOCK_READ, 512, 0);
    submit(&b, 1, BLOCK_WRITE, 512, 0);
    assert_int_equal(n_done, 1);
    pass_time(&b, 49000);
    assert_int_equal(n_done, 1);
    pass_time(&b, 1000);
    assert_int_equal(n_done, 2);
    fault_disarm(NULL);
    bench_end(&b);
}

static void test_short(void **state)
{
    struct bench b;

    bench_make(&b, source_faults);
    assert_true(fault_arm("tapd.write=short"));
    submit(&b, 0, BLOCK_WRITE, 4096, 0);
    assert_int_equal(last_result, -EIO);
    assert_int_equal(b.bottom.last_length, 2048);
    assert_int_equal(b.requests[0].length, 4096);
    submit(&b, 0, BLOCK_WRITE, 512, 0);
    assert_int_equal(last_result, -EIO);
    assert_int_equal(b.bottom.n, 1);
    fault_disarm(NULL);
    bench_end(&b);
}

static void test_request_pool(void **state)
{
    struct request_pool *p = request_pool_new(3, 5000), *bare = request_pool_new(1, 0);
    struct block_request *r[3];

    for (unsigned i = 0; i < 3; i++) {
        r[i] = request_take(p);
        assert_int_equal((uintptr_t)r[i]->buffer % 4096, 0);
        ((char *)r[i]->buffer)[4999] = (char)i;
        r[i]->offset = 5;
    }
    assert_null(request_take(p));
    assert_int_equal(request_pool_free_count(p), 0);
    assert_true((char *)r[1]->buffer >= (char *)r[0]->buffer + 5000 || (char *)r[0]->buffer >= (char *)r[1]->buffer + 5000);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(((char *)r[i]->buffer)[4999], i);
        request_give(p, r[i]);
    }
    struct block_request *again = request_take(p);
    assert_int_equal(again->offset, 0);
    assert_int_equal(again->n_frames, 0);
    request_give(p, again);
    struct block_request *none = request_take(bare);
    assert_null(none->buffer);
    request_give(bare, none);
    request_pool_free(p);
    request_pool_free(bare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_stats_latency_and_depth),
        cmocka_unit_test(test_layers_pass_the_rest),
        cmocka_unit_test(test_throttle_bytes),
        cmocka_unit_test(test_throttle_operations_and_order),
        cmocka_unit_test(test_throttle_large_request),
        cmocka_unit_test(test_throttle_idle_time_saves_little),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_short),
        cmocka_unit_test(test_request_pool),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
