#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/attributes.h"
#include "rpc/base/fd.h"
#include "storage/tapd/block.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define KIB 1024
#define MIB (1 << 20)

struct bench {
    struct tempdir dir;
    struct arena *arena;
    struct loop *loop;
    struct disk_io *io;
    uint8_t *buffer; /* 1 MiB, aligned */
    struct request_pool *pool;
    struct block_request *request;
    bool done;
};

static void bench_make(struct bench *b)
{
    *b = (struct bench){ 0 };
    tempdir_make(&b->dir);
    b->arena = arena_new();
    b->loop = loop_new(&clock_real);
    b->io = disk_io_new(b->loop, true);
    b->pool = request_pool_new(1, MIB);
}

static void bench_end(struct bench *b)
{
    request_pool_free(b->pool);
    disk_io_free(b->io);
    loop_free(b->loop);
    arena_free(b->arena);
    tempdir_remove(&b->dir);
}

static const char *file_of(struct bench *b, const char *name, int64_t size)
{
    const char *path = tempdir_file(&b->dir, name);
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    return path;
}

static struct error *try_open(struct bench *b, const char *path, bool read_only, bool cached, struct block **block_r)
{
    struct block_open o = { .loop = b->loop, .io = b->io, .format = "raw", .path = path, .read_only = read_only, .cached = cached };

    return raw_open(b->arena, &o, block_r);
}

static struct block *open_raw(struct bench *b, const char *path, bool read_only, bool cached)
{
    struct block *block = NULL;
    struct error *e = try_open(b, path, read_only, cached, &block);

    if (e != NULL)
        fail_msg("%s", error_text(b->arena, e));
    return block;
}

static void request_done(struct block_request *r)
{
    struct bench *b = r->owner;

    b->done = true;
}

/* 'fill' is what the buffer holds before. */
static int run(struct bench *b, struct block *block, enum block_op op, unsigned flags, int64_t offset, uint32_t length, int fill)
{
    struct block_request *r = request_take(b->pool);

    b->buffer = r->buffer;
    memset(r->buffer, fill, MIB);
    r->op = op;
    r->flags = flags;
    r->offset = offset;
    r->length = length;
    r->done = request_done;
    r->owner = b;
    b->done = false;
    block_submit(block, r);
    while (!b->done)
        loop_turn(b->loop, -1);
    int result = r->result;
    request_give(b->pool, r);
    return result;
}

static void expect(struct bench *b, struct block *block, int64_t offset, uint32_t length, int byte)
{
    assert_int_equal(run(b, block, BLOCK_READ, 0, offset, length, 0x55), 0);
    for (uint32_t i = 0; i < length; i++)
        if (b->buffer[i] != byte)
            fail_msg("byte %lld is %02x, not %02x", (long long)offset + i, b->buffer[i], byte);
    assert_int_equal(b->buffer[length < MIB ? length : MIB - 1], length < MIB ? 0x55 : byte);
}

