/* The end of the leaf's file: made longer before blocks are taken there, cut when it is closed. And syncs. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "storage/tapd/vhd_private.h"

#define PAGE 4096u

static void extend_step(struct disk_io_op_slot *);

void vhd_end_init(struct vhd *v, const struct vhd_file *f)
{
    struct vhd_end *e = &v->end;

    CHECK(!e->extending && e->waiting.first == NULL);
    if (e->footer == NULL)
        e->footer = vhd_pages_new(PAGE);
    memcpy(e->footer, f->footer.raw, VHD_FOOTER_SIZE);
    e->end = e->limit = f->data_end;
    e->n_left = f->header.entries - f->n_allocated;
    e->moved = false;
    e->iov = (struct iovec) { .iov_base = e->footer, .iov_len = VHD_FOOTER_SIZE };
}

void vhd_end_release(struct vhd *v)
{
    vhd_pages_free(v->end.footer, PAGE);
    v->end.footer = NULL;
}

static int64_t whole_block(const struct vhd *v)
{
    return (int64_t)v->images[0].bitmap_size + v->images[0].block_size;
}

/* --- making it longer: read the footer's copy (others may have changed it), write it to the new end, sync ---- */
static void extend_submit(struct vhd *v, enum disk_io_op what, int64_t offset)
{
    struct vhd_end *e = &v->end;

    e->slot.op = what;
    e->slot.fd = vhd_leaf(v)->fd;
    e->iov = (struct iovec) { .iov_base = e->footer, .iov_len = VHD_FOOTER_SIZE };
    e->slot.iov = &e->iov;
    e->slot.n_iov = 1;
    e->slot.offset = offset;
    e->slot.length = what == DISK_SYNC ? 0 : VHD_FOOTER_SIZE;
    e->slot.done = extend_step;
    disk_io_submit(v->io, &e->slot);
}

static void extend_start(struct vhd *v, struct vhd_job *job)
{
    struct vhd_end *e = &v->end;

    if (e->extending)
        return;
    e->extending = true;
    e->extender = job;
    job->pending++;
    e->new_limit = e->limit > e->end ? e->limit : e->end;
    for (uint32_t n = 0; n < VHD_AHEAD && n < e->n_left; n++)
        e->new_limit = vhd_next_block(e->new_limit, v->images[0].bitmap_size) + whole_block(v);
    e->moved = true;
    extend_submit(v, DISK_READ, 0);
}

static void extend_end(struct vhd *v, int error)
{
    struct vhd_end *e = &v->end;
    struct vhd_job *job = e->extender;

    e->extending = false;
    e->extender = NULL;
    if (error == 0)
        e->limit = e->new_limit;
    job->pending--;
    if (!job->parked)
        vhd_job_go(job);
    vhd_wake(&e->waiting, error);
}

static void extend_step(struct disk_io_op_slot *s)
{
    struct vhd *v = CONTAINER_OF(CONTAINER_OF(s, struct vhd_end, slot), struct vhd, end);
    struct vhd_footer footer;

    if (s->result != 0)
        extend_end(v, s->result);
    else if (s->op == DISK_READ && vhd_footer_decode(v->end.footer, &footer) != NULL)
        extend_end(v, -EIO);
    else if (s->op == DISK_READ)
        extend_submit(v, DISK_WRITE, v->end.new_limit);
    else if (s->op == DISK_WRITE)
        extend_submit(v, DISK_SYNC, 0);
    else
        extend_end(v, 0);
}

int64_t vhd_end_take(struct vhd *v, struct vhd_job *job)
{
    struct vhd_end *e = &v->end;
    int64_t at = vhd_next_block(e->end, v->images[0].bitmap_size), left;

    if (at / VHD_SECTOR >= VHD_UNUSED) {
        job->error = -EFBIG;
        return 0;
    }
    if (at + whole_block(v) > e->limit) {
        extend_start(v, job);
        vhd_park(&e->waiting, job);
        return 0;
    }
    e->end = at + whole_block(v);
    e->n_left--;
    left = (e->limit - e->end) / whole_block(v);
    if (left < VHD_AHEAD / 2 && (int64_t)e->n_left > left)
        extend_start(v, job);
    return at;
}

int vhd_end_cut(struct vhd *v)
{
    struct vhd_end *e = &v->end;
    int fd = vhd_leaf(v)->fd, error;
    struct vhd_footer footer;

    CHECK(!e->extending);
    if (!e->moved)
        return 0;
    error = fd_pread_all(fd, e->footer, VHD_FOOTER_SIZE, 0);
    if (error == 0 && vhd_footer_decode(e->footer, &footer) != NULL)
        error = -EIO;
    if (error == 0)
        error = fd_pwrite_all(fd, e->footer, VHD_FOOTER_SIZE, e->end);
    if (error == 0 && (fdatasync(fd) != 0 || ftruncate(fd, e->end + VHD_FOOTER_SIZE) != 0 || fdatasync(fd) != 0))
        error = -errno;
    if (error == 0) {
        e->limit = e->end;
        e->moved = false;
    }
    return error;
}

/* --- syncs: one at a time; who comes while one runs waits for the next ------------------------------------- */
static void sync_start(struct vhd *v)
{
    struct vhd_syncs *y = &v->syncs;

    y->now = y->later;
    y->later = (struct vhd_jobs) { NULL, NULL };
    y->running = true;
    v->unsynced = false;
    y->round = v->meta.round_done;
    y->slot.op = DISK_SYNC;
    y->slot.fd = vhd_leaf(v)->fd;
    y->slot.n_iov = 0;
    y->slot.offset = y->slot.length = 0;
    y->slot.done = vhd_sync_done;
    disk_io_submit(v->io, &y->slot);
}

void vhd_sync_done(struct disk_io_op_slot *s)
{
    struct vhd *v = CONTAINER_OF(CONTAINER_OF(s, struct vhd_syncs, slot), struct vhd, syncs);
    struct vhd_syncs *y = &v->syncs;

    y->running = false;
    if (s->result != 0)
        y->broken = s->result; /* the kernel may have dropped what it could not write */
    else if (y->round > v->meta.round_synced)
        v->meta.round_synced = y->round;
    struct vhd_jobs now = y->now;
    y->now = (struct vhd_jobs) { NULL, NULL };
    if (y->later.first != NULL)
        sync_start(v);
    vhd_wake(&now, y->broken);
}

void vhd_sync(struct vhd *v, struct vhd_job *job)
{
    struct vhd_syncs *y = &v->syncs;

    if (y->broken != 0) {
        job->error = y->broken;
        vhd_job_go(job);
        return;
    }
    vhd_park(&y->later, job);
    if (!y->running)
        sync_start(v);
}
