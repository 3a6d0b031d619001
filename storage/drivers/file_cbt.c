#include "storage/drivers/file_cbt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/image/cbt_log.h"

LOG_MODULE(cbt);

#define GHOST_SUFFIX ".cbtghost"

const char *file_cbt_path(struct call *c, const char *dir, const char *location)
{
    return arena_printf(c->arena, "%s/%s" LOG_SUFFIX, dir, location);
}

bool file_cbt_exists(struct call *c, const char *dir, const char *location)
{
    return image_exists(file_cbt_path(c, dir, location), NULL);
}

static const char *ghost_path(struct call *c, const char *dir, const char *location)
{
    return arena_printf(c->arena, "%s/%s" GHOST_SUFFIX, dir, location);
}

const char *file_cbt_log_of(struct call *c, const char *dir, const char *location)
{
    const char *path = file_cbt_path(c, dir, location);

    if (image_exists(path, NULL))
        return path;
    path = ghost_path(c, dir, location);
    return image_exists(path, NULL) ? path : NULL;
}

static struct error *failed(struct call *c, const char *what, const char *path, int error)
{
    return error == 0 ? NULL : driver_failed(c, what, path, -error);
}

static struct error *unlinked(struct call *c, const char *path)
{
    return unlink(path) == 0 || errno == ENOENT ? NULL : driver_failed(c, "removing", path, errno);
}

/* --- all of them ---------------------------------------------------------------------------------- */
struct log { const char *location, *path; bool ghost; struct cbt_log_info info; };
struct logs { const char *dir; struct log *logs; unsigned n, cap; };

static const char *location_of(struct call *c, const char *name, const char *suffix)
{
    const char *location;

    if (strlen(name) != UUID_LEN + strlen(suffix) || strcmp(name + UUID_LEN, suffix) != 0)
        return NULL;
    location = arena_strndup(c->arena, name, UUID_LEN);
    return uuid_valid(location) ? location : NULL;
}

static struct error *logs_add(struct call *c, const char *name, void *ctx)
{
    struct logs *l = ctx;
    struct log log = { .location = location_of(c, name, LOG_SUFFIX) };
    int error;

    if (log.location == NULL) {
        log.location = location_of(c, name, GHOST_SUFFIX);
        log.ghost = true;
    }
    if (log.location == NULL)
        return NULL;
    log.path = image_path(c, l->dir, name);
    error = cbt_log_info(log.path, &log.info);
    if (error == -ENOENT)
        return NULL;
    if (error != 0)
        log_warn("%s is no log: %s", log.path, strerror(-error));
    if (l->n == l->cap) {
        struct log *more = arena_calloc(c->arena, l->cap == 0 ? 16 : 2 * l->cap, sizeof(*more));

        if (l->n > 0)
            memcpy(more, l->logs, l->n * sizeof(*more));
        l->logs = more;
        l->cap = l->cap == 0 ? 16 : 2 * l->cap;
    }
    l->logs[l->n++] = log;
    return NULL;
}

static struct error *logs_read(struct call *c, const char *dir, struct logs *l)
{
    *l = (struct logs) { .dir = dir };
    return dir_each(c, dir, logs_add, l);
}

struct error *file_cbt_list(struct call *c, const char *dir, const char ***locations_r, unsigned *n_r)
{
    struct logs l;

    TRY(logs_read(c, dir, &l));
    *locations_r = arena_calloc(c->arena, l.n + 1, sizeof(**locations_r));
    *n_r = 0;
    for (unsigned i = 0; i < l.n; i++)
        if (!l.logs[i].ghost)
            (*locations_r)[(*n_r)++] = l.logs[i].location;
    return NULL;
}

struct error *file_cbt_stat(struct call *c, const char *dir, const char *location, struct vdi_stat *vdi)
{
    struct cbt_log_info info;
    const char *path = file_cbt_path(c, dir, location);

