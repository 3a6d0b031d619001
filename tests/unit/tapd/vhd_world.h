/* What the tests of tapd's vhd format stand on: a model of the disk in memory, requests that keep it and compare with it. */
#ifndef TESTS_UNIT_TAPD_VHD_WORLD_H
#define TESTS_UNIT_TAPD_VHD_WORLD_H

#include "tests/lib/unit.h"

#include <string.h>

#include "rpc/base/memory.h"
#include "storage/image/image.h"
#include "storage/image/vhd_file.h"
#include "storage/tapd/block.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"

#define MIB ((int64_t)1 << 20)
#define SIZE (9 * MIB + 512)
#define DEPTH 16u

struct world {
    struct fakecall fake;
    struct tempdir dir;
    struct call *c;
    struct loop *loop;
    struct disk_io *io;
    struct request_pool *pool;
    struct block *block;
    uint8_t *model;
    uint64_t seed;
    unsigned out;
    int result;
};

static inline uint32_t next_random(struct world *w, uint32_t below)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((w->seed >> 33) % below);
}

static inline int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
    w->c = &w->fake.call;
    w->loop = loop_new(&clock_real);
    w->io = disk_io_new(w->loop, true);
    w->pool = request_pool_new(DEPTH, BLOCK_REQUEST_MAX);
    w->model = xcalloc(1, (size_t)(64 * MIB));
    w->seed = 7;
    *state = w;
    return 0;
}

static inline int teardown(void **state)
{
    struct world *w = *state;

    request_pool_free(w->pool);
    disk_io_free(w->io);
    loop_free(w->loop);
    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
    xfree(w->model);
    xfree(w);
    return 0;
}

static inline void ok(struct error *error)
{
    if (error != NULL)
        fail_msg("%s %s", error->code, error->n_params > 2 ? error->params[2] : "");
}

static inline void fails(struct error *error, const char *with)
{
    assert_non_null(error);
    assert_string_equal(error->code, "SR_BACKEND_FAILURE");
    if (strstr(error->params[2], with) == NULL)
        fail_msg("'%s' does not say '%s'", error->params[2], with);
}

static inline const char *path_of(struct world *w, const char *name) { return tempdir_file(&w->dir, name); }

static inline struct error *try_open(struct world *w, const char *path, bool read_only, bool cached, struct block **block_r)
{
    const struct block_open o = { .loop = w->loop, .io = w->io, .format = "vhd", .path = path, .read_only = read_only, .cached = cached, .dir = w->dir.path };

    return vhd_open(w->c->arena, &o, block_r);
}

static inline void open_image(struct world *w, const char *path, bool read_only)
{
    ok(try_open(w, path, read_only, next_random(w, 2) == 0, &w->block));
}

static inline void close_image(struct world *w)
{
    assert_int_equal(block_close(w->block), 0);
    w->block = NULL;
}

/* --- requests ------------------------------------------------------------------------------------- */
static inline void finished(struct block_request *r)
{
    struct world *w = r->owner;

    if (r->result != 0)
        w->result = r->result;
    w->out--;
    request_give(w->pool, r);
}

static inline void drain(struct world *w)
{
    while (w->out > 0)
        loop_turn(w->loop, -1);
}

static inline struct block_request *request(struct world *w, enum block_op op, unsigned flags, int64_t offset, uint32_t length)
{
    struct block_request *r;

    while ((r = request_take(w->pool)) == NULL)
        loop_turn(w->loop, -1);
    r->op = op;
    r->flags = flags;
    r->offset = offset;
    r->length = length;
    r->done = finished;
    r->owner = w;
    w->out++;
    return r;
}

static inline int run(struct world *w, enum block_op op, unsigned flags, int64_t offset, uint32_t length, uint8_t fill)
{
    struct block_request *r = request(w, op, flags, offset, length);

    w->result = 0;
    if (op == BLOCK_WRITE) {
        memset(r->buffer, fill, length);
        memset(w->model + offset, fill, length);
    } else if (op == BLOCK_ZERO)
        memset(w->model + offset, 0, length);
    block_submit(w->block, r);
    drain(w);
    return w->result;
}

struct check { struct world *w; bool failed; int64_t at; };

static inline void compare(struct block_request *r)
{
    struct check *k = r->owner;
    struct world *w = k->w;

    if (r->result != 0)
        w->result = r->result;
    for (uint32_t i = 0; i < r->length && !k->failed; i += 512)
        if (memcmp((uint8_t *)r->buffer + i, w->model + r->offset + i, 512) != 0) {
            k->failed = true;
            k->at = r->offset + i;
        }
    w->out--;
    request_give(w->pool, r);
}

static inline void compare_range(struct world *w, struct check *k, int64_t offset, uint32_t length)
{
    struct block_request *r = request(w, BLOCK_READ, 0, offset, length);

    r->done = compare;
    r->owner = k;
    memset(r->buffer, 0xee, length);
    block_submit(w->block, r);
}

static inline void compare_all(struct world *w)
{
    struct check k = { .w = w };

    w->result = 0;
    for (int64_t at = 0; at < w->block->size; at += MIB)
        compare_range(w, &k, at, (uint32_t)(w->block->size - at < MIB ? w->block->size - at : MIB));
    drain(w);
    assert_int_equal(w->result, 0);
    if (k.failed)
        fail_msg("differs from the model at %lld", (long long)k.at);
}

/* A batch of requests that do not touch each other: one in each of up to DEPTH lanes. */
static inline void random_batch(struct world *w)
{
    int64_t lane = w->block->size / 512 / DEPTH * 512;
    struct check k = { .w = w };

    w->result = 0;
    for (unsigned i = 0; i < DEPTH; i++) {
        uint32_t room = (uint32_t)(lane / 512), first = next_random(w, room), n = 1 + next_random(w, next_random(w, 3) == 0 ? room - first : (room - first < 16 ? room - first : 16));
        int64_t offset = i * lane + (int64_t)first * 512;
        uint32_t length = n * 512 > BLOCK_REQUEST_MAX ? BLOCK_REQUEST_MAX : n * 512;
        unsigned what = next_random(w, 10), flags = next_random(w, 8) == 0 ? BLOCK_FUA : 0;
        struct block_request *r;

        if (what < 3) {
            compare_range(w, &k, offset, length);
            continue;
        }
        r = request(w, what < 8 ? BLOCK_WRITE : BLOCK_ZERO, flags | (next_random(w, 2) == 0 ? BLOCK_NO_HOLE : 0), offset, length);
        if (what < 8) {
            for (uint32_t s = 0; s < length; s += 512)
                memset((uint8_t *)r->buffer + s, (int)(1 + next_random(w, 255)), 512);
            memcpy(w->model + offset, r->buffer, length);
        } else
            memset(w->model + offset, 0, length);
        block_submit(w->block, r);
    }
    drain(w);
    assert_int_equal(w->result, 0);
    assert_false(k.failed);
}

#endif
