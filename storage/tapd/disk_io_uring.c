/* One ring for the loop's thread. Operations gather during a turn and are handed to the kernel with one call
 * before the loop waits; the ring's descriptor wakes the loop when there are results. */
#include "storage/tapd/disk_io_backend.h"

#if __has_include(<liburing.h>)
#include <liburing.h>

#include <errno.h>
#include <linux/fs.h>
#include <sys/epoll.h>

#include "rpc/base/check.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"

LOG_MODULE(disk_io);

#define ENTRIES 256u
#define RESULTS 1024u /* most in the kernel at once */
#define WORKERS 16u   /* of the kernel, for what it cannot start without blocking */
#define AT_ONCE 8u    /* plain calls in a row: what they read is to be used while the cache still has it */

struct uring {
    struct disk_io io;
    struct io_uring ring;
    struct loop_fd ready;
    struct loop_idle flush;
    struct disk_io_op_slot *pending, **pending_last;
    struct disk_io_op_slot *direct, **direct_last; /* in memory: the ring would hand them to a thread */
    unsigned in_kernel;
};

static void fill(struct io_uring_sqe *sqe, struct disk_io_op_slot *s)
{
    struct disk_io_part p;

    disk_io_part(s, &p);
    switch (p.op) {
    case DISK_READ:
        if (p.n_iov == 1)
            io_uring_prep_read(sqe, s->fd, p.iov->iov_base, (unsigned)p.iov->iov_len, (uint64_t)p.offset);
        else
            io_uring_prep_readv(sqe, s->fd, p.iov, p.n_iov, (uint64_t)p.offset);
        break;
    case DISK_WRITE:
    case DISK_WRITE_FUA:
        if (p.n_iov == 1)
            io_uring_prep_write(sqe, s->fd, p.iov->iov_base, (unsigned)p.iov->iov_len, (uint64_t)p.offset);
        else
            io_uring_prep_writev(sqe, s->fd, p.iov, p.n_iov, (uint64_t)p.offset);
        if (p.op == DISK_WRITE_FUA)
            sqe->rw_flags = RWF_DSYNC;
        break;
    case DISK_SYNC:
        io_uring_prep_fsync(sqe, s->fd, IORING_FSYNC_DATASYNC);
        break;
    case DISK_PUNCH:
    case DISK_ZERO:
        io_uring_prep_fallocate(sqe, s->fd, disk_io_fallocate_mode(p.op), p.offset, p.length);
        break;
    }
    io_uring_sqe_set_data(sqe, s);
}

static void queue(struct uring *u, struct disk_io_op_slot *s)
{
    s->next = NULL;
    *u->pending_last = s;
    u->pending_last = &s->next;
    loop_later(u->io.loop, &u->flush);
}

static void submit(struct disk_io *io, struct disk_io_op_slot *s)
{
    struct uring *u = CONTAINER_OF(io, struct uring, io);

    disk_io_begin(s);
    if (s->fd < 0 || s->fd >= DISK_IO_FDS || !io->in_memory[s->fd]) {
        queue(u, s);
        return;
    }
    *u->direct_last = s;
    u->direct_last = &s->next;
    loop_later(io->loop, &u->flush);
}

static void run_direct(struct uring *u)
{
    for (unsigned n = 0; u->direct != NULL && n < AT_ONCE; n++) {
        struct disk_io_op_slot *s = u->direct;
        u->direct = s->next;
        if (u->direct == NULL)
            u->direct_last = &u->direct;
        while (!disk_io_step(s, disk_io_call(s)))
            ;
        s->done(s);
    }
    if (u->direct != NULL)
        loop_later(u->io.loop, &u->flush);
}

static void reap(struct uring *u)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        struct disk_io_op_slot *s = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        u->in_kernel--;
        if (disk_io_step(s, result))
            s->done(s);
        else
            queue(u, s);
    }
}

static void hand_over(struct uring *u)
{
    int n = io_uring_submit(&u->ring);

    /* EBUSY, EAGAIN: the kernel is short of something; what is in the ring stays there for the next turn */
    if (n < 0) {
        CHECK(n == -EBUSY || n == -EAGAIN || n == -EINTR);
        loop_later(u->io.loop, &u->flush);
    }
}

static void flush(struct loop_idle *i)
{
    struct uring *u = CONTAINER_OF(i, struct uring, flush);

    run_direct(u);
    if (u->pending == NULL && u->in_kernel == 0)
        return;
    while (u->pending != NULL && u->in_kernel < RESULTS) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        if (sqe == NULL)
            break;
        struct disk_io_op_slot *s = u->pending;
        u->pending = s->next;
        if (u->pending == NULL)
            u->pending_last = &u->pending;
        fill(sqe, s);
        u->in_kernel++;
    }
    hand_over(u);
    reap(u); /* what the page cache answered at once */
    if (u->pending != NULL && u->in_kernel < RESULTS)
        loop_later(u->io.loop, &u->flush);
}

static void ready(struct loop_fd *f, uint32_t events)
{
    struct uring *u = CONTAINER_OF(f, struct uring, ready);

    io_uring_get_events(&u->ring);
    reap(u);
    if (u->pending != NULL)
        loop_later(u->io.loop, &u->flush);
}

static void uring_free(struct disk_io *io)
{
    struct uring *u = CONTAINER_OF(io, struct uring, io);

    CHECK(u->in_kernel == 0 && u->pending == NULL && u->direct == NULL);
    loop_not_later(io->loop, &u->flush);
    loop_remove(io->loop, &u->ready);
    io_uring_queue_exit(&u->ring);
    xfree(u);
}

static const struct disk_io_ops uring_ops = { .name = "io_uring", .submit = submit, .free = uring_free };

/* With what newer kernels offer to a single thread; then without. (Not DEFER_TASKRUN: results that wait to be
 * asked for do not wake who polls the ring's descriptor.) */
static int ring_open(struct io_uring *ring)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        0,
    };
    int rc = -ENOSYS;

    for (unsigned i = 0; i < ARRAY_LEN(flags); i++) {
        struct io_uring_params params = { .flags = flags[i] | IORING_SETUP_CQSIZE, .cq_entries = RESULTS };
        rc = io_uring_queue_init_params(ENTRIES, ring, &params);
        if (rc == 0 && (params.features & (IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE)) == (IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE))
            return 0;
        if (rc == 0) {
            io_uring_queue_exit(ring);
            return -ENOSYS;
        }
    }
    return rc;
}

struct disk_io *disk_io_uring_new(struct loop *loop)
{
    unsigned workers[2] = { WORKERS, WORKERS };
    struct uring *u = xcalloc(1, sizeof(*u));
    int rc = ring_open(&u->ring);

    if (rc < 0) {
        log_info("no io_uring here (error %d): threads do the I/O", -rc);
        xfree(u);
        return NULL;
    }
    io_uring_register_iowq_max_workers(&u->ring, workers);
    u->io = (struct disk_io){ .ops = &uring_ops, .loop = loop };
    u->pending_last = &u->pending;
    u->direct_last = &u->direct;
    u->flush.run = flush;
    u->ready = (struct loop_fd){ .fd = u->ring.ring_fd, .ready = ready, .events = EPOLLIN };
    loop_add(loop, &u->ready);
    return &u->io;
}

#else
struct disk_io *disk_io_uring_new(struct loop *loop) { return NULL; }
#endif
