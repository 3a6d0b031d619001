#include "storage/tapd/cbt.h"

#include <errno.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/memory.h"
#include "storage/image/cbt_log.h"

struct cbt {
    struct block block;
    struct cbt_log *log;
    struct nbd_dirty_source dirty;
};

static struct cbt *cbt_of(struct block *b) { return CONTAINER_OF(b, struct cbt, block); }

static void cbt_submit(struct block *b, struct block_request *r)
{
    if (r->op != BLOCK_READ && r->op != BLOCK_FLUSH) {
        int rc = cbt_log_mark(cbt_of(b)->log, r->offset, r->length);
        if (rc < 0) {
            block_finish(r, rc);
            return;
        }
    }
    block_submit(b->below, r);
}

static int cbt_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return block_extents(b->below, offset, length, own_only, fn, ctx);
}

/* The log says "consistent" after everything below is on its medium. */
static int cbt_close(struct block *b)
{
    struct cbt *c = cbt_of(b);
    int r = block_close(b->below), closed = cbt_log_close(c->log);

    xfree(c);
    return r < 0 ? r : closed;
}

static int cbt_resized(struct block *b, int64_t size)
{
    int r = block_resized(b->below, size);

    if (r == 0)
        r = cbt_log_grow(cbt_of(b)->log, b->below->size);
    if (r == 0)
        b->size = b->below->size;
    return r;
}

static const struct block_ops cbt_ops = {
    .name = "cbt",
    .submit = cbt_submit,
    .extents = cbt_extents,
    .close = cbt_close,
    .resized = cbt_resized,
};

static int dirty_extents(struct nbd_dirty_source *source, int64_t offset, int64_t length, block_extent_fn *fn, void *ctx)
{
    struct cbt *c = CONTAINER_OF(source, struct cbt, dirty);
    int64_t end = offset + length;

    if (offset < 0 || length < 0 || end > c->block.size)
        return -EINVAL;
    while (offset < end) {
        bool changed;
        int64_t to = cbt_log_run(c->log, offset, end, &changed);
        struct block_extent e = { .offset = offset, .length = to - offset, .hole = !changed };
        if (!fn(ctx, &e))
            return 0;
        offset = to;
    }
    return 0;
}

bool block_is_cbt(const struct block *b) { return b != NULL && b->ops == &cbt_ops; }
struct nbd_dirty_source *cbt_dirty(struct block *b) { return &cbt_of(b)->dirty; }

struct error *cbt_layer(struct arena *a, struct block *below, const char *path, struct block **block_r)
{
    struct cbt_log *log = NULL;
    struct cbt *c;
    int r = cbt_log_open(path, &log);

    if (r == 0)
        r = cbt_log_grow(log, below->size);
    if (r < 0) {
        cbt_log_close(log);
        block_close(below);
        return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "changed blocks %s: %s", path,
            r == -EBADMSG ? "damaged log" : r == -EBUSY ? "in use" : strerror(-r)));
    }
    c = xcalloc(1, sizeof *c);
    c->block = (struct block) { .ops = &cbt_ops, .below = below, .loop = below->loop, .size = below->size, .read_only = below->read_only, .thin = below->thin };
    c->log = log;
    c->dirty.extents = dirty_extents;
    *block_r = &c->block;
    return NULL;
}
