/* Requests: split at blocks and at the seams between images, merged with their neighbours, put to the files. */
#include <errno.h>
#include <string.h>

#include "rpc/base/check.h"
#include "storage/tapd/vhd_private.h"

/* --- operations --------------------------------------------------------------------------------- */
static void gathering_submit(struct vhd *v)
{
    struct vhd_op *op = v->gathering;

    v->gathering = NULL;
    if (op != NULL)
        disk_io_submit(v->io, &op->slot);
}

void vhd_gathered(struct loop_idle *i)
{
    struct vhd *v = CONTAINER_OF(i, struct vhd, gather);

    gathering_submit(v);
    if (v->meta.wanted)
        vhd_meta_round_start(v);
}

static void op_append(struct vhd_op *op, void *buffer, uint32_t length, const struct vhd_part *part)
{
    struct disk_io_op_slot *s = &op->slot;
    struct iovec *last = s->n_iov > 0 ? &op->iov[s->n_iov - 1] : NULL;

    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == buffer)
        last->iov_len += length;
    else
        op->iov[s->n_iov++] = (struct iovec) { .iov_base = buffer, .iov_len = length };
    op->parts[op->n_parts++] = *part;
    s->length += length;
    part->job->pending++;
    if (part->bitmap != NULL)
        part->bitmap->refs++;
}

static bool op_fits(const struct vhd_op *op, enum disk_io_op what, int fd, int64_t offset, uint32_t length)
{
    const struct disk_io_op_slot *s = &op->slot;

    return s->op == what && s->fd == fd && s->offset + s->length == offset && op->n_parts < VHD_PARTS && s->length + length <= VHD_OP_MAX;
}

/* False: no operation is free, the job was parked. */
static bool op_add(struct vhd *v, enum disk_io_op what, int fd, int64_t offset, void *buffer, uint32_t length, const struct vhd_part *part)
{
    bool mergeable = what == DISK_READ || what == DISK_WRITE || what == DISK_WRITE_FUA;
    struct vhd_op *op = v->gathering;

    if (op != NULL && mergeable && op_fits(op, what, fd, offset, length)) {
        op_append(op, buffer, length, part);
        return true;
    }
    gathering_submit(v);
    op = v->free_ops;
    if (op == NULL) {
        vhd_park(&v->waiting_op, part->job);
        return false;
    }
    v->free_ops = op->next;
    op->slot.op = what;
    op->slot.fd = fd;
    op->slot.offset = offset;
    op->slot.length = 0;
    op->slot.iov = op->iov;
    op->slot.n_iov = 0;
    op->n_parts = 0;
    op_append(op, buffer, length, part);
    if (mergeable) {
        v->gathering = op;
        loop_later(v->block.loop, &v->gather);
    } else
        disk_io_submit(v->io, &op->slot);
    return true;
}

static void part_done(struct vhd *v, const struct vhd_part *p, int result)
{
    struct vhd_job *job = p->job;

    job->pending--;
    if (p->bitmap != NULL)
        p->bitmap->refs--;
    if (result != 0) {
        job->error = result;
        return;
    }
    if (p->block == VHD_UNUSED)
        return;
    if (p->bitmap != NULL)
        vhd_meta_written(v, p);
    if (vhd_meta_round(v, p) > job->round)
        job->round = vhd_meta_round(v, p);
}

/* True: the medium cannot punch holes, which has been dealt with. */
static bool no_holes_here(struct vhd_op *op)
{
    struct vhd *v = op->vhd;

    if (op->slot.op != DISK_PUNCH || op->slot.result != -EOPNOTSUPP)
        return false;
    v->can_punch = false;
    op->slot.result = 0;
    if (op->parts[0].job->request->op == BLOCK_DISCARD)
        return false;
    op->slot.op = DISK_ZERO;
    disk_io_submit(v->io, &op->slot);
    return true;
}

