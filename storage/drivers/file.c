/* SR type "file": raw images "<uuid>.raw" in one directory, local or shared by other means. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "storage/sparse_copy.h"
#include "storage/sr_driver.h"

#define SUFFIX ".raw"
#define SECTOR ((int64_t)512)
#define SIZE_MIN ((int64_t)512)
#define SIZE_MAX_ ((int64_t)16 << 40)

static const struct config_key file_config[] = {
    { "location", true, false, "the directory that holds the images" },
    { 0 },
};

static const char *directory(const struct sr *sr)
{
    return value_get_string(&sr->device_config, "location", "");
}

static const char *image_path(struct call *c, const struct sr *sr, const char *location)
{
    return arena_printf(c->arena, "%s/%s" SUFFIX, directory(sr), location);
}

static struct error *failed(struct call *c, const char *what, const char *path, int error)
{
    return err_sr_backend_failure(c->arena, "5", "", arena_printf(c->arena, "%s %s: %s", what, path, strerror(error)));
}

/* --- the directory ------------------------------------------------------------------------------ */
static sr_create_fn file_sr_create;
static struct error *file_sr_create(struct call *c, struct sr *sr, int64_t size)
{
    int error = dir_create(directory(sr), 0755);

    return error == 0 ? NULL : failed(c, "creating the directory", directory(sr), -error);
}

static sr_fn file_sr_destroy;
static struct error *file_sr_destroy(struct call *c, struct sr *sr)
{
    if (rmdir(directory(sr)) == 0 || errno == ENOENT)
        return NULL;
    if (errno == ENOTEMPTY || errno == EEXIST)
        return NULL; /* others' files: not ours to remove */
    return failed(c, "removing the directory", directory(sr), errno);
}

static sr_fn file_sr_attach;
static struct error *file_sr_attach(struct call *c, struct sr *sr)
{
    struct stat st;

    if (stat(directory(sr), &st) != 0)
        return failed(c, "the directory cannot be reached:", directory(sr), errno);
    if (!S_ISDIR(st.st_mode))
        return failed(c, "no directory:", directory(sr), ENOTDIR);
    return NULL;
}

static sr_fn file_sr_detach;
static struct error *file_sr_detach(struct call *c, struct sr *sr)
{
    return NULL;
}

/* --- images ------------------------------------------------------------------------------------- */
static void stat_to_vdi(struct call *c, const char *location, const struct stat *st, struct vdi_stat *vdi)
{
    *vdi = (struct vdi_stat) {
        .location = arena_strdup(c->arena, location),
        .uuid = arena_strdup(c->arena, location),
        .name = "",
        .format = "raw",
        .virtual_size = st->st_size,
        .physical_utilisation = (int64_t)st->st_blocks * 512,
        .parent = "",
    };
}

static vdi_stat_fn file_vdi_stat;
static struct error *file_vdi_stat(struct call *c, struct sr *sr, const char *location, struct vdi_stat *vdi)
{
    const char *path = image_path(c, sr, location);
    struct stat st;

    if (stat(path, &st) != 0) {
        if (errno == ENOENT)
            return err_vdi_missing(c->arena, sr->uuid, location);
        return failed(c, "reading", path, errno);
    }
    stat_to_vdi(c, location, &st, vdi);
    return NULL;
}

/* "<uuid>.raw" gives the uuid in the arena, anything else NULL. */
static const char *location_of(struct call *c, const char *file_name)
{
    const char *location;

    if (strlen(file_name) != UUID_LEN + strlen(SUFFIX) || strcmp(file_name + UUID_LEN, SUFFIX) != 0)
        return NULL;
    location = arena_strndup(c->arena, file_name, UUID_LEN);
    return uuid_valid(location) ? location : NULL;
}

static struct error *scan_directory(struct call *c, struct sr *sr, DIR *dir, struct vdi_stat **vdis_r, unsigned *n_r)
{
    struct vdi_stat *vdis = NULL;
    unsigned n = 0, cap = 0;

    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        const char *location = location_of(c, entry->d_name);
        struct stat st;

