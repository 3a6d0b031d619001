/* tapd's NBD client when its server goes, comes back or falls silent. */
#include "tests/unit/tapd/nbd_load.h"

#include "rpc/base/fd.h"

static void test_lost_and_again(void **state)
{
    struct world w;
    struct block_request r[20];
    bool done[20] = { 0 };
    uint8_t *a = xcalloc(1, MIB);

    world_make(&w);
    SERVER(&w, "--filter=delay", "memory", "8M", "wdelay=60");
    world_open(&w, (struct nbd_options) { .connections = 2 });
    for (unsigned i = 0; i < 20; i++) {
        r[i] = (struct block_request) { .op = BLOCK_WRITE, .offset = i * 65536, .length = 65536, .buffer = a, .done = request_done, .owner = &done[i] };
        block_submit(w.block, &r[i]);
    }
    loop_turn(w.loop, 10);
    server_end(&w, SIGKILL);
    for (unsigned i = 0; i < 20; i++) {
        turn_until(&w, &done[i]);
        assert_int_equal(r[i].result, -ECONNRESET);
    }
    assert_int_equal(w.lost, 1);
    assert_int_equal(w.lost_reason, -ECONNRESET);
    assert_true(nbd_is_lost(w.block));
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, a), -ECONNRESET);
    xfree(a);
    world_end(&w);
}

struct again { bool done; int result; };

static void again_done(void *ctx, int result) { *(struct again *)ctx = (struct again) { true, result }; }

static int reconnect(struct world *w)
{
    struct again again = { 0 };
    nbd_reconnect(w->block, again_done, &again);
    assert_false(again.done);
    turn_until(w, &again.done);
    return again.result;
}

static void test_reconnect(void **state)
{
    struct world w;
    uint8_t a[4096] = { 1 };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { .connections = 2 });
    server_end(&w, SIGKILL);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, a), -ECONNRESET);
    assert_int_equal(reconnect(&w), -ENOENT);
    SERVER(&w, "memory", "4M");
    assert_int_equal(reconnect(&w), -ESTALE);
    server_end(&w, SIGKILL);
    SERVER(&w, "-r", "memory", "8M");
    assert_int_equal(reconnect(&w), -ESTALE);
    server_end(&w, SIGKILL);
    SERVER(&w, "memory", "8M");
    assert_true(nbd_is_lost(w.block));
    assert_int_equal(reconnect(&w), 0);
    check_operations(&w);
    assert_int_equal(w.lost, 1);
    world_end(&w);
}

/* Opened while nobody is there: lost from the beginning. */
static void test_later(void **state)
{
    struct world w;
    uint8_t a[4096] = { 1 };

    world_make(&w);
    world_open(&w, (struct nbd_options) { .later_size = 8 << 20 });
    assert_int_equal(w.block->size, 8 << 20);
    assert_true(nbd_is_lost(w.block));
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, a), -ENOTCONN);
    assert_int_equal(reconnect(&w), -ENOENT);
    SERVER(&w, "memory", "4M");
    assert_int_equal(reconnect(&w), -ESTALE);
    server_end(&w, SIGKILL);
    SERVER(&w, "--filter=nozero", "memory", "8M");
    assert_int_equal(reconnect(&w), 0);
    check_operations(&w);
    world_end(&w);
}

/* nbd_keep with a time: it comes back by itself, and what was asked meanwhile is done then. */
static void test_comes_back(void **state)
{
    struct world w;
    uint8_t a[4096] = { 1 }, b[4096];
    bool done = false;
    struct block_request r = { .op = BLOCK_WRITE, .length = sizeof a, .buffer = a, .done = request_done, .owner = &done };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    server_end(&w, SIGKILL);
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, sizeof b, b), -ECONNRESET);
    nbd_reconnect(w.block, again_done, NULL); /* given up */
    nbd_keep(w.block, 1000);
    for (unsigned round = 0; round < 3; round++) {
        done = false;
        block_submit(w.block, &r);
        for (unsigned i = 0; i < 20; i++)
            loop_turn(w.loop, 1);
        assert_false(done);
        assert_int_equal(block_extents(w.block, 0, 4096, false, NULL, NULL), -EAGAIN);
        SERVER(&w, "memory", "8M");
        turn_until(&w, &done);
        assert_int_equal(r.result, 0);
        assert_int_equal(run(&w, BLOCK_READ, 0, 0, sizeof b, b), 0);
        assert_memory_equal(a, b, sizeof b);
        server_end(&w, SIGKILL);
        for (int lost = w.lost; w.lost == lost;)
            loop_turn(w.loop, 1);
    }
    world_end(&w);
}