void vhd_op_done(struct disk_io_op_slot *s)
{
    struct vhd_op *op = CONTAINER_OF(s, struct vhd_op, slot);
    struct vhd *v = op->vhd;
    struct vhd_job *jobs[VHD_PARTS];
    unsigned n = 0;

    if (s->result != 0 && no_holes_here(op))
        return;
    v->unsynced |= s->op != DISK_READ;
    for (unsigned i = 0; i < op->n_parts; i++) {
        struct vhd_job *job = op->parts[i].job;

        part_done(v, &op->parts[i], s->result);
        if (!job->collected)
            jobs[n++] = job;
        job->collected = true;
    }
    op->next = v->free_ops;
    v->free_ops = op;
    for (unsigned i = 0; i < n; i++)
        jobs[i]->collected = false;
    for (unsigned i = 0; i < n; i++)
        if (!jobs[i]->parked)
            vhd_job_go(jobs[i]);
    while (v->free_ops != NULL && vhd_wake_one(&v->waiting_op))
        ;
    if (v->waiting_bitmap.first != NULL)
        vhd_wake(&v->waiting_bitmap, 0);
}

/* --- bitmaps ------------------------------------------------------------------------------------ */
static void park_at_bitmap(struct vhd_bitmap *b, struct vhd_job *job)
{
    CHECK(!job->parked);
    job->parked = true;
    job->next = b->waiting;
    b->waiting = job;
}

static void bitmap_loaded(struct disk_io_op_slot *s)
{
    struct vhd_bitmap *b = CONTAINER_OF(s, struct vhd_bitmap, slot);
    struct vhd_image *i = b->image;
    struct vhd *v = i->owner;
    struct vhd_job *job = b->waiting;
    struct vhd_jobs list = { NULL, NULL };
    uint32_t sectors = i->block_size / VHD_SECTOR;
    bool all = s->result == 0 && vhd_bit(b->bits, 0) && vhd_bitmap_run(b->bits, 0, sectors) == sectors;

    b->loading = false;
    b->waiting = NULL;
    if (all)
        vhd_set_full(i, b->block);
    if (all || s->result != 0)
        vhd_bitmap_drop(b);
    for (struct vhd_job *next; job != NULL; job = next) {
        next = job->next;
        job->parked = false;
        vhd_park(&list, job);
    }
    vhd_wake(&list, s->result);
    vhd_wake(&v->waiting_bitmap, 0);
}

/* The bitmap of an allocated block, if it is there; else the job was parked until it is, or until there is room. */
static struct vhd_bitmap *bitmap_need(struct vhd *v, struct vhd_image *i, uint32_t block, struct vhd_job *job)
{
    struct vhd_bitmap *b = vhd_bitmap_find(i, block);

    if (b != NULL && !b->loading)
        return b;
    if (b == NULL) {
        b = vhd_bitmap_take(i, block);
        if (b == NULL) {
            vhd_park(&v->waiting_bitmap, job);
            return NULL;
        }
        b->loading = true;
        b->iov = (struct iovec) { .iov_base = b->bits, .iov_len = i->bitmap_size };
        b->slot.op = DISK_READ;
        b->slot.fd = i->fd;
        b->slot.iov = &b->iov;
        b->slot.n_iov = 1;
        b->slot.offset = vhd_bitmap_at(i, block);
        b->slot.length = i->bitmap_size;
        b->slot.done = bitmap_loaded;
        disk_io_submit(v->io, &b->slot);
    }
    park_at_bitmap(b, job);
    return NULL;
}

/* --- reading ------------------------------------------------------------------------------------ */
enum look { LOOK_ZERO, LOOK_DATA, LOOK_PARKED };