        if (location == NULL || fstatat(dirfd(dir), entry->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (n == cap) {
            struct vdi_stat *more = arena_calloc(c->arena, cap == 0 ? 16 : 2 * cap, sizeof(*more));

            if (n > 0)
                memcpy(more, vdis, n * sizeof(*vdis));
            vdis = more;
            cap = cap == 0 ? 16 : 2 * cap;
        }
        stat_to_vdi(c, location, &st, &vdis[n++]);
    }
    *vdis_r = vdis;
    *n_r = n;
    return NULL;
}

static sr_scan_fn file_sr_scan;
static struct error *file_sr_scan(struct call *c, struct sr *sr, struct vdi_stat **vdis_r, unsigned *n_r)
{
    DIR *dir = opendir(directory(sr));
    struct error *error;

    if (dir == NULL)
        return failed(c, "listing", directory(sr), errno);
    error = scan_directory(c, sr, dir, vdis_r, n_r);
    closedir(dir);
    return error;
}

static sr_stat_fn file_sr_stat;
static struct error *file_sr_stat(struct call *c, struct sr *sr, struct sr_stat *stat_r)
{
    struct statvfs fs;
    struct vdi_stat *vdis;
    unsigned n;

    if (statvfs(directory(sr), &fs) != 0)
        return failed(c, "reading the size of", directory(sr), errno);
    *stat_r = (struct sr_stat) {
        .physical_size = (int64_t)fs.f_blocks * (int64_t)fs.f_frsize,
        .physical_utilisation = (int64_t)(fs.f_blocks - fs.f_bfree) * (int64_t)fs.f_frsize,
    };
    TRY(file_sr_scan(c, sr, &vdis, &n));
    for (unsigned i = 0; i < n; i++)
        stat_r->virtual_allocation += vdis[i].virtual_size;
    return NULL;
}

/* What a directory holds: one SR, if it is there at all. */
static sr_probe_fn file_sr_probe;
static struct error *file_sr_probe(struct call *c, const struct value *device_config, struct value *srs_r)
{
    struct sr sr = { .uuid = "", .device_config = *device_config };
    struct value_list found = { 0 };
    struct value_dict one = { 0 };
    struct stat st;

    if (stat(directory(&sr), &st) == 0 && S_ISDIR(st.st_mode)) {
        value_dict_add(c->arena, &one, "location", value_string(directory(&sr)));
        value_list_add(c->arena, &found, value_dict_value(&one));
    }
    *srs_r = value_list_value(&found);
    return NULL;
}

static struct error *size_round(struct call *c, const char *location, int64_t size, int64_t *size_r)
{
    if (size < SIZE_MIN)
        return err_vdi_too_small(c->arena, location, arena_printf(c->arena, "%lld", (long long)SIZE_MIN));
    if (size > SIZE_MAX_)
        return err_vdi_too_large(c->arena, location, arena_printf(c->arena, "%lld", (long long)SIZE_MAX_));
    *size_r = (size + SECTOR - 1) / SECTOR * SECTOR;
    return NULL;
}

static struct error *write_empty(struct call *c, const char *path, int64_t size)
{
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0)
        return failed(c, "creating", path, errno);
    if (ftruncate(fd, size) != 0 || fsync(fd) != 0) {
        int error = errno;

        unlink(path);
        return failed(c, "sizing", path, error);
    }
    return NULL;
}

static vdi_create_fn file_vdi_create;
static struct error *file_vdi_create(struct call *c, struct sr *sr, const struct vdi_create_spec *spec, struct vdi_stat *vdi)
{
    const char *path = image_path(c, sr, spec->uuid);
    int64_t size;
    struct stat st;

    if (spec->format[0] != '\0' && strcmp(spec->format, "raw") != 0)
        return err_sr_backend_failure(c->arena, "38", "", arena_printf(c->arena, "image format %s", spec->format));
    TRY(size_round(c, spec->uuid, spec->virtual_size, &size));
    if (stat(path, &st) == 0 && st.st_size == size) /* a repeated call */
        return file_vdi_stat(c, sr, spec->uuid, vdi);
    TRY(write_empty(c, path, size));
    if (dir_sync(directory(sr)) != 0)
        return failed(c, "syncing", directory(sr), EIO);
    return file_vdi_stat(c, sr, spec->uuid, vdi);
}

