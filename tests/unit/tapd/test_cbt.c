/* The layer of changed blocks over a disk that is memory. */
#include "tests/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/image/cbt_log.h"
#include "storage/tapd/cbt.h"
#include "tests/lib/tempdir.h"

#define BLOCK ((int64_t)CBT_BLOCK)
#define BLOCKS 32

/* What is below: answers at once, and looks into the log at each write: its bit must be there. */
struct below {
    struct block block;
    const char *log;
    unsigned writes;
    int result;
    bool closed_with_state_open;
};

static unsigned bit_of(const char *path, int64_t offset)
{
    uint8_t bitmap[BLOCKS / 8] = { 0 };
    assert_int_equal(cbt_log_or(path, bitmap, sizeof bitmap), 0);
    return bitmap[offset / BLOCK / 8] >> (7 - offset / BLOCK % 8) & 1;
}

static void below_submit(struct block *b, struct block_request *r)
{
    struct below *d = CONTAINER_OF(b, struct below, block);
    if (r->op != BLOCK_READ && r->op != BLOCK_FLUSH) {
        d->writes++;
        assert_int_equal(bit_of(d->log, r->offset), 1);
        assert_int_equal(bit_of(d->log, r->offset + r->length - 1), 1);
    }
    block_finish(r, d->result);
}

static int below_close(struct block *b)
{
    struct below *d = CONTAINER_OF(b, struct below, block);
    AUTO_FD fd = open(d->log, O_RDONLY | O_CLOEXEC);
    char state = 9;
    if (fd >= 0)
        assert_int_equal(fd_pread_all(fd, &state, 1, 24), 0);
    d->closed_with_state_open = state == 0;
    return 0;
}

static int below_resized(struct block *b, int64_t size)
{
    b->size = size;
    return 0;
}

static const struct block_ops below_ops = { .name = "below", .submit = below_submit, .close = below_close, .resized = below_resized };

struct world { struct arena *arena; struct tempdir dir; struct below below; struct block *top; const char *log; };

static void world_make(struct world *w)
{
    *w = (struct world) { .arena = arena_new() };
    tempdir_make(&w->dir);
    w->log = tempdir_file(&w->dir, "log");
    assert_int_equal(cbt_log_create(w->log, BLOCKS * BLOCK, "", ""), 0);
    w->below = (struct below) { .block = { .ops = &below_ops, .size = BLOCKS * BLOCK, .thin = true }, .log = w->log };
}

static void world_open(struct world *w)
{
    assert_null(cbt_layer(w->arena, &w->below.block, w->log, &w->top));
    assert_true(block_is_cbt(w->top) && w->top->thin && w->top->size == w->below.block.size);
}

static void world_end(struct world *w)
{
    assert_int_equal(block_close(w->top), 0);
    arena_free(w->arena);
    tempdir_remove(&w->dir);
}

static void done(struct block_request *r) { (*(unsigned *)r->owner)++; }

static int run(struct world *w, enum block_op op, int64_t offset, uint32_t length)
{
    static uint8_t buffer[1 << 20];
    unsigned n = 0;
    struct block_request r = { .op = op, .offset = offset, .length = length, .buffer = buffer, .done = done, .owner = &n };
    block_submit(w->top, &r);
    assert_int_equal(n, 1);
    return r.result;
}

static bool draw(void *ctx, const struct block_extent *e)
{
    char *map = ctx;
    for (int64_t i = e->offset / BLOCK; i < (e->offset + e->length) / BLOCK; i++)
        map[i] = e->hole ? '.' : 'x';
    return true;
}

static void check_map(struct world *w, const char *want)
{
    char map[BLOCKS * 2 + 1] = { 0 };
    struct nbd_dirty_source *source = cbt_dirty(w->top);
    assert_int_equal(source->extents(source, 0, w->top->size, draw, map), 0);
    assert_string_equal(map, want);
}

static void test_marks(void **state)
{
    struct world w;
    world_make(&w);
    world_open(&w);
    check_map(&w, "................................");
    assert_int_equal(run(&w, BLOCK_READ, 5 * BLOCK, 4096), 0);
    assert_int_equal(run(&w, BLOCK_FLUSH, 0, 0), 0);
    check_map(&w, "................................");
    assert_int_equal(run(&w, BLOCK_WRITE, 2 * BLOCK - 512, 1024), 0);
    assert_int_equal(run(&w, BLOCK_ZERO, 8 * BLOCK, 512), 0);
    assert_int_equal(run(&w, BLOCK_DISCARD, 10 * BLOCK, 4 * BLOCK), 0);
    w.below.result = -EIO;
    assert_int_equal(run(&w, BLOCK_WRITE, 31 * BLOCK, BLOCK), -EIO); /* who knows what of it was written */
    check_map(&w, ".xx.....x.xxxx.................x");
    assert_int_equal(w.below.writes, 4);
    world_end(&w);
}

static void test_kept_when_closed(void **state)
{
    struct world w;
    struct cbt_log_info info;
    world_make(&w);
    world_open(&w);
    assert_int_equal(run(&w, BLOCK_WRITE, 3 * BLOCK, 512), 0);
    assert_int_equal(block_close(w.top), 0);
    assert_true(w.below.closed_with_state_open); /* consistent comes last */
    assert_int_equal(cbt_log_info(w.log, &info), 0);
    assert_true(info.believed);
    world_open(&w);
    check_map(&w, "...x............................");
    world_end(&w);
}

static void test_grows(void **state)
{
    struct world w;
    world_make(&w);
    world_open(&w);
    assert_int_equal(block_resized(w.top, (BLOCKS + 8) * BLOCK), 0);
    assert_int_equal(w.top->size, (BLOCKS + 8) * BLOCK);
    check_map(&w, "................................xxxxxxxx");
    assert_int_equal(block_close(w.top), 0);
    w.below.block.size = (BLOCKS + 16) * BLOCK; /* it grew while nobody looked */
    world_open(&w);
    check_map(&w, "................................xxxxxxxxxxxxxxxx");
    world_end(&w);
}

static void test_refused(void **state)
{
    struct world w;
    struct error *e;
    world_make(&w);
    e = cbt_layer(w.arena, &w.below.block, tempdir_file(&w.dir, "absent"), &w.top);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    assert_non_null(strstr(e->params[2], "No such file"));
    e = cbt_layer(w.arena, &w.below.block, tempdir_write(&w.dir, "junk", "junk"), &w.top);
    assert_non_null(strstr(e->params[2], "damaged log"));
    w.below.block.size = BLOCK;
    e = cbt_layer(w.arena, &w.below.block, w.log, &w.top);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    w.top = NULL;
    world_end(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_kept_when_closed),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
