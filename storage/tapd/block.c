#include "storage/tapd/block.h"

#include <errno.h>

#include "rpc/base/check.h"

void block_push(struct block_request *r, void (*done)(struct block_request *), void *owner)
{
    CHECK(r->n_frames < BLOCK_FRAMES);
    r->frames[r->n_frames].done = r->done;
    r->frames[r->n_frames].owner = r->owner;
    r->n_frames++;
    r->done = done;
    r->owner = owner;
}

void block_pop(struct block_request *r)
{
    CHECK(r->n_frames > 0);
    r->n_frames--;
    r->done = r->frames[r->n_frames].done;
    r->owner = r->frames[r->n_frames].owner;
}

void block_finish(struct block_request *r, int result)
{
    r->result = result;
    r->done(r);
}

/* 0 or why the request cannot be for this block. */
static int refusal(const struct block *b, const struct block_request *r)
{
    if (r->op == BLOCK_FLUSH)
        return 0;
    if (r->length == 0 || ((r->offset | r->length) & 511) != 0 || r->offset < 0)
        return -EINVAL;
    if (r->offset > b->size || r->length > b->size - r->offset)
        return r->op == BLOCK_READ ? -EINVAL : -ENOSPC;
    return r->op != BLOCK_READ && b->read_only ? -EROFS : 0;
}

void block_submit(struct block *b, struct block_request *r)
{
    int rc = refusal(b, r);

    if (__builtin_expect(rc != 0, 0))
        block_finish(r, rc);
    else
        b->ops->submit(b, r);
}

int block_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    if (offset < 0 || length < 0 || offset > b->size || length > b->size - offset)
        return -EINVAL;
    if (length == 0)
        return 0;
    if (b->ops->extents != NULL)
        return b->ops->extents(b, offset, length, own_only, fn, ctx);
    struct block_extent all = { .offset = offset, .length = length };
    fn(ctx, &all);
    return 0;
}

int block_close(struct block *b) { return b != NULL ? b->ops->close(b) : 0; }

int block_resized(struct block *b, int64_t size)
{
    if (b->ops->resized != NULL)
        return b->ops->resized(b, size);
    if (b->below == NULL)
        return -EOPNOTSUPP;
    int rc = block_resized(b->below, size);
    if (rc == 0)
        b->size = b->below->size;
    return rc;
}
