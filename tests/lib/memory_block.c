#include "tests/lib/memory_block.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define UNIT 4096

static void hold(struct memory_block *m, int64_t offset, int64_t length, bool written, bool keep)
{
    for (int64_t u = offset / UNIT; length > 0 && u * UNIT < offset + length; u++) {
        bool whole = u * UNIT >= offset && (u + 1) * UNIT <= offset + length;
        if (written)
            m->held[u] = 1;
        else if (whole && !keep)
            m->held[u] = m->held[u] == 2 ? 1 : 0;
    }
}

static void happen(struct memory_block *m, const struct block_request *r)
{
    uint8_t *at = m->bytes + r->offset;

    switch (r->op) {
    case BLOCK_READ: memcpy(r->buffer, at, r->length); break;
    case BLOCK_WRITE: memcpy(at, r->buffer, r->length); hold(m, r->offset, r->length, true, false); break;
    case BLOCK_ZERO:
    case BLOCK_DISCARD: memset(at, 0, r->length); hold(m, r->offset, r->length, false, (r->flags & BLOCK_NO_HOLE) != 0); break;
    case BLOCK_FLUSH: break;
    }
}

static bool by_chance(struct memory_block *m)
{
    m->seed = m->seed * 1664525u + 1013904223u;
    return (m->seed >> 24 & 1) != 0;
}

static void submit(struct block *b, struct block_request *r)
{
    struct memory_block *m = (struct memory_block *)b;
    int result = m->hook != NULL ? m->hook(m->ctx, m, r) : 0;

    m->n_ops[r->op]++;
    m->n_bytes[r->op] += r->length;
    bool now = !m->later || (m->seed != 0 && by_chance(m));
    if (now && result == 0)
        happen(m, r);
    if (!m->later) {
        block_finish(r, result);
        return;
    }
    CHECK(m->n_pending < MEMORY_PENDING_MAX);
    m->pending[m->n_pending].r = r;
    m->pending[m->n_pending].happened = now;
    m->pending[m->n_pending++].result = result;
}

void memory_block_step(struct memory_block *m, unsigned i)
{
    CHECK(i < m->n_pending);
    struct block_request *r = m->pending[i].r;
    int result = m->pending[i].result;
    bool happened = m->pending[i].happened;

    m->n_pending--;
    memmove(&m->pending[i], &m->pending[i + 1], (m->n_pending - i) * sizeof(m->pending[0]));
    if (!happened && result == 0)
        happen(m, r);
    block_finish(r, result);
}

void memory_block_step_all(struct memory_block *m)
{
    while (m->n_pending > 0)
        memory_block_step(m, 0);
}

static int extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    struct memory_block *m = (struct memory_block *)b;

    m->n_extents++;
    for (int64_t at = offset, end = offset + length; at < end;) {
        bool hole = m->held[at / UNIT] == 0 || (own_only && m->held[at / UNIT] == 2);
        int64_t stop = at;
        while (stop < end && (m->held[stop / UNIT] == 0 || (own_only && m->held[stop / UNIT] == 2)) == hole)
            stop = (stop / UNIT + 1) * UNIT < end ? (stop / UNIT + 1) * UNIT : end;
        struct block_extent e = { .offset = at, .length = stop - at, .hole = hole, .zero = hole };
        if (!fn(ctx, &e))
            return 0;
        at = stop;
    }
    return 0;
}

static int block_gone(struct block *b)
{
    struct memory_block *m = (struct memory_block *)b;

    CHECK(m->n_pending == 0);
    if (m->closed_r != NULL)
        *m->closed_r = true;
    xfree(m->bytes);
    xfree(m->held);
    xfree(m);
    return 0;
}

static const struct block_ops memory_ops = { .name = "memory", .submit = submit, .extents = extents, .close = block_gone };

struct memory_block *memory_block_new(struct loop *l, int64_t size)
{
    struct memory_block *m = xcalloc(1, sizeof(*m));

    m->block = (struct block){ .ops = &memory_ops, .loop = l, .size = size, .thin = true };
    m->bytes = xcalloc((size_t)size, 1);
    m->held = xcalloc((size_t)(size / UNIT) + 1, 1);
    return m;
}

void memory_block_fill(struct memory_block *m, int64_t offset, int64_t length, uint8_t value)
{
    memset(m->bytes + offset, value, (size_t)length);
    hold(m, offset, length, true, false);
}

static void done(struct block_request *r) { *(bool *)r->owner = true; }

int memory_block_do(struct block *b, struct memory_block *m, enum block_op op, int64_t offset, uint32_t length, void *buffer)
{
    bool ended = false;
    struct block_request r = { .op = op, .offset = offset, .length = length, .buffer = buffer, .done = done, .owner = &ended };

    block_submit(b, &r);
    while (!ended) {
        if (m != NULL)
            memory_block_step_all(m);
        if (!ended)
            loop_turn(b->loop, 0);
    }
    return r.result;
}
