#include "storage/tapd/raw_medium.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

LOG_MODULE(raw);

#define SECTOR 512
#define SEGMENTS "segments:"
#define SEGMENTS_MAX 65536u

static struct error *fail(struct arena *a, const char *path, const char *what, int rc)
{
    return err_sr_backend_failure(a, "tapd", "", rc == 0 ? arena_printf(a, "%s: %s", path, what) : arena_printf(a, "%s: %s: %s", path, what, strerror(-rc)));
}

static bool is_readable(int fd)
{
    static uint8_t sector[SECTOR] __attribute__((aligned(4096)));
    ssize_t n;

    do
        n = pread(fd, sector, SECTOR, SECTOR);
    while (n < 0 && errno == EINTR);
    return n >= 0;
}

/* O_DIRECT where the medium takes it in sectors of 512 bytes, else through the page cache. The descriptor or -errno. */
static int open_path(const char *path, bool read_only, bool cached)
{
    int flags = read_only ? O_RDONLY : O_RDWR;
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return -EINVAL; /* and a pipe would block here */
    if (!cached) {
        AUTO_FD direct = open(path, flags | O_DIRECT | O_CLOEXEC);
        if (direct >= 0 && is_readable(direct))
            return fd_steal(&direct);
        if (direct < 0 && errno != EINVAL)
            return -errno;
        log_info("%s cannot be opened uncached: the page cache is used", path);
    }
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static struct error *device_add(struct arena *a, struct raw_medium *m, const struct block_open *o, const char *path, unsigned *index_r)
{
    struct stat st;

    for (unsigned i = 0; i < m->n_devices; i++)
        if (strcmp(m->devices[i].path, path) == 0) {
            *index_r = i;
            return NULL;
        }
    int fd = open_path(path, o->read_only, o->cached);
    if (fd < 0)
        return fail(a, path, "cannot be opened", fd);
    disk_io_opened(o->io, fd);
    if (fstat(fd, &st) < 0) {
        int rc = -errno;
        fd_close(&fd);
        return fail(a, path, "cannot be opened", rc);
    }
    m->devices = xrealloc(m->devices, (m->n_devices + 1) * sizeof(*m->devices));
    m->devices[m->n_devices] = (struct raw_device){ .path = xstrdup(path), .fd = fd, .is_file = S_ISREG(st.st_mode) };
    *index_r = m->n_devices++;
    return NULL;
}

static void segment_add(struct raw_medium *m, unsigned device, int64_t offset, int64_t length)
{
    m->segments = xrealloc(m->segments, (m->n_segments + 1) * sizeof(*m->segments));
    m->segments[m->n_segments++] = (struct raw_segment){ .device = device, .start = m->size, .offset = offset, .length = length };
    m->size += length;
}

static int64_t device_size(const struct raw_device *d)
{
    struct stat st;
    uint64_t size;

    if (d->is_file)
        return fstat(d->fd, &st) < 0 ? -errno : st.st_size;
    return ioctl(d->fd, BLKGETSIZE64, &size) < 0 ? -errno : (int64_t)(size & ~(uint64_t)(SECTOR - 1));
}

int64_t raw_medium_size(const struct raw_medium *m)
{
    if (m->n_segments > 1 || m->segments[0].offset != 0)
        return -EOPNOTSUPP;
    return device_size(&m->devices[0]);
}

/* "DEVICE@OFFSET+LENGTH" */
static bool split(struct arena *a, const char *text, const char **path_r, int64_t *offset_r, int64_t *length_r)
{
    const char *at = strrchr(text, '@'), *plus = at != NULL ? strchr(at, '+') : NULL;

    if (plus == NULL || at == text)
        return false;
    *path_r = arena_strndup(a, text, (size_t)(at - text));
    return text_to_int(arena_strndup(a, at + 1, (size_t)(plus - at - 1)), offset_r) && text_to_int(plus + 1, length_r);
}

static struct error *open_segment(struct arena *a, struct raw_medium *m, const struct block_open *o, const char *text)
{
    const char *path;
    int64_t offset, length;
    unsigned device;

    if (m->n_segments == SEGMENTS_MAX || !split(a, text, &path, &offset, &length) || offset < 0 || length <= 0 || ((offset | length) & (SECTOR - 1)) != 0 ||
        length > INT64_MAX - m->size)
        return fail(a, o->path, "is no map of segments", 0);
    TRY(device_add(a, m, o, path, &device));
    int64_t size = device_size(&m->devices[device]);
    if (size < 0)
        return fail(a, path, "its size cannot be read", (int)size);
    if (offset > size || length > size - offset)
        return fail(a, path, "is smaller than the map of segments says", 0);
    segment_add(m, device, offset, length);
    return NULL;
}

static struct error *open_segments(struct arena *a, struct raw_medium *m, const struct block_open *o)
{
    const char *at = o->path + strlen(SEGMENTS);

    for (;;) {
        size_t len = strcspn(at, ";");
        if (len > 0 || m->n_segments == 0)
            TRY(open_segment(a, m, o, arena_strndup(a, at, len)));
        if (at[len] == '\0')
            return NULL;
        at += len + 1;
    }
}

static struct error *open_whole(struct arena *a, struct raw_medium *m, const struct block_open *o)
{
    unsigned device;

    TRY(device_add(a, m, o, o->path, &device));
    const struct raw_device *d = &m->devices[device];
    int64_t size = device_size(d);
    if (size < 0)
        return fail(a, o->path, "its size cannot be read", (int)size);
    int64_t whole = (size + SECTOR - 1) & ~(int64_t)(SECTOR - 1);
    if (whole != size && !o->read_only && ftruncate(d->fd, whole) < 0)
        return fail(a, o->path, "cannot be rounded up to whole sectors", -errno);
    segment_add(m, device, 0, whole);
    return NULL;
}

static struct error *open_and_lock(struct arena *a, const struct block_open *o, struct raw_medium *m)
{
    TRY(strncmp(o->path, SEGMENTS, strlen(SEGMENTS)) == 0 ? open_segments(a, m, o) : open_whole(a, m, o));
    const struct raw_segment *first = &m->segments[0];
    int rc = o->parent ? 0 : leaf_lock(m->devices[first->device].fd, first->offset, !o->read_only);
    if (rc == -EBUSY)
        return fail(a, o->path, "is in use by another process", 0);
    return rc < 0 ? fail(a, o->path, "cannot be locked", rc) : NULL;
}

struct error *raw_medium_open(struct arena *a, const struct block_open *o, struct raw_medium *m)
{
    *m = (struct raw_medium){ 0 };
    struct error *e = open_and_lock(a, o, m);
    if (e != NULL)
        raw_medium_close(m);
    return e;
}

void raw_medium_close(struct raw_medium *m)
{
    for (unsigned i = 0; i < m->n_devices; i++) {
        fd_close(&m->devices[i].fd);
        xfree(m->devices[i].path);
    }
    xfree(m->devices);
    xfree(m->segments);
    *m = (struct raw_medium){ 0 };
}

const struct raw_segment *raw_medium_find(const struct raw_medium *m, int64_t offset)
{
    unsigned low = 0, high = m->n_segments;

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (m->segments[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &m->segments[low];
}
