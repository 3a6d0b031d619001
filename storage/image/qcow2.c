/* qcow2 images: the head is read here, the rest is done by qemu-img (image_qcow2 of image.h).
 *
 * qemu-img follows what an image says, so no image is shown to it before its head was found harmless: a backing
 * file is a plain name in the image's directory with its format beside it, and there is no external data file.
 * Formats are always given, nothing is probed. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "storage/image/image.h"
#include "storage/image/image_error.h"

#define HEAD_MAX 4096u
#define SIZE_MAX_ ((int64_t)16 << 40)
#define SECTOR ((int64_t)512)
#define QUICK_MS 60000
#define CHECK_MS 3600000
#define OUTPUT_MAX 4096u
#define NAME_LIMIT 1023u
#define INCOMPATIBLE_DIRTY_CORRUPT 3u /* the features that change nothing for a reader of the head */
#define INCOMPATIBLE_COMPRESSION 8u
#define INCOMPATIBLE_EXTENDED_L2 16u
#define EXTENSION_FORMAT 0xe2792acau

struct head { int64_t size; const char *backing, *backing_format; /* "" if none */ };

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static const char *directory_of(struct arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? "." : slash == path ? "/" : arena_strndup(arena, path, (size_t)(slash - path));
}

/* --- the head ----------------------------------------------------------------------------------- */
/* A name in the image's own directory: no scheme, no options, no way out. */
static bool plain_name(const char *name)
{
    for (const char *p = name; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == ':')
            return false;
    return name[0] != '\0' && name[0] != '/' && name[0] != '-' && strncmp(name, "../", 3) != 0 && strstr(name, "/../") == NULL;
}

static const char *find_format(struct arena *arena, const uint8_t *bytes, uint32_t n, uint32_t at)
{
    while (at + 8 <= n) {
        uint32_t type = get32(bytes + at), length = get32(bytes + at + 4);

        if (type == 0 || length > n - at - 8)
            break;
        if (type == EXTENSION_FORMAT)
            return arena_strndup(arena, (const char *)bytes + at + 8, length);
        at += 8 + (length + 7) / 8 * 8;
    }
    return "";
}

static struct error *check_backing(struct call *c, const char *path, struct head *h)
{
    const char *name = h->backing, *dir = directory_of(c->arena, path);
    size_t len = strlen(dir);

    if (strncmp(name, dir, len) == 0 && name[len] == '/') /* absolute, but here */
        name += len + 1;
    if (!plain_name(name))
        return image_damaged(c->arena, path, "its backing file is not a name in its directory");
    if (strcmp(h->backing_format, "qcow2") != 0 && strcmp(h->backing_format, "raw") != 0)
        return image_damaged(c->arena, path, "the format of its backing file is not given, or not one that is allowed");
    h->backing = name;
    return NULL;
}

static struct error *head_parse(struct call *c, const char *path, const uint8_t *bytes, uint32_t n, struct head *h)
{
    uint32_t version, name_length, header_length = 72;
    uint64_t name_at, size;

    *h = (struct head) { .backing = "", .backing_format = "" };
    if (n < 72 || memcmp(bytes, "QFI\xfb", 4) != 0)
        return image_damaged(c->arena, path, "no qcow2 head");
    version = get32(bytes + 4);
    if (version != 2 && version != 3)
        return image_damaged(c->arena, path, "unknown version of the format");
    size = get64(bytes + 24);
    if (size > (uint64_t)SIZE_MAX_ || get32(bytes + 20) < 9 || get32(bytes + 20) > 21)
        return image_damaged(c->arena, path, "impossible size");
    if (get32(bytes + 32) != 0)
        return image_refused(c->arena, "%s: encrypted images are not served", path);
    if (version == 3) {
        if (n < 104 || get32(bytes + 100) < 104 || get32(bytes + 100) > n)
            return image_damaged(c->arena, path, "impossible length of the head");
        header_length = get32(bytes + 100);
        if ((get64(bytes + 72) & ~(uint64_t)(INCOMPATIBLE_DIRTY_CORRUPT | INCOMPATIBLE_COMPRESSION | INCOMPATIBLE_EXTENDED_L2)) != 0)
            return image_refused(c->arena, "%s: an image with an external data file, or with unknown features", path);
    }
    h->size = (int64_t)size / SECTOR * SECTOR;
    name_at = get64(bytes + 8);
    name_length = get32(bytes + 16);
    if (name_at == 0)
        return NULL;
    if (name_length == 0 || name_length > NAME_LIMIT || name_at > n - name_length || name_at < header_length)
        return image_damaged(c->arena, path, "impossible name of the backing file");
    h->backing = arena_strndup(c->arena, (const char *)bytes + name_at, name_length);
    h->backing_format = find_format(c->arena, bytes, (uint32_t)name_at, header_length);
    return check_backing(c, path, h);
}

