#include "storage/drivers/image_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"

LOG_MODULE(file_sr);

#define HIDE "hide_"
#define PART ".part"
#define HOLD_AT ((off_t)1) /* the byte that is locked while a part is made; tapd locks byte 0 of an image */
#define SNAPSHOT_ATTRIBUTE "user.xapi.snapshot"

static const struct image_ops *const formats[] = { &image_vhd, &image_raw, &image_qcow2 };

/* --- names -------------------------------------------------------------------------------------- */
const char *image_path(struct call *c, const char *dir, const char *name)
{
    return arena_printf(c->arena, "%s/%s", dir, name);
}

const char *image_path_of(struct call *c, const char *dir, const char *location, const struct image_ops *ops, bool hidden)
{
    return arena_printf(c->arena, "%s/%s%s%s", dir, hidden && ops->set_hidden == NULL ? HIDE : "", location, ops->suffix);
}

const char *part_path(struct call *c, const char *path)
{
    return arena_printf(c->arena, "%s" PART, path);
}

bool image_exists(const char *path, ino_t *inode_r)
{
    struct stat st;

    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    if (inode_r != NULL)
        *inode_r = st.st_ino;
    return true;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);

    return n > m && strcmp(name + n - m, suffix) == 0;
}

/* False for a name that is none of ours. */
static bool name_parse(struct call *c, const char *name, struct image *image)
{
    bool hide = strncmp(name, HIDE, strlen(HIDE)) == 0;
    const char *rest = hide ? name + strlen(HIDE) : name;

    if (strlen(rest) <= UUID_LEN)
        return false;
    *image = (struct image) { .location = arena_strndup(c->arena, rest, UUID_LEN), .name = arena_strdup(c->arena, name), .hidden = hide, .parent = "" };
    if (!uuid_valid(image->location))
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(formats); i++)
        if (strcmp(rest + UUID_LEN, formats[i]->suffix) == 0 && (!hide || formats[i]->set_hidden == NULL))
            image->ops = formats[i];
    return image->ops != NULL;
}

/* --- one image ----------------------------------------------------------------------------------- */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

/* What the file itself says; image has its names. */
static struct error *image_read(struct call *c, struct image *image)
{
    struct image_info info;
    struct image parent;

    if (!image_exists(image->path, &image->inode))
        return driver_failed(c, "reading", image->path, ENOENT);
    TRY(image->ops->info(c, image->path, &info));
    image->virtual_size = info.virtual_size;
    image->physical_size = info.physical_size;
    image->hidden = image->hidden || info.hidden;
    image->parent_path = info.parent;
    if (info.parent[0] != '\0' && name_parse(c, base_name(info.parent), &parent))
        image->parent = parent.location;
    image->snapshot = getxattr(image->path, SNAPSHOT_ATTRIBUTE, NULL, 0) >= 0;
    return NULL;
}

struct error *image_find(struct call *c, const char *dir, const char *sr_uuid, const char *location, struct image *image)
{
    for (unsigned i = 0; uuid_valid(location) && i < ARRAY_LEN(formats); i++) {
        for (int hidden = 0; hidden <= (formats[i]->set_hidden == NULL); hidden++) {
            const char *path = image_path_of(c, dir, location, formats[i], hidden);

            if (!image_exists(path, NULL))
                continue;
            if (!name_parse(c, base_name(path), image))
                return err_internal(c->arena, "%s is no name of an image", path);
            image->path = path;
            return image_read(c, image);
        }
    }
    return err_vdi_missing(c->arena, sr_uuid, location);
}

struct error *image_unlink(struct call *c, const char *dir, const char *location)
{
    for (unsigned i = 0; i < ARRAY_LEN(formats); i++) {
        const char *path = image_path_of(c, dir, location, formats[i], false);

        if (unlink(path) != 0 && errno != ENOENT)
            return driver_failed(c, "removing", path, errno);
    }
    return NULL;
}

