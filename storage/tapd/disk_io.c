/* What both ways of doing I/O share: which part comes next, and what its result means. */
#include "storage/tapd/disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "storage/tapd/disk_io_backend.h"

#define ZEROS (1u << 20)
#define SECTOR 512

static const uint8_t zeros[ZEROS] __attribute__((aligned(4096)));

struct disk_io *disk_io_new(struct loop *loop, bool allow_uring)
{
    struct disk_io *d = allow_uring ? disk_io_uring_new(loop) : NULL;

    return d != NULL ? d : disk_io_threads_new(loop);
}

void disk_io_free(struct disk_io *d)
{
    if (d != NULL)
        d->ops->free(d);
}

const char *disk_io_name(const struct disk_io *d) { return d->ops->name; }
void disk_io_submit(struct disk_io *d, struct disk_io_op_slot *s) { d->ops->submit(d, s); }

void disk_io_opened(struct disk_io *d, int fd)
{
    struct statfs fs;

    if (fd >= 0 && fd < DISK_IO_FDS)
        d->in_memory[fd] = fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

void disk_io_begin(struct disk_io_op_slot *s)
{
    s->next = NULL;
    s->transferred = 0;
    s->by_writing = false;
}

int disk_io_fallocate_mode(enum disk_io_op op)
{
    return op == DISK_PUNCH ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;
}

void disk_io_part(const struct disk_io_op_slot *s, struct disk_io_part *p)
{
    int64_t left = s->length - s->transferred;

    *p = (struct disk_io_part){ .op = s->op, .iov = s->iov, .n_iov = s->n_iov, .offset = s->offset + s->transferred, .length = left };
    if (!s->by_writing)
        return;
    p->op = DISK_WRITE;
    p->length = left < ZEROS ? left : ZEROS;
    p->zeros = (struct iovec){ .iov_base = (void *)zeros, .iov_len = (size_t)p->length };
    p->iov = &p->zeros;
    p->n_iov = 1;
}

int64_t disk_io_call(const struct disk_io_op_slot *s)
{
    struct disk_io_part p;
    int64_t rc = 0;

    disk_io_part(s, &p);
    switch (p.op) {
    case DISK_READ:
        rc = preadv(s->fd, p.iov, (int)p.n_iov, p.offset);
        break;
    case DISK_WRITE:
        rc = pwritev(s->fd, p.iov, (int)p.n_iov, p.offset);
        break;
    case DISK_WRITE_FUA:
        rc = pwritev2(s->fd, p.iov, (int)p.n_iov, p.offset, RWF_DSYNC);
        break;
    case DISK_SYNC:
        rc = fdatasync(s->fd);
        break;
    case DISK_PUNCH:
    case DISK_ZERO:
        rc = fallocate(s->fd, disk_io_fallocate_mode(p.op), p.offset, p.length);
        break;
    }
    return rc < 0 ? -errno : rc;
}

static void zero_rest(const struct disk_io_op_slot *s)
{
    for (unsigned i = 0; i < s->n_iov; i++)
        memset(s->iov[i].iov_base, 0, s->iov[i].iov_len);
}

static void advance(struct disk_io_op_slot *s, int64_t n)
{
    size_t left = (size_t)n;

    s->transferred += n;
    if (s->by_writing)
        return;
    while (s->n_iov > 0 && left >= s->iov->iov_len) {
        left -= s->iov->iov_len;
        s->iov++;
        s->n_iov--;
    }
    if (left > 0) {
        CHECK(s->n_iov > 0);
        s->iov->iov_base = (uint8_t *)s->iov->iov_base + left;
        s->iov->iov_len -= left;
    }
}

static bool finish(struct disk_io_op_slot *s, int result)
{
    s->result = result;
    return true;
}

static bool moved(struct disk_io_op_slot *s, int64_t n)
{
    bool reading = s->op == DISK_READ;

    if (n == 0 && !reading)
        return finish(s, -EIO);
    if (n > 0)
        advance(s, n);
    if (s->transferred >= s->length)
        return finish(s, 0);
    /* a medium gives whole sectors but at its end */
    if (reading && (n == 0 || (s->transferred & (SECTOR - 1)) != 0)) {
        zero_rest(s);
        return finish(s, 0);
    }
    return false;
}

static bool cannot(int64_t result) { return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV || result == -EINVAL; }

bool disk_io_step(struct disk_io_op_slot *s, int64_t result)
{
    if (result == -EINTR || result == -EAGAIN)
        return false;
    if (!s->by_writing && (s->op == DISK_PUNCH || s->op == DISK_ZERO)) {
        if (!cannot(result))
            return finish(s, (int)result);
        if (s->op == DISK_PUNCH)
            return finish(s, -EOPNOTSUPP);
        s->by_writing = true;
        return s->length <= 0 && finish(s, 0);
    }
    if (result < 0 || s->op == DISK_SYNC)
        return finish(s, (int)result);
    return moved(s, result);
}
