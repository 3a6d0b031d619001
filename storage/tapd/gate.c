#include "storage/tapd/gate.h"

#include <errno.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

struct gate {
    struct block block;
    bool open;
    unsigned in_flight, n_held;
    struct block_request *held, **held_last;
    void (*drained)(void *ctx);
    void *ctx;
    struct loop_idle tell; /* calls drained */
};

static const struct block_ops gate_ops;

static struct gate *gate_of(const struct block *b)
{
    CHECK(b->ops == &gate_ops);
    return CONTAINER_OF(b, struct gate, block);
}

bool block_is_gate(const struct block *b) { return b->ops == &gate_ops; }

static void tell_when_drained(struct gate *g)
{
    if (!g->open && g->in_flight == 0 && g->drained != NULL)
        loop_later(g->block.loop, &g->tell);
}

static void passed(struct block_request *r)
{
    struct gate *g = r->owner;

    block_pop(r);
    g->in_flight--;
    tell_when_drained(g);
    r->done(r);
}

static void pass(struct gate *g, struct block_request *r)
{
    g->in_flight++;
    block_push(r, passed, g);
    block_submit(g->block.below, r);
}

static void gate_submit(struct block *b, struct block_request *r)
{
    struct gate *g = gate_of(b);

    if (__builtin_expect(g->open && g->held == NULL, 1)) {
        pass(g, r);
        return;
    }
    r->next = NULL;
    *g->held_last = r;
    g->held_last = &r->next;
    g->n_held++;
}

static void tell(struct loop_idle *i)
{
    struct gate *g = CONTAINER_OF(i, struct gate, tell);
    void (*drained)(void *) = g->drained;

    if (g->open || g->in_flight > 0 || drained == NULL)
        return;
    g->drained = NULL;
    drained(g->ctx);
}

void gate_close(struct block *b, void (*drained)(void *ctx), void *ctx)
{
    struct gate *g = gate_of(b);

    CHECK(g->drained == NULL);
    g->open = false;
    g->drained = drained;
    g->ctx = ctx;
    tell_when_drained(g);
}

static struct block_request *held_pop(struct gate *g)
{
    struct block_request *r = g->held;

    g->held = r->next;
    if (g->held == NULL)
        g->held_last = &g->held;
    g->n_held--;
    return r;
}

void gate_open(struct block *b)
{
    struct gate *g = gate_of(b);

    CHECK(b->below != NULL && g->drained == NULL);
    if (g->open)
        return;
    g->open = true;
    while (g->open && g->held != NULL)
        pass(g, held_pop(g));
}

void gate_refuse(struct block *b, int result)
{
    struct gate *g = gate_of(b);

    CHECK(!g->open);
    while (g->held != NULL)
        block_finish(held_pop(g), result);
}

void gate_set_below(struct block *b, struct block *below)
{
    struct gate *g = gate_of(b);

    CHECK(!g->open && g->in_flight == 0);
    b->below = below;
    if (below == NULL)
        return;
    b->size = below->size;
    b->read_only = below->read_only;
    b->thin = below->thin;
}

bool gate_is_open(const struct block *b) { return gate_of(b)->open; }
unsigned gate_in_flight(const struct block *b) { return gate_of(b)->in_flight; }
unsigned gate_held(const struct block *b) { return gate_of(b)->n_held; }

static int gate_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return gate_of(b)->open ? block_extents(b->below, offset, length, own_only, fn, ctx) : -EAGAIN;
}

static int gate_end(struct block *b)
{
    struct gate *g = gate_of(b);

    CHECK(g->in_flight == 0 && g->held == NULL);
    int rc = block_close(b->below);
    loop_not_later(b->loop, &g->tell);
    xfree(g);
    return rc;
}

static const struct block_ops gate_ops = { .name = "gate", .submit = gate_submit, .extents = gate_extents, .close = gate_end };

struct block *gate_new(struct loop *loop, int64_t size, bool read_only)
{
    struct gate *g = xcalloc(1, sizeof(*g));

    g->block = (struct block){ .ops = &gate_ops, .loop = loop, .size = size, .read_only = read_only };
    g->held_last = &g->held;
    g->tell.run = tell;
    return &g->block;
}