/* With 'keep' nobody notices. The disk is a file, so that it outlives its server. */
static void restart_under_it(struct world *w, unsigned round)
{
    const char *file = tempdir_file(&w->dir, "disk");
    if (round % 2 == 0)
        return;
    loop_turn(w->loop, 10);
    server_end(w, SIGKILL);
    for (int lost = w->lost; w->lost == lost;)
        loop_turn(w->loop, 10);
    SERVER(w, "--filter=delay", "file", file, "wdelay=1ms");
    assert_int_equal(reconnect(w), 0);
}

static void test_kept_over_restarts(void **state)
{
    struct world w;
    AUTO_FD fd = -1;

    world_make(&w);
    fd = open(tempdir_file(&w.dir, "disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, BLOCKS * 4096), 0);
    SERVER(&w, "--filter=delay", "file", tempdir_file(&w.dir, "disk"), "wdelay=1ms");
    world_open(&w, (struct nbd_options) { .connections = 2, .keep = true });
    storm(&w, 8, restart_under_it);
    assert_int_equal(w.lost, 4);
    world_end(&w);
}

/* The same without anybody who connects it again. */
static void restart_only(struct world *w, unsigned round)
{
    if (round % 2 == 0)
        return;
    loop_turn(w->loop, 10);
    server_end(w, SIGKILL);
    for (int lost = w->lost; w->lost == lost;)
        loop_turn(w->loop, 10);
    SERVER(w, "--filter=delay", "file", tempdir_file(&w->dir, "disk"), "wdelay=1ms");
}

static void test_connects_again_by_itself(void **state)
{
    struct world w;
    AUTO_FD fd = -1;

    world_make(&w);
    fd = open(tempdir_file(&w.dir, "disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, BLOCKS * 4096), 0);
    SERVER(&w, "--filter=delay", "file", tempdir_file(&w.dir, "disk"), "wdelay=1ms");
    world_open(&w, (struct nbd_options) { .keep = true, .retry_us = 5000 });
    storm(&w, 4, restart_only);
    assert_int_equal(w.lost, 2);
    nbd_keep(w.block, 1000); /* from now on, and while it stands */
    storm(&w, 2, restart_only);
    assert_int_equal(w.lost, 3);
    server_end(&w, SIGKILL); /* closed while it tries */
    while (!nbd_is_lost(w.block))
        loop_turn(w.loop, 10);
    loop_turn(w.loop, 2);
    world_end(&w);
}

static void test_silence(void **state)
{
    struct world w;
    uint8_t *a = xcalloc(1, MIB);

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, MIB, a), 0);
    kill(w.server, SIGSTOP);
    assert_int_equal(waitpid(w.server, NULL, WUNTRACED), w.server); /* all its threads stand */
    nbd_watch(w.block, 100000, world_lost, &w);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, MIB, a), -ETIMEDOUT);
    assert_int_equal(w.lost_reason, -ETIMEDOUT);
    xfree(a);
    world_end(&w);
}

/* Nothing in flight: nothing is expected, so no silence. */
static void idle_over(struct loop_timer *timer) { timer->at_us = 0; }

static void test_idle_is_no_silence(void **state)
{
    struct world w;
    uint8_t a[512] = { 0 };
    struct loop_timer timer = { .fired = idle_over };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, 512, a), 0);
    nbd_watch(w.block, 20000, world_lost, &w);
    loop_timer_set(w.loop, &timer, clock_us(&clock_real) + 100000);
    while (timer.at_us != 0)
        loop_turn(w.loop, -1);
    assert_int_equal(w.lost, 0);
    nbd_watch(w.block, NBD_SILENCE_US, world_lost, &w);
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, 512, a), 0);
    world_end(&w);
}

/* The owner closes the block in the callback of its last request. */
static void close_inside(struct block_request *r)
{
    struct world *w = r->owner;
    block_close(w->block);
    w->block = NULL;
}

static void test_close_inside_done(void **state)
{
    struct world w;
    uint8_t a[512] = { 0 };
    struct block_request r = { .op = BLOCK_READ, .length = 512, .buffer = a, .done = close_inside, .owner = &w };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    block_submit(w.block, &r);
    while (w.block != NULL)
        loop_turn(w.loop, 10);
    world_end(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_and_again),
        cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_later),
        cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_kept_over_restarts),
        cmocka_unit_test(test_connects_again_by_itself),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_idle_is_no_silence),
        cmocka_unit_test(test_close_inside_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
