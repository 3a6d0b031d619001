#include "storage/image/cbt_log.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/arena.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

#define HEADER_SIZE 4096
#define VERSION 1u
#define LOCK_TRIES 50
#define LOCK_STEP_MS 20

enum state { STATE_OPEN = 0, STATE_CONSISTENT = 1, STATE_LOST = 2 };

struct header {
    char magic[8];
    uint32_t version, granularity;
    int64_t size;
    uint32_t state, zero;
    char parent[40], child[40], boot[40];
} __attribute__((packed));

struct cbt_log {
    int fd;
    struct header header; /* as on the medium */
    uint8_t *bitmap;
    size_t len;
};

static const char magic[8] = { 'X', 'A', 'P', 'I', 'C', 'B', 'T', '1' };

static int64_t size_of(const struct header *h) { return (int64_t)le64toh((uint64_t)h->size); }

/* --- the header ---------------------------------------------------------------------------------------- */

/* This boot of this machine. "" when it cannot be told: then nothing open is believed. */
static void boot_id(char boot[40])
{
    AUTO_ARENA a = arena_new();
    char *text;
    size_t len;

    memset(boot, 0, 40);
    if (file_read(a, "/proc/sys/kernel/random/boot_id", 100, &text, &len) == 0 && len >= 36)
        memcpy(boot, text, 36);
}

static bool is_uuid_or_empty(const char text[40])
{
    size_t n = strnlen(text, 40);
    return n == 0 || (n == 36 && strspn(text, "0123456789abcdefABCDEF-") == 36);
}

static bool header_good(const struct header *h)
{
    int64_t size = size_of(h);
    return memcmp(h->magic, magic, sizeof magic) == 0 && le32toh(h->version) == VERSION && le32toh(h->granularity) == CBT_BLOCK && size >= 0 &&
           size <= CBT_SIZE_MAX && le32toh(h->state) <= STATE_LOST && is_uuid_or_empty(h->parent) && is_uuid_or_empty(h->child) &&
           is_uuid_or_empty(h->boot);
}

static int header_read(int fd, struct header *h)
{
    struct stat st;
    int r = fd_pread_all(fd, h, sizeof *h, 0);

    if (r < 0)
        return r == -EPIPE ? -EBADMSG : r;
    if (fstat(fd, &st) != 0)
        return -errno;
    return header_good(h) && st.st_size >= HEADER_SIZE + (int64_t)cbt_bitmap_size(size_of(h)) ? 0 : -EBADMSG;
}

static int header_write(int fd, const struct header *h)
{
    int r = fd_pwrite_all(fd, h, sizeof *h, 0);
    if (r == 0 && fdatasync(fd) != 0)
        r = -errno;
    return r;
}

static bool believed(const struct header *h)
{
    char boot[40];

    if (le32toh(h->state) != STATE_OPEN)
        return le32toh(h->state) == STATE_CONSISTENT;
    boot_id(boot);
    return boot[0] != '\0' && memcmp(boot, h->boot, sizeof boot) == 0;
}

static int set_uuid(char to[40], const char *uuid)
{
    size_t n = strlen(uuid);

    if (n != 0 && n != 36)
        return -EINVAL;
    memset(to, 0, 40);
    memcpy(to, uuid, n);
    return is_uuid_or_empty(to) ? 0 : -EINVAL;
}

static int open_header(const char *path, int flags, int *fd_r, struct header *h)
{
    AUTO_FD fd = open(path, flags | O_CLOEXEC);
    int r;

    if (fd < 0)
        return -errno;
    r = header_read(fd, h);
    if (r == 0)
        *fd_r = fd_steal(&fd);
    return r;
}

/* --- making and looking -------------------------------------------------------------------------------- */

static int dir_sync_of(const char *path)
{
    AUTO_ARENA a = arena_new();
    const char *slash = strrchr(path, '/');
    return dir_sync(slash == NULL ? "." : slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path)));
}