static struct error *head_read(struct call *c, const char *path, struct head *h, struct stat *st)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t bytes[HEAD_MAX];
    ssize_t n;

    if (fd < 0 || fstat(fd, st) != 0)
        return image_failed(c->arena, "opening", path, errno);
    n = pread(fd, bytes, sizeof(bytes), 0);
    if (n < 0)
        return image_failed(c->arena, "reading", path, errno);
    return head_parse(c, path, bytes, (uint32_t)n, h);
}

/* --- qemu-img ----------------------------------------------------------------------------------- */
/* A path that is nothing but a path to it. */
static const char *as_path(struct arena *arena, const char *path)
{
    return path[0] == '/' ? path : arena_printf(arena, "./%s", path);
}

static struct error *run(struct call *c, const char *const *argv, int timeout_ms, int *exit_r)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output = NULL;
    int status = 0, error;

    spec.argv = argv;
    error = child_run(c->arena, &spec, timeout_ms, OUTPUT_MAX, &status, &output);
    if (error != 0)
        return image_refused(c->arena, "running qemu-img %s: %s", argv[1], strerror(-error));
    *exit_r = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
    if (*exit_r == 0 || (*exit_r == 3 && strcmp(argv[1], "check") == 0)) /* 3: only space is lost */
        return NULL;
    output[strcspn(output, "\n")] = '\0';
    return image_refused(c->arena, "qemu-img %s: %s", argv[1], output[0] != '\0' ? output : "it failed");
}

static struct error *sync_path(struct call *c, const char *path)
{
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);
    const char *dir = directory_of(c->arena, path);
    int error;

    if (fd < 0 || fsync(fd) != 0)
        return image_failed(c->arena, "syncing", path, errno);
    error = dir_sync(dir);
    return error == 0 ? NULL : image_failed(c->arena, "syncing", dir, error);
}

/* The name a child in its directory knows the parent by; its size must fit. */
static struct error *parent_name(struct call *c, const char *path, const char *parent, const char *parent_format, int64_t size, const char **name_r)
{
    const char *dir = directory_of(c->arena, path), *slash = strrchr(parent, '/');
    const struct image_ops *ops = image_ops_find(parent_format);
    struct image_info info;

    if (ops != &image_qcow2 && ops != &image_raw)
        return image_refused(c->arena, "a qcow2 image cannot have a parent of format %s", parent_format);
    *name_r = slash == NULL ? parent : slash + 1;
    if (strcmp(directory_of(c->arena, parent), dir) != 0 || !plain_name(*name_r))
        return image_refused(c->arena, "the parent %s lies outside the directory of %s", parent, path);
    TRY(ops->info(c, parent, &info));
    return info.virtual_size <= size ? NULL : image_refused(c->arena, "%s is smaller than its parent %s", path, parent);
}

static struct error *size_check(struct call *c, const char *path, int64_t *size)
{
    if (*size <= 0 || *size > SIZE_MAX_)
        return image_refused(c->arena, "%s: an image of %lld bytes is not possible, the most is %lld", path, (long long)*size, (long long)SIZE_MAX_);
    *size = (*size + SECTOR - 1) / SECTOR * SECTOR;
    return NULL;
}

/* --- image_ops ---------------------------------------------------------------------------------- */
static struct error *qcow2_create(struct call *c, const char *path, int64_t size, const char *parent, const char *parent_format)
{
    const char *argv[16] = { "qemu-img", "create", "-q", "-f", "qcow2" };
    const char *name = NULL;
    struct error *error;
    unsigned n = 5;
    int exit_code;

