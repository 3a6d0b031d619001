/* Raw images: files of bytes (image_raw of image.h). Block devices can be looked at, not made. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/image/image.h"
#include "storage/image/image_error.h"

#define SECTOR ((int64_t)512)
#define RAW_MAX ((int64_t)16 << 40)

static struct error *size_check(struct call *c, const char *path, int64_t *size)
{
    if (*size <= 0 || *size > RAW_MAX)
        return image_refused(c->arena, "%s: an image of %lld bytes is not possible, the most is %lld", path, (long long)*size, (long long)RAW_MAX);
    *size = (*size + SECTOR - 1) / SECTOR * SECTOR;
    return NULL;
}

static int directory_sync(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');

    return dir_sync(slash == NULL ? "." : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path)));
}

static struct error *raw_create(struct call *c, const char *path, int64_t size, const char *parent, const char *parent_format)
{
    AUTO_FD fd = -1;
    int error = 0;

    if (parent != NULL && parent[0] != '\0')
        return image_refused(c->arena, "%s: a raw image has no parent", path);
    TRY(size_check(c, path, &size));
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return image_failed(c->arena, "creating", path, errno);
    if (ftruncate(fd, size) != 0 || fsync(fd) != 0)
        error = errno;
    if (error == 0)
        error = directory_sync(c->arena, path);
    if (error == 0)
        return NULL;
    unlink(path);
    return image_failed(c->arena, "sizing", path, error);
}

static struct error *raw_info(struct call *c, const char *path, struct image_info *info)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    int64_t size;

    if (fd < 0 || fstat(fd, &st) != 0)
        return image_failed(c->arena, "opening", path, errno);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return image_refused(c->arena, "%s is neither a file nor a block device", path);
    size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        return image_failed(c->arena, "reading", path, errno);
    *info = (struct image_info) {
        .format = "raw",
        .virtual_size = (size + SECTOR - 1) / SECTOR * SECTOR,
        .physical_size = S_ISBLK(st.st_mode) ? size : (int64_t)st.st_blocks * 512,
        .parent = "",
        .parent_format = "",
        .uuid = "",
    };
    return NULL;
}

static struct error *raw_resize(struct call *c, const char *path, int64_t size)
{
    AUTO_FD fd = -1;
    struct stat st;

    TRY(size_check(c, path, &size));
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        return image_failed(c->arena, "opening", path, errno);
    if (!S_ISREG(st.st_mode))
        return image_refused(c->arena, "%s is no file", path);
    if (size < st.st_size)
        return image_refused(c->arena, "%s: an image cannot become smaller", path);
    if (ftruncate(fd, size) != 0 || fsync(fd) != 0)
        return image_failed(c->arena, "resizing", path, errno);
    return NULL;
}

static struct error *raw_set_parent(struct call *c, const char *path, const char *parent, const char *parent_format)
{
    return parent == NULL || parent[0] == '\0' ? NULL : image_refused(c->arena, "%s: a raw image has no parent", path);
}

static struct error *raw_check(struct call *c, const char *path)
{
    struct image_info info;

    return raw_info(c, path, &info);
}

const struct image_ops image_raw = {
    .format = "raw",
    .suffix = ".raw",
    .can_have_parent = false,
    .size_max = RAW_MAX,
    .size_step = SECTOR,
    .create = raw_create,
    .info = raw_info,
    .resize = raw_resize,
    .set_parent = raw_set_parent,
    .check = raw_check,
};