    TRY(failed(c, "reading the log", path, cbt_log_info(path, &info)));
    *vdi = (struct vdi_stat) {
        .location = arena_strdup(c->arena, location),
        .uuid = arena_strdup(c->arena, location),
        .name = "",
        .format = "cbt",
        .virtual_size = info.size,
        .is_a_snapshot = true,
        .parent = "",
        .cbt_metadata = true,
        .cbt_enabled = true,
    };
    return NULL;
}

/* --- logs of VDIs that are gone -------------------------------------------------------------------------- */
static bool is_open(const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);

    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* Marks in an open log what the bitmap has set. */
static int mark_all(struct cbt_log *log, const uint8_t *bitmap, size_t len)
{
    int64_t size = cbt_log_size(log), n = (size + CBT_BLOCK - 1) / CBT_BLOCK;
    int error = 0;

    for (int64_t i = 0; i < n && i < (int64_t)len * 8 && error == 0; i++) {
        int64_t at = i * CBT_BLOCK;

        if ((bitmap[i >> 3] & (0x80u >> (i & 7))) != 0)
            error = cbt_log_mark(log, at, size - at < CBT_BLOCK ? size - at : CBT_BLOCK);
    }
    return error;
}

/* What 'from' says is said by 'to' as well; of one that is not believed, everything. */
static int add(struct call *c, const char *from, const char *to)
{
    struct cbt_log_info info;
    struct cbt_log *log;
    uint8_t *bitmap;
    size_t len;
    int error = cbt_log_info(to, &info), closed;

    if (error != 0)
        return error;
    len = cbt_bitmap_size(info.size);
    bitmap = arena_alloc(c->arena, len + 1);
    error = cbt_log_or(from, bitmap, len);
    if (error == -ESTALE || error == -EBADMSG)
        memset(bitmap, 0xff, len);
    else if (error != 0)
        return error;
    error = cbt_log_open(to, &log);
    if (error != 0)
        return error;
    error = mark_all(log, bitmap, len);
    closed = cbt_log_close(log);
    return error != 0 ? error : closed;
}

struct error *file_cbt_add(struct call *c, const char *dir, const char *from, const char *to)
{
    const char *path = file_cbt_path(c, dir, to);

    return failed(c, "joining the logs of changed blocks:", path, add(c, file_cbt_path(c, dir, from), path));
}

/* The ghost goes into the log after it, which then follows what the ghost followed. */
static int join(struct call *c, const struct log *ghost, const struct log *after)
{
    int error = add(c, ghost->path, after->path);

    return error != 0 ? error : cbt_log_link(after->path, ghost->info.parent, NULL);
}

/* True when a ghost went. */
static struct error *ghost_tidy(struct call *c, const struct logs *l, const struct log *ghost, bool *gone_r)
{
    for (unsigned i = 0; i < l->n; i++) {
        const struct log *after = &l->logs[i];
        int error;

        if (strcmp(after->info.parent, ghost->location) != 0)
            continue;
        if (is_open(after->path))
            return NULL;
        TRY(driver_step(c, "file", "cbt", "join"));
        error = join(c, ghost, after);
        if (error == -EBUSY)
            return NULL;
        TRY(failed(c, "joining the logs of changed blocks:", after->path, error));
    }
    *gone_r = true;
    TRY(driver_step(c, "file", "cbt", "unlink"));
    return unlinked(c, ghost->path);
}

struct error *file_cbt_tidy(struct call *c, const char *dir)
{
    bool again = true;

    while (again) {
        struct logs l;

        again = false;
        TRY(logs_read(c, dir, &l));
        for (unsigned i = 0; i < l.n && !again; i++)
            if (l.logs[i].ghost)
                TRY(ghost_tidy(c, &l, &l.logs[i], &again));
    }
    return NULL;
}

struct error *file_cbt_remove(struct call *c, const char *dir, const char *location)
{
    const char *path = file_cbt_path(c, dir, location);

