/* The vhd format of tapd against a model in memory: chains, concurrent requests, reopening, killing, growing. */
#include "tests/unit/tapd/vhd_world.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/fd.h"

static void test_simple(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "a.vhd");

    ok(image_vhd.create(w->c, path, SIZE, NULL, NULL));
    open_image(w, path, false);
    assert_int_equal(w->block->size, SIZE);
    compare_all(w);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 4 * MIB - 512, 1024, 0x11), 0);
    assert_int_equal(run(w, BLOCK_WRITE, BLOCK_FUA, SIZE - 512, 512, 0x22), 0);
    assert_int_equal(run(w, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    compare_all(w);
    assert_int_equal(run(w, BLOCK_ZERO, 0, 4 * MIB, 512, 0), 0);
    assert_int_equal(run(w, BLOCK_WRITE, 0, SIZE, 512, 1), -28 /* ENOSPC */);
    compare_all(w);
    close_image(w);
    ok(image_vhd.check(w->c, path));
    open_image(w, path, true);
    compare_all(w);
    assert_int_equal(run(w, BLOCK_ZERO, 0, 0, 512, 0), -30 /* EROFS */);
    assert_int_equal(run(w, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    close_image(w);
}

static void run_chain(struct world *w, unsigned depth, bool raw_base)
{
    const char *parent = NULL, *format = NULL, *path = NULL;

    memset(w->model, 0, (size_t)SIZE);
    if (raw_base) {
        AUTO_FD fd = -1;

        parent = path_of(w, arena_printf(w->c->arena, "base%u.raw", depth));
        format = "raw";
        ok(image_raw.create(w->c, parent, 7 * MIB, NULL, NULL));
        fd = open(parent, O_RDWR | O_CLOEXEC);
        memset(w->model + MIB, 0x77, (size_t)(3 * MIB));
        assert_int_equal(fd_pwrite_all(fd, w->model, (size_t)(7 * MIB), 0), 0);
    }
    for (unsigned level = 0; level < depth; level++) {
        path = path_of(w, arena_printf(w->c->arena, "c%u-%u-%u.vhd", depth, raw_base, level));
        ok(image_vhd.create(w->c, path, SIZE, parent, format));
        for (unsigned again = 0; again < 2; again++) {
            open_image(w, path, false);
            for (unsigned i = 0; i < 6; i++)
                random_batch(w);
            compare_all(w);
            close_image(w);
            ok(image_vhd.check(w->c, path));
        }
        parent = path;
        format = "vhd";
    }
    open_image(w, path, true);
    compare_all(w);
    close_image(w);
}

static void test_chains(void **state)
{
    struct world *w = *state;

    for (unsigned depth = 1; depth <= 4; depth++) {
        run_chain(w, depth, false);
        run_chain(w, depth, true);
    }
}

/* An image of other block sizes, as other tools make them: the BAT has room for it. */
static void set_block_size(struct world *w, const char *path, uint32_t block_size)
{
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);
    static uint8_t unused[65536];
    struct vhd_file f;

    ok(vhd_file_read(w->c->arena, fd, path, true, &f));
    f.header.block_size = block_size;
    f.header.entries = (uint32_t)((f.size + block_size - 1) / block_size);
    memset(unused, 0xff, sizeof(unused));
    assert_int_equal(fd_pwrite_all(fd, unused, (f.header.entries * 4 + 511) / 512 * 512, f.header.table_offset), 0);
    ok(vhd_file_put_header(&f));
}

static void test_block_sizes(void **state)
{
    struct world *w = *state;
    static const uint32_t sizes[] = { VHD_BLOCK_MAX, VHD_BLOCK_MIN, VHD_BLOCK_SIZE, 8 << 20, VHD_BLOCK_MIN };
    const char *parent = NULL;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        const char *path = path_of(w, arena_printf(w->c->arena, "b%u.vhd", i));

        ok(image_vhd.create(w->c, path, SIZE, parent, "vhd"));
        set_block_size(w, path, sizes[i]);
        open_image(w, path, false);
        for (unsigned n = 0; n < 6; n++)
            random_batch(w);
        compare_all(w);
        close_image(w);
        ok(image_vhd.check(w->c, path));
        open_image(w, path, true);
        compare_all(w);
        close_image(w);
        parent = path;
    }
}

/* A hint: what is there becomes zeros or stays; nothing else changes, and no block is taken for it. */
static void test_discard(void **state)
{
    struct world *w = *state;
    const char *base = path_of(w, "db.vhd"), *leaf = path_of(w, "dl.vhd");
    struct image_info before, after;

    ok(image_vhd.create(w->c, base, SIZE, NULL, NULL));
    open_image(w, base, false);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 0, (uint32_t)MIB, 0x41), 0);
    assert_int_equal(run(w, BLOCK_WRITE, 0, MIB, (uint32_t)MIB, 0x42), 0);
    assert_int_equal(run(w, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    ok(image_vhd.info(w->c, base, &before));
    assert_int_equal(run(w, BLOCK_DISCARD, 0, 0, (uint32_t)MIB, 0), 0);
    assert_int_equal(run(w, BLOCK_DISCARD, 0, 4 * MIB, (uint32_t)MIB, 0), 0);
    ok(image_vhd.info(w->c, base, &after));
    assert_true(after.physical_size <= before.physical_size - MIB / 2);
    memset(w->model, 0, (size_t)MIB);
    compare_all(w);
    close_image(w);
    ok(image_vhd.create(w->c, leaf, SIZE, base, "vhd"));
    open_image(w, leaf, false);
    assert_int_equal(run(w, BLOCK_DISCARD, 0, MIB, 4096, 0), 0); /* not its own */
    compare_all(w);
    assert_int_equal(run(w, BLOCK_ZERO, 0, MIB, 4096, 0), 0);
    compare_all(w);
    close_image(w);
    open_image(w, leaf, true);
    compare_all(w);
    close_image(w);
}

static void copy_file(const char *from, const char *to)
{
    AUTO_FD in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat st;
    off_t at = 0;

    assert_true(in >= 0 && out >= 0);
    assert_int_equal(fstat(in, &st), 0);
    assert_int_equal(ftruncate(out, st.st_size), 0);
    while (at < st.st_size) {
        off64_t a = at, b = at;
        ssize_t n = copy_file_range(in, &a, out, &b, (size_t)(st.st_size - at), 0);

        assert_true(n > 0);
        at += n;
    }
}

/* tapd killed: what was acknowledged is in the file, with no flush and no close. */
static void test_killed(void **state)
{
    struct world *w = *state;
    const char *base = path_of(w, "base.vhd"), *leaf = path_of(w, "leaf.vhd"), *copy = path_of(w, "copy.vhd");
    struct block *alive;

    ok(image_vhd.create(w->c, base, SIZE, NULL, NULL));
    for (unsigned level = 0; level < 2; level++) {
        const char *path = level == 0 ? base : leaf;

        if (level == 1)
            ok(image_vhd.create(w->c, leaf, SIZE, base, "vhd"));
        open_image(w, path, false);
        for (unsigned i = 0; i < 8; i++) {
            random_batch(w);
            copy_file(path, copy);
            ok(image_vhd.check(w->c, copy));
            alive = w->block;
            open_image(w, copy, i % 2 == 0); /* for writing too: that repairs */
            compare_all(w);
            close_image(w);
            ok(image_vhd.check(w->c, copy));
            w->block = alive;
        }
        close_image(w);
    }
}

static void test_locks(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "l.vhd"), *child = path_of(w, "child.vhd");
    struct block *second = NULL;

    ok(image_vhd.create(w->c, path, SIZE, NULL, NULL));
    ok(image_vhd.create(w->c, child, SIZE, path, "vhd"));
    open_image(w, path, false);
    fails(try_open(w, path, false, true, &second), "in use");
    fails(try_open(w, path, true, true, &second), "in use");
    ok(try_open(w, child, false, true, &second)); /* whose parent it is, does not matter */
    assert_int_equal(block_close(second), 0);
    close_image(w);
    open_image(w, path, true);
    ok(try_open(w, path, true, true, &second));
    assert_int_equal(block_close(second), 0);
    close_image(w);
}