/* What is at 'at': *n_r bytes of one kind. */
static enum look look(struct vhd *v, struct vhd_job *job, int64_t at, uint32_t *n_r, int *fd_r, int64_t *offset_r)
{
    for (unsigned level = 0; level < v->n_images; level++) {
        struct vhd_image *i = &v->images[level];
        struct vhd_bitmap *b;
        uint32_t block, in_block, run;

        if (at >= i->size)
            return LOOK_ZERO;
        if (*n_r > i->size - at)
            *n_r = (uint32_t)(i->size - at);
        *fd_r = i->fd;
        *offset_r = at;
        if (i->flat)
            return LOOK_DATA;
        block = vhd_block_of(i, at);
        in_block = (uint32_t)(at % i->block_size);
        if (*n_r > i->block_size - in_block)
            *n_r = i->block_size - in_block;
        if (i->bat[block] == VHD_UNUSED)
            continue;
        *offset_r = vhd_data_at(i, block) + in_block;
        if (vhd_is_full(i, block))
            return LOOK_DATA;
        b = bitmap_need(v, i, block, job);
        if (b == NULL)
            return LOOK_PARKED;
        run = vhd_bitmap_run(b->bits, in_block / VHD_SECTOR, *n_r / VHD_SECTOR) * VHD_SECTOR;
        *n_r = run;
        if (vhd_bit(b->bits, in_block / VHD_SECTOR))
            return LOOK_DATA;
    }
    return LOOK_ZERO;
}

/* The steps: true when the job got on, false when it was parked. */
static bool step_read(struct vhd *v, struct vhd_job *job)
{
    struct block_request *r = job->request;
    const struct vhd_part part = { .job = job, .block = VHD_UNUSED };
    uint32_t n = r->length - job->at;
    uint8_t *buffer = (uint8_t *)r->buffer + job->at;
    int64_t offset = 0;
    int fd = -1;

    switch (look(v, job, r->offset + job->at, &n, &fd, &offset)) {
    case LOOK_PARKED:
        return false;
    case LOOK_ZERO:
        memset(buffer, 0, n);
        break;
    case LOOK_DATA:
        if (!op_add(v, DISK_READ, fd, offset, buffer, n, &part))
            return false;
        break;
    }
    job->at += n;
    return true;
}

/* --- writing ------------------------------------------------------------------------------------ */
/* Whether a parent has, or may have, anything there. */
static bool parents_hold(const struct vhd *v, int64_t at, uint32_t n)
{
    for (unsigned level = 1; level < v->n_images; level++) {
        const struct vhd_image *i = &v->images[level];

        if (at >= i->size)
            return false;
        if (i->flat)
            return true;
        for (uint32_t block = vhd_block_of(i, at); block < i->entries && (int64_t)block * i->block_size < at + n; block++)
            if (i->bat[block] != VHD_UNUSED)
                return true;
    }
    return false;
}

/* Gives the leaf's block a place. False: parked, or failed. */
static bool allocate(struct vhd *v, struct vhd_job *job, uint32_t block)
{
    struct vhd_image *i = vhd_leaf(v);
    int64_t at;

    if (v->differencing && vhd_bitmap_find(i, block) == NULL && vhd_bitmap_take(i, block) == NULL) {
        vhd_park(&v->waiting_bitmap, job);
        return false;
    }
    at = vhd_meta_has_room(v, job) ? vhd_end_take(v, job) : 0;
    if (at != 0)
        vhd_meta_new_block(v, block, at);
    return at != 0;
}

static enum disk_io_op zero_op(const struct vhd *v, const struct block_request *r)
{
    return r->op == BLOCK_DISCARD || ((r->flags & BLOCK_NO_HOLE) == 0 && v->can_punch) ? DISK_PUNCH : DISK_ZERO;
}

/* The operation for n bytes of the request in one block that has all it needs (bitmap NULL: it is full). */
static bool put(struct vhd *v, struct vhd_job *job, uint32_t n, int64_t offset, uint32_t block, struct vhd_bitmap *b, uint32_t first)
{
    struct block_request *r = job->request;
    struct vhd_part part = { .job = job, .block = block, .bitmap = b, .first = first, .n = n / VHD_SECTOR };
    enum disk_io_op what = r->op == BLOCK_WRITE ? DISK_WRITE : zero_op(v, r);

    if (b != NULL && (r->op == BLOCK_DISCARD || (vhd_bit(b->bits, first) && vhd_bitmap_run(b->bits, first, part.n) == part.n)))
        part.bitmap = NULL; /* no bit changes; a round that is still to come is waited for below */
    if (b != NULL && part.bitmap == NULL && b->round > job->round)
        job->round = b->round;
    if ((r->flags & BLOCK_FUA) != 0) {
        bool synced = part.bitmap == NULL && (block == VHD_UNUSED || vhd_meta_synced(v, block, b));

        if (synced && what == DISK_WRITE)
            what = DISK_WRITE_FUA;
        else
            job->needs_sync = true;
    }
    if (!op_add(v, what, vhd_leaf(v)->fd, offset, r->buffer == NULL ? NULL : (uint8_t *)r->buffer + job->at, n, &part))
        return false;
    job->at += n;
    return true;
}

