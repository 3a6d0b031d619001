/* Holds the guest to so many bytes and requests a second.
 *
 * Two buckets that fill at the given rates and hold a tenth of a second's worth, or one request. A request goes when
 * one of the operations and any of the bytes are there; it may leave a debt of bytes, so that one larger than the
 * bucket goes too, and the next ones pay for it. First come, first served: nothing starves. */
#include <errno.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/block.h"

#define SECOND_US 1000000
#define BURST_US 100000
#define STEP_US 30000000         /* the longest time filled in at once, and slept */
#define RATE_MAX 100000000000    /* so that a rate times STEP_US fits */

struct bucket {
    int64_t rate;  /* a second; 0: no limit */
    int64_t level; /* in millionths of a byte or request; below 0: a debt */
};

struct throttle {
    struct block block;
    struct bucket bytes, operations;
    int64_t filled_us;
    struct block_request *waiting, **waiting_last;
    struct loop_timer timer;
};

static const struct block_ops throttle_ops;

static struct throttle *throttle_of(struct block *b)
{
    CHECK(b->ops == &throttle_ops);
    return CONTAINER_OF(b, struct throttle, block);
}

static int64_t bucket_size(const struct bucket *k)
{
    int64_t size = k->rate * BURST_US;

    return size > SECOND_US ? size : SECOND_US; /* at least one whole byte or request */
}

static void bucket_fill(struct bucket *k, int64_t us)
{
    k->level += k->rate * us;
    if (k->level > bucket_size(k))
        k->level = bucket_size(k);
}

/* Until the bucket holds that much. */
static int64_t bucket_wait_us(const struct bucket *k, int64_t level)
{
    return k->rate == 0 || k->level >= level ? 0 : (level - k->level + k->rate - 1) / k->rate;
}

static void fill(struct throttle *t)
{
    int64_t now = clock_us(loop_clock(t->block.loop)), us = now - t->filled_us;

    t->filled_us = now;
    if (us > 2 * STEP_US)
        us = 2 * STEP_US;
    bucket_fill(&t->bytes, us);
    bucket_fill(&t->operations, us);
}

static int64_t wait_us(const struct throttle *t)
{
    int64_t bytes = bucket_wait_us(&t->bytes, 1), operations = bucket_wait_us(&t->operations, SECOND_US);

    return bytes > operations ? bytes : operations;
}

static void pay(struct throttle *t, const struct block_request *r)
{
    if (t->bytes.rate > 0 && (r->op == BLOCK_READ || r->op == BLOCK_WRITE))
        t->bytes.level -= (int64_t)r->length * SECOND_US;
    if (t->operations.rate > 0)
        t->operations.level -= SECOND_US;
}

/* Lets go what can go and sets the timer for the rest. */
static void release(struct throttle *t)
{
    fill(t);
    while (t->waiting != NULL && wait_us(t) == 0) {
        struct block_request *r = t->waiting;
        t->waiting = r->next;
        if (t->waiting == NULL)
            t->waiting_last = &t->waiting;
        pay(t, r);
        block_submit(t->block.below, r);
    }
    if (t->waiting == NULL) {
        loop_timer_clear(t->block.loop, &t->timer);
        return;
    }
    int64_t us = wait_us(t);
    loop_timer_set(t->block.loop, &t->timer, clock_us(loop_clock(t->block.loop)) + (us < STEP_US ? us : STEP_US));
}

static void fired(struct loop_timer *timer) { release(CONTAINER_OF(timer, struct throttle, timer)); }

static void throttle_submit(struct block *b, struct block_request *r)
{
    struct throttle *t = CONTAINER_OF(b, struct throttle, block);
    bool unlimited = t->bytes.rate == 0 && t->operations.rate == 0;

    if ((r->flags & BLOCK_COPIER) != 0 || (unlimited && t->waiting == NULL)) {
        block_submit(b->below, r);
        return;
    }
    r->next = NULL;
    *t->waiting_last = r;
    t->waiting_last = &r->next;
    if (t->waiting == r)
        release(t);
}

static void bucket_set(struct bucket *k, int64_t rate)
{
    k->rate = rate < RATE_MAX ? rate : RATE_MAX;
    k->level = bucket_size(k);
}

void throttle_set(struct block *b, int64_t bytes_per_s, int64_t operations_per_s)
{
    struct throttle *t = throttle_of(b);

    fill(t);
    bucket_set(&t->bytes, bytes_per_s);
    bucket_set(&t->operations, operations_per_s);
    release(t);
}

static int throttle_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return block_extents(b->below, offset, length, own_only, fn, ctx);
}

static int throttle_close(struct block *b)
{
    struct throttle *t = throttle_of(b);
    int rc = block_close(b->below);

    CHECK(t->waiting == NULL);
    loop_timer_clear(b->loop, &t->timer);
    xfree(t);
    return rc;
}

static const struct block_ops throttle_ops = { .name = "throttle", .submit = throttle_submit, .extents = throttle_extents, .close = throttle_close };

struct block *throttle_layer(struct block *below)
{
    struct throttle *t = xcalloc(1, sizeof(*t));

    t->block = *below;
    t->block.ops = &throttle_ops;
    t->block.below = below;
    t->waiting_last = &t->waiting;
    t->timer.fired = fired;
    t->filled_us = clock_us(loop_clock(below->loop));
    return &t->block;
}