/* Space for all of it now: setting a bit must not fail for want of it. */
static int fill_new(int fd, const struct header *h)
{
    int r = -posix_fallocate(fd, 0, HEADER_SIZE + (off_t)cbt_bitmap_size(size_of(h)));

    if (r == 0)
        r = fd_pwrite_all(fd, h, sizeof *h, 0);
    if (r == 0 && fsync(fd) != 0)
        r = -errno;
    return r;
}

int cbt_log_create(const char *path, int64_t size, const char *parent, const char *child)
{
    struct header h = { .version = htole32(VERSION), .granularity = htole32(CBT_BLOCK), .size = (int64_t)htole64((uint64_t)size), .state = htole32(STATE_CONSISTENT) };
    AUTO_FD fd = -1;
    int r;

    memcpy(h.magic, magic, sizeof magic);
    if (size < 0 || size > CBT_SIZE_MAX || set_uuid(h.parent, parent) < 0 || set_uuid(h.child, child) < 0)
        return -EINVAL;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    r = fill_new(fd, &h);
    if (r == 0)
        r = dir_sync_of(path);
    if (r < 0)
        unlink(path);
    return r;
}

int cbt_log_info(const char *path, struct cbt_log_info *info)
{
    struct header h;
    AUTO_FD fd = -1;
    int r = open_header(path, O_RDONLY, &fd, &h);

    if (r < 0)
        return r;
    *info = (struct cbt_log_info) { .size = size_of(&h), .believed = believed(&h) };
    memcpy(info->parent, h.parent, 36);
    memcpy(info->child, h.child, 36);
    return 0;
}

/* One that was just killed may hold it for a moment. */
static int lock(int fd)
{
    for (int i = 0;; i++) {
        struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
        if (fcntl(fd, F_OFD_SETLK, &l) == 0)
            return 0;
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return -errno;
        if (i == LOCK_TRIES)
            return -EBUSY;
        poll(NULL, 0, LOCK_STEP_MS);
    }
}

int cbt_log_link(const char *path, const char *parent, const char *child)
{
    struct header h;
    AUTO_FD fd = -1;
    int r = open_header(path, O_RDWR, &fd, &h);

    if (r == 0)
        r = lock(fd);
    if (r == 0 && parent != NULL)
        r = set_uuid(h.parent, parent);
    if (r == 0 && child != NULL)
        r = set_uuid(h.child, child);
    return r < 0 ? r : header_write(fd, &h);
}

int cbt_log_or(const char *path, uint8_t *bitmap, size_t len)
{
    struct header h;
    AUTO_FD fd = -1;
    uint8_t piece[65536];
    size_t at = 0;
    int r = open_header(path, O_RDONLY, &fd, &h);

    if (r == 0 && !believed(&h))
        r = -ESTALE;
    if (r == 0 && cbt_bitmap_size(size_of(&h)) < len)
        len = cbt_bitmap_size(size_of(&h));
    while (r == 0 && at < len) {
        size_t n = len - at < sizeof piece ? len - at : sizeof piece;
        r = fd_pread_all(fd, piece, n, HEADER_SIZE + (int64_t)at);
        for (size_t i = 0; r == 0 && i < n; i++)
            bitmap[at + i] |= piece[i];
        at += n;
    }
    return r;
}

/* --- setting bits ---------------------------------------------------------------------------------------- */

/* Reads the bitmap; the state on the medium becomes open, by this boot. */
static int begin(struct cbt_log *log)
{
    int r;

    log->len = cbt_bitmap_size(size_of(&log->header));
    log->bitmap = xcalloc(1, log->len + 1);
    r = fd_pread_all(log->fd, log->bitmap, log->len, HEADER_SIZE);
    if (r < 0)
        return r == -EPIPE ? -EBADMSG : r;
    log->header.state = htole32(believed(&log->header) ? STATE_OPEN : STATE_LOST);
    boot_id(log->header.boot);
    return header_write(log->fd, &log->header);
}

static void release(struct cbt_log *log)
{
    fd_close(&log->fd);
    xfree(log->bitmap);
    xfree(log);
}

