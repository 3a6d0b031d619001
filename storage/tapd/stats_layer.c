/* Counts the guest's requests and how long its writes take. */
#include <errno.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/block.h"

struct stats;
struct timing {
    struct stats *stats;
    int64_t began_us;
    struct timing *next;
};

struct stats {
    struct block block;
    struct block_stats counts;
    struct timing *free;
    struct timing timings[BLOCK_GUEST_DEPTH];
};

static struct stats *stats_of(const struct block *b) { return CONTAINER_OF(b, struct stats, block); }

static void count_latency(struct block_stats *counts, int64_t us)
{
    unsigned slot = us > 1 ? (unsigned)(63 - __builtin_clzll((uint64_t)us)) : 0;

    if (slot >= ARRAY_LEN(counts->latency_us))
        slot = ARRAY_LEN(counts->latency_us) - 1;
    counts->latency_us[slot]++;
}

static void count(struct stats *s, const struct block_request *r, int64_t began_us)
{
    struct block_stats *counts = &s->counts;

    if (r->result != 0)
        counts->errors++;
    switch (r->op) {
    case BLOCK_READ:
        counts->reads++;
        counts->bytes_read += r->length;
        break;
    case BLOCK_WRITE:
        counts->bytes_written += r->length;
        count_latency(counts, clock_us(loop_clock(s->block.loop)) - began_us);
        counts->writes++;
        break;
    case BLOCK_ZERO:
    case BLOCK_DISCARD:
        counts->writes++;
        break;
    case BLOCK_FLUSH:
        counts->flushes++;
        break;
    }
}

static void counted(struct block_request *r)
{
    struct timing *t = r->owner;
    struct stats *s = t->stats;

    block_pop(r);
    count(s, r, t->began_us);
    t->next = s->free;
    s->free = t;
    r->done(r);
}

static void stats_submit(struct block *b, struct block_request *r)
{
    struct stats *s = stats_of(b);
    struct timing *t = s->free;

    if ((r->flags & BLOCK_COPIER) == 0 && t != NULL) {
        s->free = t->next;
        if (r->op == BLOCK_WRITE)
            t->began_us = clock_us(loop_clock(b->loop));
        block_push(r, counted, t);
    }
    block_submit(b->below, r);
}

static int stats_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return block_extents(b->below, offset, length, own_only, fn, ctx);
}

static int stats_close(struct block *b)
{
    int rc = block_close(b->below);

    xfree(stats_of(b));
    return rc;
}

static const struct block_ops stats_ops = { .name = "stats", .submit = stats_submit, .extents = stats_extents, .close = stats_close };

struct block *stats_layer(struct block *below)
{
    struct stats *s = xcalloc(1, sizeof(*s));

    s->block = *below;
    s->block.ops = &stats_ops;
    s->block.below = below;
    for (unsigned i = 0; i < ARRAY_LEN(s->timings); i++) {
        s->timings[i] = (struct timing){ .stats = s, .next = s->free };
        s->free = &s->timings[i];
    }
    return &s->block;
}

void stats_get(const struct block *b, struct block_stats *counts_r)
{
    CHECK(b->ops == &stats_ops);
    *counts_r = stats_of(b)->counts;
}
