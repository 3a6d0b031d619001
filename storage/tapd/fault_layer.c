/* Faults on demand below the guest and the mirror: errors, a full disk, slowness, half a request. */
#include <errno.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "storage/tapd/block.h"

#define DELAYED_MAX BLOCK_GUEST_DEPTH
#define DELAY "delay-"

struct faults;
struct delayed {
    struct loop_timer timer;
    struct faults *faults;
    struct block_request *request;
    uint32_t length; /* of a request that was cut short; 0: it was not */
    struct delayed *next;
};

struct faults {
    struct block block;
    bool target;
    struct delayed *free;
    struct delayed delayed[DELAYED_MAX];
};

static void give(struct delayed *d)
{
    d->next = d->faults->free;
    d->faults->free = d;
}

static void fired(struct loop_timer *t)
{
    struct delayed *d = CONTAINER_OF(t, struct delayed, timer);
    struct block_request *r = d->request;
    struct block *below = d->faults->block.below;

    give(d);
    block_submit(below, r);
}

static void half_done(struct block_request *r)
{
    struct delayed *d = r->owner;

    block_pop(r);
    r->length = d->length;
    give(d);
    block_finish(r, -EIO);
}

static const char *word_for(const struct faults *f, const struct block_request *r)
{
    const char *point = f->target ? "target.write" : "tapd.write";

    if (r->op == BLOCK_READ)
        point = f->target ? "target.read" : "tapd.read";
    else if (r->op == BLOCK_FLUSH)
        point = f->target ? "target.flush" : "tapd.flush";
    return fault_hit(point) ? fault_word(point) : NULL;
}

/* The first half is done and the rest fails. */
static void cut_short(struct faults *f, struct block_request *r)
{
    struct delayed *d = f->free;
    uint32_t half = r->length / 2 & ~511u;

    if (d == NULL || half == 0) {
        block_finish(r, -EIO);
        return;
    }
    f->free = d->next;
    d->length = r->length;
    r->length = half;
    block_push(r, half_done, d);
    block_submit(f->block.below, r);
}

static void delay(struct faults *f, struct block_request *r, int64_t ms)
{
    struct delayed *d = f->free;

    if (d == NULL) {
        block_submit(f->block.below, r);
        return;
    }
    f->free = d->next;
    d->request = r;
    loop_timer_set(f->block.loop, &d->timer, clock_us(loop_clock(f->block.loop)) + ms * 1000);
}

static void fault_submit(struct block *b, struct block_request *r)
{
    struct faults *f = CONTAINER_OF(b, struct faults, block);
    const char *word = word_for(f, r);
    int64_t ms;

    if (__builtin_expect(word == NULL, 1))
        block_submit(b->below, r);
    else if (strncmp(word, DELAY, strlen(DELAY)) == 0 && text_to_int(word + strlen(DELAY), &ms) && ms >= 0)
        delay(f, r, ms);
    else if (strcmp(word, "short") == 0)
        cut_short(f, r);
    else
        block_finish(r, strcmp(word, "enospc") == 0 ? -ENOSPC : -EIO);
}

static int fault_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return block_extents(b->below, offset, length, own_only, fn, ctx);
}

static int fault_close(struct block *b)
{
    int rc = block_close(b->below);

    xfree(CONTAINER_OF(b, struct faults, block));
    return rc;
}

static const struct block_ops fault_ops = { .name = "fault", .submit = fault_submit, .extents = fault_extents, .close = fault_close };

struct block *fault_layer(struct block *below, bool target)
{
    struct faults *f = xcalloc(1, sizeof(*f));

    f->block = *below;
    f->block.ops = &fault_ops;
    f->block.below = below;
    f->target = target;
    for (unsigned i = 0; i < DELAYED_MAX; i++) {
        f->delayed[i] = (struct delayed){ .timer.fired = fired, .faults = f, .next = f->free };
        f->free = &f->delayed[i];
    }
    return &f->block;
}