int cbt_log_open(const char *path, struct cbt_log **log_r)
{
    struct cbt_log *log = xcalloc(1, sizeof *log);
    int r;

    log->fd = -1;
    r = open_header(path, O_RDWR, &log->fd, &log->header);
    if (r == 0)
        r = lock(log->fd);
    if (r == 0)
        r = header_read(log->fd, &log->header); /* as it is under the lock */
    if (r == 0)
        r = begin(log);
    if (r < 0) {
        release(log);
        return r;
    }
    *log_r = log;
    return 0;
}

int64_t cbt_log_size(const struct cbt_log *log) { return size_of(&log->header); }

/* Bits could not be written: what is on the medium is no longer the truth. */
static int lose(struct cbt_log *log)
{
    log->header.state = htole32(STATE_LOST);
    return header_write(log->fd, &log->header);
}

/* Sets the bits first…last in memory; the bytes that changed are *from_r … *to_r. False: none. */
static bool set_bits(struct cbt_log *log, int64_t first, int64_t last, size_t *from_r, size_t *to_r)
{
    bool changed = false;

    for (int64_t i = first; i <= last; i++) {
        uint8_t bit = (uint8_t)(0x80u >> (i & 7));
        size_t at = (size_t)(i >> 3);
        if ((log->bitmap[at] & bit) != 0)
            continue;
        log->bitmap[at] |= bit;
        if (!changed)
            *from_r = at;
        *to_r = at;
        changed = true;
    }
    return changed;
}

int cbt_log_mark(struct cbt_log *log, int64_t offset, int64_t length)
{
    int64_t first = offset / CBT_BLOCK, last = (offset + length - 1) / CBT_BLOCK;
    size_t from = 0, to = 0;
    int r;

    if (length <= 0 || offset < 0 || offset + length > cbt_log_size(log))
        return length == 0 ? 0 : -EINVAL;
    if (!set_bits(log, first, last, &from, &to))
        return 0;
    r = fd_pwrite_all(log->fd, log->bitmap + from, to - from + 1, HEADER_SIZE + (int64_t)from);
    return r < 0 ? lose(log) : 0;
}

int64_t cbt_log_run(const struct cbt_log *log, int64_t offset, int64_t end, bool *changed_r)
{
    int64_t i = offset / CBT_BLOCK, n = (end + CBT_BLOCK - 1) / CBT_BLOCK, to;
    bool kind = (log->bitmap[i >> 3] & (0x80u >> (i & 7))) != 0;

    while (i < n && ((log->bitmap[i >> 3] & (0x80u >> (i & 7))) != 0) == kind)
        i += (i & 7) == 0 && i + 8 <= n && log->bitmap[i >> 3] == (kind ? 0xff : 0) ? 8 : 1;
    *changed_r = kind;
    to = i * CBT_BLOCK;
    return to < end ? to : end;
}

int cbt_log_grow(struct cbt_log *log, int64_t size)
{
    int64_t old = cbt_log_size(log);
    size_t len = cbt_bitmap_size(size);
    int r;

    if (size < old || size > CBT_SIZE_MAX)
        return -EINVAL;
    if (size == old)
        return 0;
    r = -posix_fallocate(log->fd, 0, HEADER_SIZE + (off_t)len);
    if (r < 0)
        return r;
    log->bitmap = xrealloc(log->bitmap, len + 1);
    memset(log->bitmap + log->len, 0, len + 1 - log->len);
    log->len = len;
    log->header.size = (int64_t)htole64((uint64_t)size);
    r = cbt_log_mark(log, old, size - old); /* before the size is there for others to see */
    return r < 0 ? r : header_write(log->fd, &log->header);
}

int cbt_log_close(struct cbt_log *log)
{
    int r = 0;

    if (log == NULL)
        return 0;
    if (le32toh(log->header.state) == STATE_OPEN) {
        r = fdatasync(log->fd) == 0 ? 0 : -errno;
        log->header.state = htole32(STATE_CONSISTENT);
        if (r == 0)
            r = header_write(log->fd, &log->header);
    }
    release(log);
    return r;
}

int cbt_log_resize(const char *path, int64_t size)
{
    struct cbt_log *log;
    int r = cbt_log_open(path, &log), closed;

    if (r < 0)
        return r;
    r = cbt_log_grow(log, size);
    closed = cbt_log_close(log);
    return r < 0 ? r : closed;
}