bool image_is_locked(const struct image *image, bool writing)
{
    struct flock lock = { .l_type = writing ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
    AUTO_FD fd = open(image->path, O_RDWR | O_CLOEXEC);

    return fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

void image_mark_snapshot(const char *path)
{
    if (setxattr(path, SNAPSHOT_ATTRIBUTE, "1", 1, 0) != 0 && errno != EOPNOTSUPP)
        log_warn("marking %s as a snapshot: %s", path, strerror(errno));
}

void image_unmark_snapshot(const char *path)
{
    if (removexattr(path, SNAPSHOT_ATTRIBUTE) != 0 && errno != ENODATA && errno != EOPNOTSUPP)
        log_warn("unmarking %s: %s", path, strerror(errno));
}

/* --- all of them ---------------------------------------------------------------------------------- */
struct error *dir_each(struct call *c, const char *dir, struct error *(*fn)(struct call *, const char *name, void *), void *ctx)
{
    DIR *d = opendir(dir);
    struct error *error = NULL;

    if (d == NULL)
        return driver_failed(c, "listing", dir, errno);
    for (struct dirent *entry; error == NULL && (entry = readdir(d)) != NULL;)
        error = fn(c, entry->d_name, ctx);
    closedir(d);
    return error;
}

struct listing { const char *dir; struct image_list *list; unsigned cap; };

static void listing_add(struct call *c, struct listing *l, const struct image *image)
{
    struct image_list *list = l->list;

    if (list->n == l->cap) {
        struct image *more = arena_calloc(c->arena, l->cap == 0 ? 16 : 2 * l->cap, sizeof(*more));

        if (list->n > 0)
            memcpy(more, list->images, list->n * sizeof(*more));
        list->images = more;
        l->cap = l->cap == 0 ? 16 : 2 * l->cap;
    }
    list->images[list->n++] = *image;
}

static struct error *listing_name(struct call *c, const char *name, void *ctx)
{
    struct listing *l = ctx;
    struct image image;
    struct error *error;

    if (!name_parse(c, name, &image))
        return NULL;
    image.path = image_path(c, l->dir, name);
    error = image_read(c, &image);
    if (error == NULL)
        listing_add(c, l, &image);
    else if (image_exists(image.path, NULL)) { /* else gone since */
        l->list->damaged = true;
        log_warn_rl("%s", error_text(c->arena, error));
    }
    return NULL;
}

struct error *image_list_read(struct call *c, const char *dir, struct image_list *list)
{
    struct listing l = { .dir = dir, .list = list };

    *list = (struct image_list) { .n = 0 };
    return dir_each(c, dir, listing_name, &l);
}

const struct image *image_list_find(const struct image_list *list, const char *location)
{
    for (unsigned i = 0; i < list->n; i++)
        if (strcmp(list->images[i].location, location) == 0)
            return &list->images[i];
    return NULL;
}

unsigned image_list_children(const struct image_list *list, const char *location, const struct image **first_r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < list->n; i++) {
        if (strcmp(list->images[i].parent, location) != 0)
            continue;
        if (n++ == 0 && first_r != NULL)
            *first_r = &list->images[i];
    }
    return n;
}

/* --- the directory --------------------------------------------------------------------------------- */
int part_hold(const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = HOLD_AT, .l_len = 1 };
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) != 0)
        return -1;
    return fd_steal(&fd);
}

/* "<uuid>.vhd.part", ".journal-<uuid>.part": ours. */
static bool is_part(struct call *c, const char *name)
{
    const char *whole;
    struct image image;

    if (!has_suffix(name, PART))
        return false;
    whole = arena_strndup(c->arena, name, strlen(name) - strlen(PART));
    if (strncmp(whole, JOURNAL_PREFIX, strlen(JOURNAL_PREFIX)) == 0)
        return uuid_valid(whole + strlen(JOURNAL_PREFIX));
    if (has_suffix(whole, LOG_SUFFIX))
        return uuid_valid(arena_strndup(c->arena, whole, strlen(whole) - strlen(LOG_SUFFIX)));
    return name_parse(c, whole, &image);
}

static struct error *part_remove(struct call *c, const char *name, void *ctx)
{
    const char *dir = ctx, *path = image_path(c, dir, name);
    AUTO_FD held = -1;

    if (!is_part(c, name))
        return NULL;
    held = part_hold(path);
    if (held < 0) {
        log_info("%s is in the making", path);
        return NULL;
    }
    log_info("removing %s, which was never finished", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return driver_failed(c, "removing", path, errno);
    return NULL;
}

struct error *dir_parts_remove(struct call *c, const char *dir)
{
    return dir_each(c, dir, part_remove, (void *)(uintptr_t)dir);
}

struct error *dir_flush(struct call *c, const char *dir)
{
    int error = dir_sync(dir);

    return error == 0 ? NULL : driver_failed(c, "syncing", dir, -error);
}

struct error *dir_sizes(struct call *c, const char *dir, int64_t *size_r, int64_t *used_r, int64_t *free_r)
{
    struct statvfs fs;

    if (statvfs(dir, &fs) != 0)
        return driver_failed(c, "reading the size of", dir, errno);
    *size_r = (int64_t)fs.f_blocks * (int64_t)fs.f_frsize;
    *used_r = (int64_t)(fs.f_blocks - fs.f_bfree) * (int64_t)fs.f_frsize;
    *free_r = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
    return NULL;
}