    TRY(size_check(c, path, &size));
    if (access(path, F_OK) == 0)
        return image_failed(c->arena, "creating", path, EEXIST);
    if (parent != NULL && parent[0] != '\0') {
        TRY(parent_name(c, path, parent, parent_format, size, &name));
        argv[n++] = "-u";
        argv[n++] = "-b";
        argv[n++] = name;
        argv[n++] = "-F";
        argv[n++] = parent_format;
    }
    argv[n++] = as_path(c->arena, path);
    argv[n++] = arena_printf(c->arena, "%lld", (long long)size);
    error = run(c, argv, QUICK_MS, &exit_code);
    if (error == NULL)
        error = sync_path(c, path);
    if (error != NULL)
        unlink(path);
    return error;
}

static struct error *qcow2_info(struct call *c, const char *path, struct image_info *info)
{
    struct head h;
    struct stat st;

    TRY(head_read(c, path, &h, &st));
    *info = (struct image_info) {
        .format = "qcow2",
        .virtual_size = h.size,
        .physical_size = (int64_t)st.st_blocks * 512,
        .parent = h.backing[0] == '\0' || strchr(path, '/') == NULL ? h.backing : arena_printf(c->arena, "%s/%s", directory_of(c->arena, path), h.backing),
        .parent_format = h.backing[0] == '\0' ? "" : h.backing_format,
        .uuid = "",
    };
    return NULL;
}

/* Every image of the chain has a harmless head. */
static struct error *check_chain(struct call *c, const char *path)
{
    struct image_info info = { .parent = path, .parent_format = "qcow2" };

    for (unsigned depth = 0; strcmp(info.parent_format, "qcow2") == 0; depth++) {
        if (depth == 64)
            return image_damaged(c->arena, path, "a chain of more than 64 images, or a loop");
        TRY(qcow2_info(c, info.parent, &info));
    }
    return NULL;
}

static struct error *qcow2_resize(struct call *c, const char *path, int64_t size)
{
    const char *text = arena_printf(c->arena, "%lld", (long long)size);
    const char *const argv[] = { "qemu-img", "resize", "-q", "-f", "qcow2", as_path(c->arena, path), text, NULL };
    struct image_info info;
    int exit_code;

    TRY(size_check(c, path, &size));
    TRY(check_chain(c, path));
    TRY(qcow2_info(c, path, &info));
    if (size < info.virtual_size)
        return image_refused(c->arena, "%s: an image cannot become smaller", path);
    TRY(run(c, argv, QUICK_MS, &exit_code));
    return sync_path(c, path);
}

static struct error *qcow2_set_parent(struct call *c, const char *path, const char *parent, const char *parent_format)
{
    const char *argv[] = { "qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "", NULL, NULL, NULL, NULL };
    unsigned n = 8;
    struct image_info info;
    int exit_code;

    TRY(qcow2_info(c, path, &info));
    if (parent != NULL && parent[0] != '\0') {
        TRY(parent_name(c, path, parent, parent_format, info.virtual_size, &argv[7]));
        argv[n++] = "-F";
        argv[n++] = parent_format;
    }
    argv[n] = as_path(c->arena, path);
    TRY(run(c, argv, QUICK_MS, &exit_code));
    return sync_path(c, path);
}

static struct error *qcow2_check(struct call *c, const char *path)
{
    const char *const argv[] = { "qemu-img", "check", "-q", "-f", "qcow2", as_path(c->arena, path), NULL };
    int exit_code = 0;
    struct error *error;

    TRY(check_chain(c, path));
    error = run(c, argv, CHECK_MS, &exit_code);
    if (exit_code == 2)
        return image_damaged(c->arena, path, "qemu-img check finds errors in its structure");
    return error;
}

const struct image_ops image_qcow2 = {
    .format = "qcow2",
    .suffix = ".qcow2",
    .can_have_parent = true,
    .size_max = SIZE_MAX_,
    .size_step = SECTOR,
    .create = qcow2_create,
    .info = qcow2_info,
    .resize = qcow2_resize,
    .set_parent = qcow2_set_parent,
    .check = qcow2_check,
};