static void check_io(bool cached)
{
    struct bench b;

    bench_make(&b);
    struct block *k = open_raw(&b, file_of(&b, "disk", 4 * MIB), false, cached);
    assert_int_equal(k->size, 4 * MIB);
    assert_true(k->thin);
    expect(&b, k, 3 * MIB, MIB, 0);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 512, MIB, 1), 0);
    assert_int_equal(run(&b, k, BLOCK_WRITE, BLOCK_FUA, 4 * MIB - 512, 512, 2), 0);
    assert_int_equal(run(&b, k, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    expect(&b, k, 0, 512, 0);
    expect(&b, k, 512, MIB, 1);
    expect(&b, k, 4 * MIB - 512, 512, 2);
    assert_int_equal(run(&b, k, BLOCK_ZERO, 0, 1024, 4096, 9), 0);
    assert_int_equal(run(&b, k, BLOCK_ZERO, BLOCK_NO_HOLE | BLOCK_FUA, 65536, 512, 9), 0);
    assert_int_equal(run(&b, k, BLOCK_DISCARD, 0, 131072, 65536, 9), 0);
    expect(&b, k, 1024, 4096, 0);
    expect(&b, k, 65536, 512, 0);
    expect(&b, k, 65536 + 512, 512, 1);
    assert_int_equal(block_close(k), 0);
    bench_end(&b);
}

static void test_uncached(void **state) { check_io(false); }
static void test_cached(void **state) { check_io(true); }

static void test_requests_that_cannot_be(void **state)
{
    struct bench b;

    bench_make(&b);
    const char *path = file_of(&b, "disk", MIB);
    struct block *k = open_raw(&b, path, false, false);
    assert_int_equal(run(&b, k, BLOCK_READ, 0, 100, 512, 0), -EINVAL);
    assert_int_equal(run(&b, k, BLOCK_READ, 0, 0, 100, 0), -EINVAL);
    assert_int_equal(run(&b, k, BLOCK_READ, 0, 0, 0, 0), -EINVAL);
    assert_int_equal(run(&b, k, BLOCK_READ, 0, -512, 512, 0), -EINVAL);
    assert_int_equal(run(&b, k, BLOCK_READ, 0, MIB, 512, 0), -EINVAL);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, MIB - 512, 1024, 0), -ENOSPC);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, INT64_MAX - 511, 512, 0), -ENOSPC);
    block_close(k);
    k = open_raw(&b, path, true, false);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 0, 512, 0), -EROFS);
    assert_int_equal(run(&b, k, BLOCK_ZERO, 0, 0, 512, 0), -EROFS);
    assert_int_equal(run(&b, k, BLOCK_DISCARD, 0, 0, 512, 0), -EROFS);
    assert_int_equal(run(&b, k, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    block_close(k);
    bench_end(&b);
}

static void test_locks(void **state)
{
    struct bench b;
    struct block *none;

    bench_make(&b);
    const char *path = file_of(&b, "disk", MIB);
    struct block *reader = open_raw(&b, path, true, false), *second = open_raw(&b, path, true, true);
    assert_non_null(try_open(&b, path, false, false, &none));
    block_close(second);
    block_close(reader);
    struct block *writer = open_raw(&b, path, false, false);
    assert_non_null(try_open(&b, path, true, false, &none));
    assert_non_null(try_open(&b, path, false, false, &none));
    struct block_open parent = { .loop = b.loop, .io = b.io, .format = "raw", .path = path, .read_only = true, .parent = true };
    struct block *of_child;
    assert_null(raw_open(b.arena, &parent, &of_child));
    block_close(of_child);
    block_close(writer);
    block_close(open_raw(&b, path, false, false));
    bench_end(&b);
}

static void test_what_cannot_be_opened(void **state)
{
    struct bench b;
    struct block *none;

    bench_make(&b);
    const char *fifo = tempdir_file(&b.dir, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const char *const bad[] = {
        tempdir_file(&b.dir, "none"), fifo, b.dir.path, "/dev/null", "", "segments:", "segments:x", "segments:@0+512", "segments:/dev/none@0+512",
        "segments:/dev/none@0+", "segments:/dev/none@+512", "segments:/dev/none@-512+512", "segments:/dev/none@0+100",
        arena_printf(b.arena, "segments:%s@0+2097152", file_of(&b, "small", MIB)),
        arena_printf(b.arena, "segments:%s@1048576+512", file_of(&b, "small", MIB)),
        arena_printf(b.arena, "segments:%s@0+9223372036854775296", file_of(&b, "small", MIB)),
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct error *e = try_open(&b, bad[i], false, false, &none);
        if (e == NULL)
            fail_msg("opened: %s", bad[i]);
        assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    }
    bench_end(&b);
}

static void test_odd_sizes(void **state)
{
    struct bench b;
    struct stat st;

    bench_make(&b);
    const char *path = file_of(&b, "odd", 1000);
    struct block *k = open_raw(&b, path, true, true);
    assert_int_equal(k->size, 1024);
    expect(&b, k, 0, 1024, 0);
    block_close(k);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1000);
    k = open_raw(&b, path, false, false);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 512, 512, 3), 0);
    expect(&b, k, 512, 512, 3);
    block_close(k);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1024);
    bench_end(&b);
}

