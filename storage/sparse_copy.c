#include "storage/sparse_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

#define PIECE ((int64_t)4 << 20)

struct copy {
    struct call *c;
    int from, to;
    int64_t size;
    bool by_hand;   /* copy_file_range does not work here */
    char *buffer;   /* PIECE bytes, once needed */
};

static struct error *io_failed(struct call *c, const char *what, int error)
{
    return err_sr_backend_failure(c->arena, "5", "", arena_printf(c->arena, "%s: %s", what, strerror(-error)));
}

static bool all_zero(const char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static struct error *copy_by_hand(struct copy *copy, int64_t at, int64_t n)
{
    int error;

    if (copy->buffer == NULL)
        copy->buffer = xcalloc(1, PIECE);
    error = fd_pread_all(copy->from, copy->buffer, (size_t)n, at);
    if (error != 0)
        return io_failed(copy->c, "reading the source image", error);
    if (all_zero(copy->buffer, (size_t)n))
        return NULL;
    error = fd_pwrite_all(copy->to, copy->buffer, (size_t)n, at);
    return error == 0 ? NULL : io_failed(copy->c, "writing the copy", error);
}

static struct error *copy_piece(struct copy *copy, int64_t at, int64_t n)
{
    while (n > 0 && !copy->by_hand) {
        off64_t in = at, out = at;
        ssize_t done = copy_file_range(copy->from, &in, copy->to, &out, (size_t)n, 0);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
            return io_failed(copy->c, "copying an image", -errno);
        if (done <= 0)
            copy->by_hand = true;
        else {
            at += done;
            n -= done;
        }
    }
    return n > 0 ? copy_by_hand(copy, at, n) : NULL;
}

/* The next stretch of data at or behind 'at'; false when the rest is a hole. */
static bool next_data(struct copy *copy, int64_t at, int64_t *start_r, int64_t *end_r)
{
    off_t start = lseek(copy->from, at, SEEK_DATA), end;

    if (start < 0 && errno == ENXIO)
        return false;
    if (start < 0) { /* the filesystem cannot tell: everything is data */
        start = at;
        end = copy->size;
    } else
        end = lseek(copy->from, start, SEEK_HOLE);
    *start_r = start;
    *end_r = end < 0 || end > copy->size ? copy->size : end;
    return start < copy->size;
}

static struct error *copy_stretches(struct copy *copy)
{
    int64_t at = 0, end;

    while (at < copy->size && next_data(copy, at, &at, &end)) {
        while (at < end) {
            int64_t n = end - at < PIECE ? end - at : PIECE;

            if (call_cancelled(copy->c))
                return error_make(copy->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
            TRY(copy_piece(copy, at, n));
            at += n;
            call_progress(copy->c, (double)at / (double)copy->size);
        }
    }
    return NULL;
}

/* --- is it equal? ------------------------------------------------------------------------------------ */
/* From the medium, not from what the cache still holds of our own writes. */
static void forget_cached(int fd, int64_t at, int64_t n) { (void)posix_fadvise(fd, at, n, POSIX_FADV_DONTNEED); }

static struct error *piece_equal(struct copy *copy, char *other, int64_t at, int64_t n)
{
    int error;

    forget_cached(copy->from, at, n);
    forget_cached(copy->to, at, n);
    error = fd_pread_all(copy->from, copy->buffer, (size_t)n, at);
    if (error == 0)
        error = fd_pread_all(copy->to, other, (size_t)n, at);
    if (error != 0)
        return io_failed(copy->c, "reading the copy back", error);
    if (memcmp(copy->buffer, other, (size_t)n) != 0)
        return io_failed(copy->c, arena_printf(copy->c->arena, "the copy differs from its source at %lld", (long long)at), -EIO);
    return NULL;
}

static struct error *range_equal(struct copy *copy, char *other, int64_t at, int64_t end)
{
    while (at < end) {
        int64_t n = end - at < PIECE ? end - at : PIECE;

        if (call_cancelled(copy->c))
            return error_make(copy->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        TRY(piece_equal(copy, other, at, n));
        at += n;
    }
    return NULL;
}

static struct error *source_data_equal(struct copy *copy, char *other)
{
    int64_t at = 0, end;

    for (; at < copy->size && next_data(copy, at, &at, &end); at = end)
        TRY(range_equal(copy, other, at, end));
    return NULL;
}

/* What the copy has where the source has a hole must be zeros. */
static struct error *source_holes_equal(struct copy *copy, char *other)
{
    struct copy turned = { .from = copy->to, .size = copy->size };
    int64_t at = 0, end = 0, data, data_end;

    while (at < copy->size && (at < end || next_data(&turned, at, &at, &end))) {
        if (!next_data(copy, at, &data, &data_end))
            data = data_end = copy->size;
        if (data > at)
            TRY(range_equal(copy, other, at, data < end ? data : end));
        at = data > at ? (data < end ? data : end) : (data_end < end ? data_end : end);
    }
    return NULL;
}

static struct error *prove(struct copy *copy)
{
    char *other = xcalloc(1, PIECE);
    struct error *error;

    if (copy->buffer == NULL)
        copy->buffer = xcalloc(1, PIECE);
    error = source_data_equal(copy, other);
    if (error == NULL)
        error = source_holes_equal(copy, other);
    xfree(other);
    return error;
}

static bool share(struct copy *copy)
{
    struct stat from, to;

    return fstat(copy->from, &from) == 0 && fstat(copy->to, &to) == 0 && from.st_size == copy->size && to.st_size == copy->size &&
           S_ISREG(from.st_mode) && S_ISREG(to.st_mode) && ioctl(copy->to, FICLONE, copy->from) == 0;
}

struct error *sparse_copy(struct call *c, int from_fd, int to_fd, int64_t size)
{
    struct copy copy = { .c = c, .from = from_fd, .to = to_fd, .size = size };
    bool shared = share(&copy);
    struct error *error = NULL;

    if (shared)
        call_progress(c, 1.0);
    else
        error = copy_stretches(&copy);
    if (error == NULL && fsync(to_fd) != 0)
        error = io_failed(c, "fsync of the copy", -errno);
    if (error == NULL && !shared)
        error = prove(&copy);
    xfree(copy.buffer);
    return error;
}

struct error *sparse_copy_path(struct call *c, const char *from, const char *to, int64_t size)
{
    AUTO_FD in = open(from, O_RDONLY | O_CLOEXEC);
    AUTO_FD out = -1;

    if (in < 0)
        return io_failed(c, arena_printf(c->arena, "opening %s", from), -errno);
    out = open(to, O_RDWR | O_CLOEXEC);
    if (out < 0)
        return io_failed(c, arena_printf(c->arena, "opening %s", to), -errno);
    return sparse_copy(c, in, out, size);
}
