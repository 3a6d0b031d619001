/* What is asked of tapd's NBD client: everything a block does, and many requests at once. */
#ifndef TESTS_UNIT_TAPD_NBD_LOAD_H
#define TESTS_UNIT_TAPD_NBD_LOAD_H

#include "tests/unit/tapd/nbd_world.h"

#include <errno.h>

#include "rpc/base/memory.h"

#define MIB (1 << 20)

static inline void fill(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((i >> 9) * 7 + i * 31 + seed);
}

static inline bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

/* Everything a block does, whatever the server can. */
static inline void check_operations(struct world *w)
{
    AUTO_FREE uint8_t *a = xcalloc(1, MIB), *b = xcalloc(1, MIB);

    assert_int_equal(w->block->size, 8 * MIB);
    fill(a, MIB, 1);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 512, MIB, a), 0);
    assert_int_equal(run(w, BLOCK_READ, 0, 512, MIB, b), 0);
    assert_memory_equal(a, b, MIB);
    assert_int_equal(run(w, BLOCK_ZERO, 0, 65536, 131072, NULL), 0);
    assert_int_equal(run(w, BLOCK_ZERO, BLOCK_NO_HOLE | BLOCK_FUA, 300 * 1024, 4096, NULL), 0);
    assert_int_equal(run(w, BLOCK_READ, 0, 0, MIB, b), 0);
    assert_true(all_zero(b + 65536, 131072) && all_zero(b + 300 * 1024, 4096) && all_zero(b, 512));
    assert_memory_equal(a, b + 512, 65536 - 512);
    assert_int_equal(run(w, BLOCK_WRITE, BLOCK_FUA, 7 * MIB, MIB, a), 0);
    assert_int_equal(run(w, BLOCK_DISCARD, 0, 7 * MIB, 65536, NULL), 0);
    assert_int_equal(run(w, BLOCK_FLUSH, 0, 0, 0, NULL), 0);
    assert_int_equal(run(w, BLOCK_READ, 0, 7 * MIB + 65536, MIB - 65536, b), 0);
    assert_memory_equal(a + 65536, b, MIB - 65536);
    assert_int_equal(run(w, BLOCK_READ, 0, 8 * MIB - 512, 1024, b), -EINVAL);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 8 * MIB - 512, 1024, b), -ENOSPC);
}

/* --- many at once ----------------------------------------------------------------------------------------- */

#define BLOCKS 2048u /* of 4 KiB */
#define DEPTH 400u   /* more than there are slots */

struct storm {
    struct world *w;
    uint8_t *shadow, *buffers;
    bool busy[BLOCKS];
    struct block_request r[DEPTH];
    unsigned blocks[DEPTH], seed, started, finished;
    int failed;
};

static inline unsigned next_random(struct storm *s) { return (s->seed = s->seed * 1103515245u + 12345u) >> 8; }

static inline void storm_done(struct block_request *r)
{
    struct storm *s = r->owner;
    unsigned i = (unsigned)(r - s->r), n = r->length / 4096;

    if (r->result != 0)
        s->failed = r->result;
    else if (r->op == BLOCK_READ)
        assert_memory_equal(r->buffer, s->shadow + s->blocks[i] * 4096, r->length);
    for (unsigned k = 0; k < n; k++)
        s->busy[s->blocks[i] + k] = false;
    s->finished++;
}

/* One request on blocks nobody else has. */
static inline void storm_start(struct storm *s, unsigned i)
{
    struct block_request *r = &s->r[i];
    unsigned at, n;

    for (;;) {
        bool free = true;
        n = 1 + next_random(s) % 4;
        at = next_random(s) % (BLOCKS - n);
        for (unsigned k = 0; k < n; k++)
            free = free && !s->busy[at + k];
        if (free)
            break;
    }
    for (unsigned k = 0; k < n; k++)
        s->busy[at + k] = true;
    s->blocks[i] = at;
    *r = (struct block_request) { .op = next_random(s) % 3 == 0 ? BLOCK_READ : next_random(s) % 8 == 0 ? BLOCK_ZERO : BLOCK_WRITE,
                                  .offset = at * 4096, .length = n * 4096, .buffer = s->buffers + (size_t)i * 16384, .done = storm_done, .owner = s };
    if (r->op == BLOCK_WRITE) {
        fill(r->buffer, r->length, next_random(s));
        memcpy(s->shadow + at * 4096, r->buffer, r->length);
    } else if (r->op == BLOCK_ZERO) {
        memset(s->shadow + at * 4096, 0, r->length);
    }
    s->started++;
    block_submit(s->w->block, r);
}

static inline void storm(struct world *w, unsigned rounds, void (*between)(struct world *, unsigned round))
{
    struct storm *s = xcalloc(1, sizeof *s);

    s->w = w;
    s->seed = 42;
    s->shadow = xcalloc(BLOCKS, 4096);
    s->buffers = xcalloc(DEPTH, 16384);
    assert_int_equal(w->block->size, BLOCKS * 4096);
    for (int64_t at = 0; at < w->block->size; at += MIB)
        assert_int_equal(run(w, BLOCK_ZERO, 0, at, MIB, NULL), 0);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < DEPTH; i++)
            storm_start(s, i);
        if (between != NULL)
            between(w, round);
        for (unsigned turns = 0; s->finished < s->started; turns++) {
            assert_true(turns < 100000);
            loop_turn(w->loop, 10);
        }
        assert_int_equal(s->failed, 0);
    }
    xfree(s->shadow);
    xfree(s->buffers);
    xfree(s);
}

#endif
