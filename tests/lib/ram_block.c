#include "tests/lib/ram_block.h"

#include <string.h>
#include <sys/mman.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

static void mark(struct ram_block *m, int64_t offset, int64_t length, bool there)
{
    int64_t first = offset / RAM_UNIT, last = (offset + length - 1) / RAM_UNIT;

    for (int64_t i = first; i <= last; i++) {
        bool whole = i * RAM_UNIT >= offset && (i + 1) * RAM_UNIT <= offset + length;
        if (there || whole)
            m->there[i] = there;
    }
}

static int carry_out(struct ram_block *m, const struct block_request *r)
{
    char *at = m->data + r->offset;

    if (m->error != 0 && r->op == m->error_op && r->offset + r->length > m->error_from)
        return m->error;
    switch (r->op) {
    case BLOCK_READ:
        memcpy(r->buffer, at, r->length);
        break;
    case BLOCK_WRITE:
        memcpy(at, r->buffer, r->length);
        mark(m, r->offset, r->length, true);
        break;
    case BLOCK_ZERO:
        memset(at, 0, r->length);
        mark(m, r->offset, r->length, (r->flags & BLOCK_NO_HOLE) != 0);
        break;
    case BLOCK_DISCARD:
    case BLOCK_FLUSH:
        break;
    }
    return 0;
}

static void finish(struct ram_block *m, struct block_request *r)
{
    m->in_flight--;
    block_finish(r, carry_out(m, r));
}

static void answer_all(struct ram_block *m)
{
    while (m->waiting != NULL && !m->hold) {
        struct block_request *r = m->waiting;
        m->waiting = r->next;
        finish(m, r);
    }
}

static void run_idle(struct loop_idle *idle) { answer_all(CONTAINER_OF(idle, struct ram_block, idle)); }

static void ram_submit(struct block *b, struct block_request *r)
{
    struct ram_block *m = (struct ram_block *)b;

    m->n[r->op]++;
    m->last_flags = r->flags;
    m->longest = r->length > m->longest ? r->length : m->longest;
    if (++m->in_flight > m->most_in_flight)
        m->most_in_flight = m->in_flight;
    if (!m->later && !m->hold) {
        finish(m, r);
        return;
    }
    r->next = m->waiting;
    m->waiting = r;
    if (!m->hold)
        loop_later(b->loop, &m->idle);
}

static int ram_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    struct ram_block *m = (struct ram_block *)b;

    if (m->extents_errors > 0) {
        m->extents_errors--;
        return m->extents_error;
    }
    for (int64_t at = offset; at < offset + length;) {
        int64_t unit = (at / RAM_UNIT + 1) * RAM_UNIT, to = unit < offset + length ? unit : offset + length;
        bool hole = !m->there[at / RAM_UNIT];
        struct block_extent e = { .offset = at, .length = to - at, .hole = hole, .zero = hole };
        if (!fn(ctx, &e))
            break;
        at = to;
    }
    return 0;
}

void ram_block_free(struct ram_block *m)
{
    CHECK(m->in_flight == 0);
    loop_not_later(m->block.loop, &m->idle);
    munmap(m->data, (size_t)m->block.size);
    xfree(m->there);
    xfree(m);
}

static int ram_close(struct block *b)
{
    ram_block_free((struct ram_block *)b);
    return 0;
}

static const struct block_ops ram_ops = { .name = "ram", .submit = ram_submit, .extents = ram_extents, .close = ram_close };

struct ram_block *ram_block_new(struct loop *loop, int64_t size)
{
    struct ram_block *m = xcalloc(1, sizeof(*m));

    m->block = (struct block){ .ops = &ram_ops, .loop = loop, .size = size, .thin = true };
    m->data = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(m->data != MAP_FAILED);
    m->there = xcalloc((size_t)(size / RAM_UNIT) + 1, sizeof(*m->there));
    m->idle.run = run_idle;
    return m;
}

void ram_block_let_go(struct ram_block *m)
{
    m->hold = false;
    answer_all(m);
}