static bool step_write(struct vhd *v, struct vhd_job *job)
{
    struct block_request *r = job->request;
    struct vhd_image *i = vhd_leaf(v);
    int64_t at = r->offset + job->at;
    uint32_t n = r->length - job->at, block, in_block;
    struct vhd_bitmap *b = NULL;

    if (r->op == BLOCK_DISCARD && !v->can_punch) {
        job->at += n;
        return true;
    }
    if (i->flat)
        return put(v, job, n, at, VHD_UNUSED, NULL, 0);
    block = vhd_block_of(i, at);
    in_block = (uint32_t)(at % i->block_size);
    if (n > i->block_size - in_block)
        n = i->block_size - in_block;
    if (i->bat[block] == VHD_UNUSED) {
        bool nothing = r->op == BLOCK_DISCARD || (r->op == BLOCK_ZERO && (r->flags & BLOCK_NO_HOLE) == 0 && !parents_hold(v, at, n));

        if (nothing) {
            job->at += n;
            return true;
        }
        if (!allocate(v, job, block))
            return job->error != 0; /* failed: the caller's loop ends */
    }
    if (!vhd_is_full(i, block) && (b = bitmap_need(v, i, block, job)) == NULL)
        return false;
    return put(v, job, n, vhd_data_at(i, block) + in_block, block, b, in_block / VHD_SECTOR);
}

/* --- jobs --------------------------------------------------------------------------------------- */
static void job_start(struct vhd *, struct block_request *);

static void job_finish(struct vhd_job *job)
{
    struct vhd *v = job->vhd;
    struct block_request *r = job->request;
    int error = job->error;

    job->request = NULL;
    job->next = v->free_jobs;
    v->free_jobs = job;
    v->n_busy--;
    block_finish(r, error);
    while (v->waiting != NULL && v->free_jobs != NULL) {
        r = v->waiting;
        v->waiting = r->next;
        if (v->waiting == NULL)
            v->waiting_last = &v->waiting;
        job_start(v, r);
    }
}

void vhd_job_go(struct vhd_job *job)
{
    struct vhd *v = job->vhd;
    struct block_request *r = job->request;

    while (job->error == 0 && job->at < r->length)
        if (!(r->op == BLOCK_READ ? step_read(v, job) : step_write(v, job)))
            return;
    if (job->pending > 0)
        return;
    if (job->error == 0 && job->round > v->meta.round_done) {
        vhd_park(&v->meta.waiting, job);
        vhd_meta_want(v);
        return;
    }
    if (job->error == 0 && job->needs_sync) {
        job->needs_sync = false;
        vhd_sync(v, job);
        return;
    }
    job_finish(job);
}

static void job_start(struct vhd *v, struct block_request *r)
{
    struct vhd_job *job = v->free_jobs;

    v->free_jobs = job->next;
    v->n_busy++;
    *job = (struct vhd_job) { .vhd = v, .request = r, .needs_sync = r->op == BLOCK_FLUSH && !v->block.read_only };
    if (r->op == BLOCK_FLUSH)
        job->at = r->length;
    vhd_job_go(job);
}

void vhd_submit(struct block *b, struct block_request *r)
{
    struct vhd *v = vhd_of(b);

    if (v->free_jobs != NULL && v->waiting == NULL) {
        job_start(v, r);
        return;
    }
    r->next = NULL;
    *v->waiting_last = r;
    v->waiting_last = &r->next;
}