static vdi_fn file_vdi_destroy;
static struct error *file_vdi_destroy(struct call *c, struct sr *sr, const char *location)
{
    const char *path = image_path(c, sr, location);

    if (unlink(path) != 0 && errno != ENOENT)
        return failed(c, "removing", path, errno);
    return dir_sync(directory(sr)) == 0 ? NULL : failed(c, "syncing", directory(sr), EIO);
}

static vdi_resize_fn file_vdi_resize;
static struct error *file_vdi_resize(struct call *c, struct sr *sr, const char *location, int64_t size, struct vdi_stat *vdi)
{
    const char *path = image_path(c, sr, location);
    AUTO_FD fd = -1;

    TRY(file_vdi_stat(c, sr, location, vdi));
    TRY(size_round(c, location, size, &size));
    if (size < vdi->virtual_size)
        return err_vdi_too_small(c->arena, location, arena_printf(c->arena, "%lld", (long long)vdi->virtual_size));
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, size) != 0 || fsync(fd) != 0)
        return failed(c, "resizing", path, errno);
    return file_vdi_stat(c, sr, location, vdi);
}

/* A full copy, or shared blocks where the filesystem can; under a temporary name until complete. */
static vdi_clone_fn file_vdi_clone;
static struct error *file_vdi_clone(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    const char *from = image_path(c, sr, location), *to = image_path(c, sr, uuid);
    const char *part = arena_printf(c->arena, "%s.part", to);
    struct error *error;

    if (file_vdi_stat(c, sr, uuid, vdi) == NULL) /* a repeated call */
        return NULL;
    TRY(file_vdi_stat(c, sr, location, vdi));
    unlink(part);
    TRY(write_empty(c, part, vdi->virtual_size));
    error = sparse_copy_path(c, from, part, vdi->virtual_size);
    if (error == NULL && rename(part, to) != 0)
        error = failed(c, "renaming", part, errno);
    if (error != NULL) {
        unlink(part);
        return error;
    }
    if (dir_sync(directory(sr)) != 0)
        return failed(c, "syncing", directory(sr), EIO);
    return file_vdi_stat(c, sr, uuid, vdi);
}

static vdi_attach_fn file_vdi_attach;
static struct error *file_vdi_attach(struct call *c, struct sr *sr, const char *location, bool read_only, struct vdi_where *where_r)
{
    struct vdi_stat vdi;

    TRY(file_vdi_stat(c, sr, location, &vdi));
    *where_r = (struct vdi_where) { .format = vdi.format, .path = image_path(c, sr, location) };
    return NULL;
}

const struct sr_driver sr_driver_file = {
    .type = "file",
    .name = "File",
    .description = "Disk images in a directory",
    .caps = SR_CAP_PROBE | SR_CAP_UPDATE | SR_CAP_VDI_CREATE | SR_CAP_VDI_DELETE | SR_CAP_VDI_RESIZE | SR_CAP_VDI_CLONE |
            SR_CAP_VDI_INTRODUCE | SR_CAP_VDI_UPDATE | SR_CAP_VDI_ATTACH | SR_CAP_THIN,
    .config = file_config,
    .sr_create = file_sr_create,
    .sr_destroy = file_sr_destroy,
    .sr_attach = file_sr_attach,
    .sr_detach = file_sr_detach,
    .sr_stat = file_sr_stat,
    .sr_scan = file_sr_scan,
    .sr_probe = file_sr_probe,
    .vdi_create = file_vdi_create,
    .vdi_destroy = file_vdi_destroy,
    .vdi_resize = file_vdi_resize,
    .vdi_clone = file_vdi_clone,
    .vdi_stat = file_vdi_stat,
    .vdi_attach = file_vdi_attach,
};
