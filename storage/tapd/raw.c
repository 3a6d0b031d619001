/* Raw disks: the bytes as they are, on a file, a device, or pieces of devices. */
#include <errno.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/raw_medium.h"

#define OPS (BLOCK_GUEST_DEPTH + 128u) /* guests, and copiers beside them; more wait */

struct raw;
struct raw_op {
    struct disk_io_op_slot slot;
    struct iovec iov;
    struct raw *raw;
    struct block_request *request;
    int64_t finished; /* bytes of the request; devices flushed, for FLUSH */
    struct raw_op *next;
};

struct raw {
    struct block block;
    struct disk_io *io;
    struct raw_medium medium;
    bool can_punch;
    int64_t data_from, data_to; /* the last run of data looked up, on the disk: some file systems look long */
    struct raw_op *ops, *free;
    struct block_request *waiting, **waiting_last; /* for a free op */
};

static struct raw *raw_of(struct block *b) { return CONTAINER_OF(b, struct raw, block); }

static void op_start(struct raw *, struct raw_op *);

static void op_finish(struct raw_op *op, int result)
{
    struct raw *raw = op->raw;
    struct block_request *r = op->request;

    op->request = raw->waiting;
    if (op->request != NULL) {
        raw->waiting = op->request->next;
        if (raw->waiting == NULL)
            raw->waiting_last = &raw->waiting;
        op_start(raw, op);
    } else {
        op->next = raw->free;
        raw->free = op;
    }
    block_finish(r, result);
}

static enum disk_io_op disk_op(const struct raw *raw, const struct block_request *r)
{
    switch (r->op) {
    case BLOCK_READ:
        return DISK_READ;
    case BLOCK_WRITE:
        return (r->flags & BLOCK_FUA) != 0 ? DISK_WRITE_FUA : DISK_WRITE;
    case BLOCK_ZERO:
        return (r->flags & BLOCK_NO_HOLE) == 0 && raw->block.thin && raw->can_punch ? DISK_PUNCH : DISK_ZERO;
    case BLOCK_DISCARD:
        return DISK_PUNCH;
    case BLOCK_FLUSH:
        break;
    }
    return DISK_SYNC;
}

/* The next piece of the request: what of it lies in one segment. */
static void op_piece(struct raw *raw, struct raw_op *op, enum disk_io_op what)
{
    struct block_request *r = op->request;
    struct disk_io_op_slot *s = &op->slot;
    int64_t at = r->offset + op->finished;
    const struct raw_segment *g = raw_medium_find(&raw->medium, at);
    int64_t length = r->length - op->finished, room = g->start + g->length - at;

    s->op = what;
    s->fd = raw->medium.devices[g->device].fd;
    s->offset = g->offset + (at - g->start);
    s->length = length < room ? length : room;
    op->iov = (struct iovec){ .iov_base = (uint8_t *)r->buffer + op->finished, .iov_len = (size_t)s->length };
    s->iov = &op->iov;
    s->n_iov = 1;
    disk_io_submit(raw->io, s);
}

static void op_sync(struct raw *raw, struct raw_op *op)
{
    op->slot.op = DISK_SYNC;
    op->slot.fd = raw->medium.devices[op->finished].fd;
    disk_io_submit(raw->io, &op->slot);
}

static void op_start(struct raw *raw, struct raw_op *op)
{
    op->finished = 0;
    if (op->request->op == BLOCK_FLUSH)
        op_sync(raw, op);
    else
        op_piece(raw, op, disk_op(raw, op->request));
}

static void synced(struct raw_op *op)
{
    op->finished++;
    if (op->slot.result != 0 || op->finished == op->raw->medium.n_devices)
        op_finish(op, op->slot.result);
    else
        op_sync(op->raw, op);
}

/* True: the medium cannot punch holes, which has been dealt with. */
static bool no_holes_here(struct raw_op *op)
{
    struct raw *raw = op->raw;

    if (op->slot.op != DISK_PUNCH || op->slot.result != -EOPNOTSUPP)
        return false;
    raw->can_punch = false;
    if (op->request->op == BLOCK_DISCARD)
        op_finish(op, 0);
    else
        op_piece(raw, op, DISK_ZERO);
    return true;
}

static void op_done(struct disk_io_op_slot *s)
{
    struct raw_op *op = CONTAINER_OF(s, struct raw_op, slot);
    const struct block_request *r = op->request;

    if (s->op == DISK_SYNC) {
        synced(op);
        return;
    }
    if (__builtin_expect(s->result != 0, 0)) {
        if (!no_holes_here(op))
            op_finish(op, s->result);
        return;
    }
    op->finished += s->length;
    if (r->op == BLOCK_ZERO || r->op == BLOCK_DISCARD)
        op->raw->data_to = 0; /* there may be a hole in it now */
    if (op->finished < r->length) {
        op_piece(op->raw, op, s->op);
    } else if (r->op == BLOCK_ZERO && (r->flags & BLOCK_FUA) != 0) {
        op->finished = 0;
        op_sync(op->raw, op);
    } else {
        op_finish(op, 0);
    }
}