    if (!image_exists(path, NULL))
        return NULL;
    TRY(driver_step(c, "file", "cbt", "remove"));
    if (rename(path, ghost_path(c, dir, location)) != 0)
        return driver_failed(c, "renaming", path, errno);
    TRY(file_cbt_tidy(c, dir));
    return dir_flush(c, dir);
}

/* --- one log ------------------------------------------------------------------------------------------------ */
struct error *file_cbt_check(struct call *c, const char *dir, const char *location)
{
    const char *path = file_cbt_path(c, dir, location);
    struct cbt_log_info info;
    int error = cbt_log_info(path, &info);

    if (error == -ENOENT || (error == 0 && (info.believed || is_open(path))))
        return NULL;
    if (error != 0 && error != -EBADMSG)
        return driver_failed(c, "reading the log", path, -error);
    log_warn("%s is not to be believed: changed blocks of %s are not tracked any more", path, location);
    return file_cbt_remove(c, dir, location);
}

struct error *file_cbt_resize(struct call *c, const char *dir, const char *location, int64_t size)
{
    const char *path = file_cbt_path(c, dir, location);
    int error = cbt_log_resize(path, size);

    return error == -ENOENT || error == -EBUSY ? NULL : failed(c, "resizing the log", path, error);
}

static int fill(const char *path, int64_t size)
{
    struct cbt_log *log;
    int error = cbt_log_open(path, &log), closed;

    if (error != 0)
        return error;
    if (size > cbt_log_size(log))
        error = cbt_log_grow(log, size);
    if (error == 0)
        error = cbt_log_mark(log, 0, cbt_log_size(log));
    closed = cbt_log_close(log);
    return error != 0 ? error : closed;
}

struct error *file_cbt_fill(struct call *c, const char *dir, const char *location, int64_t size)
{
    const char *path = file_cbt_path(c, dir, location);
    int error = fill(path, size);

    return error == -ENOENT ? NULL : failed(c, "writing the log", path, error);
}

/* --- snapshots ------------------------------------------------------------------------------------------------ */
struct error *file_cbt_fork_prepare(struct call *c, const char *dir, const char *leaf, const char *snapshot)
{
    const char *path = file_cbt_path(c, dir, leaf), *theirs = file_cbt_path(c, dir, snapshot);
    struct cbt_log_info info;
    int error = cbt_log_info(path, &info);

    if (error == -ENOENT)
        return NULL;
    TRY(failed(c, "reading the log", path, error));
    if (link(path, theirs) != 0)
        return driver_failed(c, "linking", theirs, errno);
    unlink(part_path(c, path));
    return failed(c, "making the log", path, cbt_log_create(part_path(c, path), info.size, snapshot, ""));
}

struct error *file_cbt_fork_commit(struct call *c, const char *dir, const char *leaf)
{
    const char *path = file_cbt_path(c, dir, leaf);

    if (rename(part_path(c, path), path) != 0 && errno != ENOENT)
        return driver_failed(c, "renaming", path, errno);
    return NULL;
}

struct error *file_cbt_fork_undo(struct call *c, const char *dir, const char *leaf, const char *snapshot)
{
    const char *path = file_cbt_path(c, dir, leaf), *theirs = file_cbt_path(c, dir, snapshot);

    TRY(unlinked(c, part_path(c, path)));
    if (rename(theirs, path) != 0 && errno != ENOENT) /* two names of one file: nothing happens */
        return driver_failed(c, "renaming", theirs, errno);
    return unlinked(c, theirs);
}

struct error *file_cbt_copy_undo(struct call *c, const char *dir, const char *leaf, const char *snapshot)
{
    const char *path = file_cbt_path(c, dir, leaf), *theirs = file_cbt_path(c, dir, snapshot);
    ino_t ours, other;

    TRY(unlinked(c, part_path(c, path)));
    if (image_exists(path, &ours) && image_exists(theirs, &other) && ours == other)
        return unlinked(c, theirs);
    return file_cbt_remove(c, dir, snapshot);
}
