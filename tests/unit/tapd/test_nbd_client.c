/* tapd's NBD client against nbdkit. Loss of it: test_nbd_client_loss.c; TLS: test_nbd_client_tls.c; hostile servers: test_nbd_client_hostile.c. */
#include "tests/unit/tapd/nbd_load.h"

static void test_operations(void **state)
{
    static const char *const servers[][6] = {
        { "memory", "8M" },
        { "--no-sr", "memory", "8M" },
        { "--filter=nozero", "memory", "8M" },
        { "--filter=fua", "memory", "8M" },
        { "--filter=fua", "memory", "8M", "fuamode=force" },
        { "--filter=noextents", "--filter=multi-conn", "memory", "8M", "multi-conn-mode=disable" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(servers); i++) {
        struct world w;
        world_make(&w);
        server_start(&w, servers[i]);
        world_open(&w, (struct nbd_options) { .connections = i % 2 + 1 });
        check_operations(&w);
        assert_int_equal(w.lost, 0);
        world_end(&w);
    }
}

static void test_many_at_once(void **state)
{
    for (unsigned connections = 1; connections <= 4; connections += 3) {
        struct world w;
        world_make(&w);
        SERVER(&w, "--filter=delay", "memory", "8M", "rdelay=2ms", "wdelay=1ms");
        world_open(&w, (struct nbd_options) { .connections = connections });
        storm(&w, 5, NULL);
        world_end(&w);
    }
}

/* --- errors and what is refused ------------------------------------------------------------------------------ */

static void test_errors_keep_their_number(void **state)
{
    static const struct { const char *name; int error; } errors[] = {
        { "error=ENOSPC", -ENOSPC }, { "error=EIO", -EIO }, { "error=EPERM", -EPERM }, { "error=EINVAL", -EINVAL }, { "error=ENOMEM", -ENOMEM },
    };
    for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
        struct world w;
        uint8_t buffer[4096] = { 0 };
        world_make(&w);
        SERVER(&w, "--filter=error", "memory", "1M", errors[i].name, "error-rate=100%");
        world_open(&w, (struct nbd_options) { 0 });
        assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, buffer), errors[i].error);
        assert_int_equal(run(&w, BLOCK_READ, 0, 0, 4096, buffer), errors[i].error);
        assert_int_equal(run(&w, BLOCK_ZERO, 0, 0, 4096, NULL), errors[i].error);
        assert_int_equal(w.lost, 0);
        world_end(&w);
    }
}

static void refused(const char *const *words, const char *text)
{
    struct world w;
    struct nbd_options options = { 0 };
    struct error *e;

    world_make(&w);
    if (words != NULL)
        server_start(&w, words);
    e = world_try(&w, &options, false);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    if (strstr(e->params[2], text) == NULL)
        fail_msg("'%s' does not say '%s'", e->params[2], text);
    w.block = NULL;
    world_end(&w);
}

static void test_refused(void **state)
{
    refused((const char *const[]) { "memory", "1000", NULL }, "multiple of 512");
    refused((const char *const[]) { "-r", "memory", "1M", NULL }, "read-only");
    refused((const char *const[]) { "--filter=blocksize-policy", "memory", "1M", "blocksize-maximum=64k", "blocksize-preferred=64k", "blocksize-minimum=512", NULL }, "block sizes");
    refused((const char *const[]) { "-o", "memory", "1M", NULL }, "negotiation");
    refused(NULL, "cannot connect");
}

static void test_read_only(void **state)
{
    struct world w;
    struct nbd_options options = { 0 };
    uint8_t buffer[512] = { 0 };

    world_make(&w);
    SERVER(&w, "-r", "memory", "1M");
    assert_null(world_try(&w, &options, true));
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, 512, buffer), 0);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 512, buffer), -EROFS);
    world_end(&w);
}

/* --- block status --------------------------------------------------------------------------------------------- */

struct seen { int64_t at; char map[64]; };

static bool see(void *ctx, const struct block_extent *e)
{
    struct seen *s = ctx;
    assert_int_equal(e->offset, s->at);
    assert_true(e->length > 0 && e->hole == e->zero);
    for (int64_t i = e->offset / 65536; i < (e->offset + e->length) / 65536; i++)
        s->map[i] = e->hole ? '.' : 'x';
    s->at += e->length;
    return true;
}

static void check_map(struct world *w, int64_t from, int64_t to, const char *want)
{
    struct seen s = { .at = from };
    assert_int_equal(block_extents(w->block, from, to - from, false, see, &s), 0);
    assert_int_equal(s.at, to);
    assert_string_equal(s.map + from / 65536, want);
}

static void test_extents(void **state)
{
    struct world w;
    uint8_t *a = xcalloc(1, 65536);
    uint64_t sent, sent2, received;

    world_make(&w);
    SERVER(&w, "memory", "1M");
    world_open(&w, (struct nbd_options) { 0 });
    check_map(&w, 0, MIB, "................");
    fill(a, 65536, 3);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 3 * 65536, 65536, a), 0);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 9 * 65536, 65536, a), 0);
    check_map(&w, 0, MIB, "...x.....x......"); /* up to the first write it was known, what is behind is asked for */
    check_map(&w, 0, MIB, "...x.....x......");
    nbd_traffic(w.block, &sent, &received);
    check_map(&w, 2 * 65536, 10 * 65536, ".x.....x"); /* from what is known */
    check_map(&w, 65536, 4 * 65536, "..x");
    nbd_traffic(w.block, &sent2, &received);
    assert_int_equal(sent, sent2);
    assert_int_equal(run(&w, BLOCK_DISCARD, 0, 9 * 65536, 65536, NULL), 0);
    check_map(&w, 0, MIB, "...x............");
    xfree(a);
    world_end(&w);
}

static void test_extents_unknown(void **state)
{
    struct world w;
    world_make(&w);
    SERVER(&w, "--no-sr", "memory", "1M");
    world_open(&w, (struct nbd_options) { 0 });
    check_map(&w, 0, MIB, "xxxxxxxxxxxxxxxx");
    world_end(&w);
}

/* Owners do not hear of their requests inside block_extents, but after it. */
static void test_extents_in_between(void **state)
{
    struct world w;
    bool done = false;
    uint8_t *a = xcalloc(1, 65536);
    struct block_request r = { .op = BLOCK_WRITE, .length = 65536, .buffer = a, .done = request_done, .owner = &done };

    world_make(&w);
    SERVER(&w, "--filter=delay", "memory", "1M", "delay-extents=50ms", "-t", "4");
    world_open(&w, (struct nbd_options) { 0 });
    block_submit(w.block, &r);
    check_map(&w, MIB / 2, MIB, "........");
    assert_false(done);
    turn_until(&w, &done);
    assert_int_equal(r.result, 0);
    xfree(a);
    world_end(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_errors_keep_their_number),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_extents_unknown),
        cmocka_unit_test(test_extents_in_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