static void raw_submit(struct block *b, struct block_request *r)
{
    struct raw *raw = raw_of(b);
    struct raw_op *op = raw->free;

    if (r->op == BLOCK_DISCARD && (!raw->can_punch || !b->thin)) {
        block_finish(r, 0);
        return;
    }
    if (op == NULL) {
        r->next = NULL;
        *raw->waiting_last = r;
        raw->waiting_last = &r->next;
        return;
    }
    raw->free = op->next;
    op->request = r;
    op_start(raw, op);
}

/* The end of the run of one kind that begins at 'at', and its kind. A file system that cannot tell has data only. */
static int64_t run_end(int fd, int64_t at, int64_t end, bool *hole_r)
{
    int64_t data = lseek(fd, at, SEEK_DATA);

    *hole_r = data < 0 ? errno == ENXIO : data > at;
    if (data < 0)
        return end;
    int64_t to = *hole_r ? data : lseek(fd, at, SEEK_HOLE);
    if (to < 0)
        return end;
    to = *hole_r ? to & ~(int64_t)511 : (to + 511) & ~(int64_t)511; /* a sector with any data is data */
    if (to <= at) { /* a hole of less than a sector */
        *hole_r = false;
        to = at + 512;
    }
    return to < end ? to : end;
}

/* The run that begins at 'offset' of the disk, inside one segment of a file. */
static int64_t file_run(struct raw *raw, const struct raw_segment *g, int64_t offset, bool *hole_r)
{
    int64_t shift = g->offset - g->start;

    *hole_r = false;
    if (offset >= raw->data_from && offset < raw->data_to)
        return raw->data_to;
    int64_t to = run_end(raw->medium.devices[g->device].fd, offset + shift, g->start + g->length + shift, hole_r) - shift;
    if (!*hole_r) { /* data stays data until we make a hole ourselves; a hole is filled by any write */
        raw->data_from = offset;
        raw->data_to = to;
    }
    return to;
}

static int raw_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    struct raw *raw = raw_of(b);
    int64_t end = offset + length;

    while (offset < end) {
        const struct raw_segment *g = raw_medium_find(&raw->medium, offset);
        struct block_extent e = { .offset = offset };
        int64_t to = g->start + g->length;
        if (raw->medium.devices[g->device].is_file)
            to = file_run(raw, g, offset, &e.hole);
        e.zero = e.hole;
        e.length = (to < end ? to : end) - offset;
        if (!fn(ctx, &e))
            return 0;
        offset += e.length;
    }
    return 0;
}

static int raw_resized(struct block *b, int64_t size)
{
    struct raw *raw = raw_of(b);
    int64_t now = raw_medium_size(&raw->medium);

    if (size == b->size) /* opened anew since it grew: segments change so */
        return 0;
    if (now < 0)
        return (int)now;
    if (size < b->size || size > now || (size & 511) != 0)
        return -EINVAL;
    raw->medium.size = size;
    raw->medium.segments[0].length = size;
    b->size = size;
    return 0;
}

static int raw_close(struct block *b)
{
    struct raw *raw = raw_of(b);

    CHECK(raw->waiting == NULL);
    raw_medium_close(&raw->medium);
    xfree(raw->ops);
    xfree(raw);
    return 0;
}

static const struct block_ops raw_ops = { .name = "raw", .submit = raw_submit, .extents = raw_extents, .close = raw_close, .resized = raw_resized };

struct error *raw_open(struct arena *a, const struct block_open *o, struct block **block_r)
{
    struct raw_medium medium;

    TRY(raw_medium_open(a, o, &medium));
    struct raw *raw = xcalloc(1, sizeof(*raw));
    raw->medium = medium;
    raw->io = o->io;
    raw->can_punch = true;
    raw->waiting_last = &raw->waiting;
    raw->block = (struct block){ .ops = &raw_ops, .loop = o->loop, .size = medium.size, .read_only = o->read_only, .thin = medium.devices[0].is_file };
    raw->ops = xcalloc(OPS, sizeof(*raw->ops));
    for (unsigned i = OPS; i > 0; i--) {
        raw->ops[i - 1] = (struct raw_op){ .slot.done = op_done, .raw = raw, .next = raw->free };
        raw->free = &raw->ops[i - 1];
    }
    *block_r = &raw->block;
    return NULL;
}