/* --- extents -------------------------------------------------------------------------------------- */
struct ranges { struct block_extent e[32]; unsigned n; };

static bool take_range(void *ctx, const struct block_extent *e)
{
    struct ranges *r = ctx;

    assert_true(r->n < 32);
    if (r->n > 0)
        assert_int_equal(e->offset, r->e[r->n - 1].offset + r->e[r->n - 1].length);
    r->e[r->n++] = *e;
    return true;
}

static void assert_range(const struct ranges *r, unsigned i, int64_t offset, int64_t length, bool hole, bool zero)
{
    assert_true(i < r->n);
    assert_int_equal(r->e[i].offset, offset);
    assert_int_equal(r->e[i].length, length);
    assert_int_equal(r->e[i].hole, hole);
    assert_int_equal(r->e[i].zero, zero);
}

static void test_extents(void **state)
{
    struct world *w = *state;
    const char *base = path_of(w, "eb.vhd"), *leaf = path_of(w, "el.vhd");
    struct ranges r = { .n = 0 };

    ok(image_vhd.create(w->c, base, 8 * MIB, NULL, NULL));
    open_image(w, base, false);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 4 * MIB, 65536, 0x31), 0);
    close_image(w);
    ok(image_vhd.create(w->c, leaf, 8 * MIB, base, "vhd"));
    open_image(w, leaf, false);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 2 * MIB + 8192, 4096, 0x32), 0);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 4 * MIB + 8192, 4096, 0x33), 0);
    assert_int_equal(run(w, BLOCK_ZERO, 0, 4 * MIB + 32768, 4096, 0), 0);
    assert_int_equal(run(w, BLOCK_ZERO, 0, 6 * MIB, 4096, 0), 0); /* nothing below: stays as it is */
    assert_int_equal(block_extents(w->block, 0, 8 * MIB, true, take_range, &r), 0);
    assert_int_equal(r.n, 7);
    assert_range(&r, 0, 0, 2 * MIB + 8192, true, false);
    assert_range(&r, 1, 2 * MIB + 8192, 4096, false, false);
    assert_range(&r, 3, 4 * MIB + 8192, 4096, false, false);
    assert_range(&r, 5, 4 * MIB + 32768, 4096, false, true);
    r.n = 0;
    assert_int_equal(block_extents(w->block, 0, 8 * MIB, false, take_range, &r), 0);
    assert_range(&r, 0, 0, 2 * MIB + 8192, true, true);
    assert_range(&r, 1, 2 * MIB + 8192, 4096, false, false);
    assert_range(&r, 2, 2 * MIB + 12288, 2 * MIB - 12288, true, true);
    assert_range(&r, 3, 4 * MIB, 32768, false, false);
    assert_range(&r, 4, 4 * MIB + 32768, 4096, true, true);
    r.n = 0;
    assert_int_equal(block_extents(w->block, 4 * MIB + 512, 1024, false, take_range, &r), 0);
    assert_int_equal(r.n, 1);
    assert_range(&r, 0, 4 * MIB + 512, 1024, false, false);
    close_image(w);
}

/* --- growing -------------------------------------------------------------------------------------- */
static void test_resized(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "r.vhd");

    ok(image_vhd.create(w->c, path, SIZE, NULL, NULL));
    open_image(w, path, false);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 0, 4096, 1), 0);
    assert_int_equal(run(w, BLOCK_FLUSH, 0, 0, 0, 0), 0);
    ok(image_vhd.resize(w->c, path, 40 * MIB));
    assert_int_equal(w->block->ops->resized(w->block, 40 * MIB), 0);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 39 * MIB, 4096, 2), 0);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 2 * MIB, 4096, 3), 0);
    compare_all(w);
    assert_int_not_equal(w->block->ops->resized(w->block, 50 * MIB), 0);
    ok(image_vhd.set_hidden(w->c, path, true));
    close_image(w);
    open_image(w, path, true);
    compare_all(w);
    close_image(w);
    struct image_info info;
    ok(image_vhd.info(w->c, path, &info));
    assert_true(info.hidden); /* closing did not undo it */
    assert_int_equal(info.virtual_size, 40 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_simple, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_block_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_extents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resized, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