/* Three pieces of two files, one of them backwards: requests over their borders, and nothing outside touched. */
static void test_segments(void **state)
{
    struct bench b;
    char byte;

    bench_make(&b);
    const char *one = file_of(&b, "one", 4 * MIB), *two = file_of(&b, "two@", MIB);
    const char *map = arena_printf(b.arena, "segments:%s@2097152+524288;%s@0+262144;%s@1048576+262144;", one, two, one);
    struct block *k = open_raw(&b, map, false, false);
    assert_int_equal(k->size, MIB);
    assert_int_equal(run(&b, k, BLOCK_WRITE, BLOCK_FUA, 0, MIB, 4), 0);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 524288 - 512, 262144 + 1024, 5), 0);
    assert_int_equal(run(&b, k, BLOCK_ZERO, BLOCK_FUA, 524288 - 1024, 512, 0), 0);
    assert_int_equal(run(&b, k, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    expect(&b, k, 0, 524288 - 1024, 4);
    expect(&b, k, 524288 - 1024, 512, 0);
    expect(&b, k, 524288 - 512, 262144 + 1024, 5);
    expect(&b, k, 786432 + 512, 262144 - 512, 4);
    block_close(k);
    AUTO_FD fd = open(two, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fd_pread_all(fd, &byte, 1, 262143), 0);
    assert_int_equal(byte, 5);
    assert_int_equal(fd_pread_all(fd, &byte, 1, 262144), 0);
    assert_int_equal(byte, 0);
    bench_end(&b);
}

struct map {
    char kinds[64]; /* one letter for each 64 KiB: D or H; x: not said yet */
    int64_t next;
    unsigned n, enough;
};

static bool note(void *ctx, const struct block_extent *e)
{
    struct map *m = ctx;

    assert_int_equal(e->offset, m->next);
    assert_true(e->length > 0);
    assert_int_equal(e->hole, e->zero);
    for (int64_t at = e->offset; at < e->offset + e->length; at += 64 * KIB)
        m->kinds[at / (64 * KIB)] = e->hole ? 'H' : 'D';
    m->next = e->offset + e->length;
    return ++m->n != m->enough;
}

static void test_extents(void **state)
{
    struct bench b;
    struct map m = { .kinds = "xxxxxxxxxxxxxxxx" };

    bench_make(&b);
    struct block *k = open_raw(&b, file_of(&b, "sparse", MIB), false, false);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 2 * 64 * KIB, 3 * 64 * KIB, 1), 0);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 15 * 64 * KIB, 64 * KIB, 1), 0);
    assert_int_equal(block_extents(k, 0, MIB, false, note, &m), 0);
    assert_string_equal(m.kinds, "HHDDDHHHHHHHHHHD");
    assert_int_equal(m.next, MIB);
    m = (struct map){ .kinds = "xxxxxxxxxxxxxxxx", .next = 4 * 64 * KIB, .enough = 2 };
    assert_int_equal(block_extents(k, 4 * 64 * KIB, 12 * 64 * KIB, true, note, &m), 0);
    assert_string_equal(m.kinds, "xxxxDHHHHHHHHHHx");
    assert_int_equal(run(&b, k, BLOCK_ZERO, 0, 3 * 64 * KIB, 64 * KIB, 1), 0); /* seen at once, whatever was looked up */
    m = (struct map){ .kinds = "xxxxxxxxxxxxxxxx" };
    assert_int_equal(block_extents(k, 0, MIB, false, note, &m), 0);
    assert_string_equal(m.kinds, "HHDHDHHHHHHHHHHD");
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, 0, 64 * KIB, 1), 0);
    m = (struct map){ .kinds = "xxxxxxxxxxxxxxxx" };
    assert_int_equal(block_extents(k, 0, 3 * 64 * KIB, false, note, &m), 0);
    assert_string_equal(m.kinds, "DHDxxxxxxxxxxxxx");
    assert_int_equal(block_extents(k, 0, MIB + 512, false, note, &m), -EINVAL);
    assert_int_equal(block_extents(k, MIB, 0, false, note, &m), 0);
    block_close(k);
    bench_end(&b);
}

static void test_grows(void **state)
{
    struct bench b;

    bench_make(&b);
    const char *path = file_of(&b, "disk", MIB);
    struct block *k = open_raw(&b, path, false, false);
    assert_int_equal(block_resized(k, 2 * MIB), -EINVAL); /* it has not grown */
    file_of(&b, "disk", 2 * MIB);
    assert_int_equal(block_resized(k, MIB - 512), -EINVAL);
    assert_int_equal(block_resized(k, 2 * MIB), 0);
    assert_int_equal(k->size, 2 * MIB);
    assert_int_equal(run(&b, k, BLOCK_WRITE, 0, MIB, MIB, 6), 0);
    expect(&b, k, MIB, MIB, 6);
    block_close(k);
    bench_end(&b);
}

struct burst {
    struct bench *bench;
    unsigned left;
};

static void burst_done(struct block_request *r)
{
    struct burst *burst = r->owner;

    assert_int_equal(r->result, 0);
    burst->left--;
}

/* More requests than there are slots: all are done, none twice. */
static void test_many(void **state)
{
    enum { REQUESTS = 1500 };
    struct bench b;

    bench_make(&b);
    struct request_pool *pool = request_pool_new(REQUESTS, 512);
    struct block *k = open_raw(&b, file_of(&b, "disk", REQUESTS * 512), false, false);
    for (enum block_op op = BLOCK_WRITE;; op = BLOCK_READ) {
        struct burst burst = { &b, REQUESTS };
        struct block_request *requests[REQUESTS];
        for (unsigned i = 0; i < REQUESTS; i++) {
            struct block_request *r = requests[i] = request_take(pool);
            r->op = op;
            r->offset = (int64_t)i * 512;
            r->length = 512;
            memset(r->buffer, op == BLOCK_WRITE ? (int)(i % 251) : 0xff, 512);
            r->done = burst_done;
            r->owner = &burst;
            block_submit(k, r);
        }
        assert_null(request_take(pool));
        while (burst.left > 0)
            loop_turn(b.loop, -1);
        for (unsigned i = 0; i < REQUESTS; i++) {
            uint8_t expected[512];
            memset(expected, (int)(i % 251), 512);
            assert_memory_equal(requests[i]->buffer, expected, 512);
            request_give(pool, requests[i]);
        }
        if (op == BLOCK_READ)
            break;
    }
    block_close(k);
    request_pool_free(pool);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uncached),
        cmocka_unit_test(test_cached),
        cmocka_unit_test(test_requests_that_cannot_be),
        cmocka_unit_test(test_locks),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_odd_sizes),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
