#include "storage/drivers/file_sr.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"
#include "storage/drivers/image_recover.h"

#define SECTOR ((int64_t)512)

static struct file_sr *state_of(struct sr *sr)
{
    return sr->state;
}

/* --- opening and closing ------------------------------------------------------------------------- */
/* Whether two files of the directory can share blocks: tried. */
static bool reflink_works(struct call *c, const char *dir)
{
    static const char page[4096] = { 1 };
    const char *a = part_path(c, arena_printf(c->arena, "%s/%s.raw", dir, uuid_make(c->arena)));
    const char *b = part_path(c, arena_printf(c->arena, "%s/%s.raw", dir, uuid_make(c->arena)));
    AUTO_FD from = open(a, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    AUTO_FD to = open(b, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool works = from >= 0 && to >= 0 && fd_write_all(from, page, sizeof(page)) == 0 && ioctl(to, FICLONE, from) == 0;

    unlink(a);
    unlink(b);
    return works;
}

static struct error *options_read(struct call *c, struct sr *sr, struct file_sr *fs)
{
    const char *format = value_get_string(&sr->device_config, "image-format", "");

    fs->format = image_ops_find(format[0] == '\0' ? "vhd" : format);
    if (fs->format == NULL)
        return driver_refused(c, "38", "device-config image-format: no such format: %s", format);
    fs->cached = strcmp(value_get_string(&sr->device_config, "o_direct", "true"), "false") == 0;
    return NULL;
}

static struct error *tree_begin(struct call *c, struct sr *sr, bool attaching)
{
    struct error *error;

    TRY(image_turn_take(c, &state_of(sr)->turn));
    error = images_recover(c, sr, attaching);
    if (error != NULL)
        image_turn_give(&state_of(sr)->turn);
    return error;
}

static struct error *mend(struct call *c, struct sr *sr)
{
    struct error *error;

    TRY(tree_begin(c, sr, true));
    error = dir_parts_remove(c, state_of(sr)->dir);
    file_tree_end(sr);
    return error;
}

struct error *file_sr_open(struct call *c, struct sr *sr, const char *dir)
{
    struct file_sr *fs = state_of(sr);
    const char *lock = sr->shared ? image_path(c, dir, ".lock") : NULL;
    struct error *error;
    int failed;

    TRY(options_read(c, sr, fs));
    failed = image_turn_init(&fs->turn, lock);
    if (failed != 0)
        return driver_failed(c, "opening", lock, -failed);
    fs->dir = xstrdup(dir);
    error = mend(c, sr);
    if (error == NULL)
        fs->reflink = reflink_works(c, dir);
    else
        file_sr_close(sr);
    return error;
}

void file_sr_close(struct sr *sr)
{
    struct file_sr *fs = state_of(sr);

    if (fs->dir == NULL)
        return;
    image_turn_release(&fs->turn);
    xfree(fs->dir);
    fs->dir = NULL;
}

const char *file_sr_dir(struct call *c, const struct sr *sr)
{
    return arena_strdup(c->arena, ((const struct file_sr *)sr->state)->dir);
}

struct error *file_tree_begin(struct call *c, struct sr *sr)
{
    return tree_begin(c, sr, false);
}

void file_tree_end(struct sr *sr)
{
    image_turn_give(&state_of(sr)->turn);
}

static struct error *leftover_remove(struct call *c, const char *name, void *ctx)
{
    const char *dir = ctx;

    if (strcmp(name, ".lock") == 0)
        return unlink(image_path(c, dir, name)) == 0 || errno == ENOENT ? NULL : driver_failed(c, "removing", name, errno);
    return NULL;
}

struct error *file_sr_empty(struct call *c, const char *dir)
{
    struct image_list list;

    TRY(image_list_read(c, dir, &list));
    for (unsigned i = 0; i < list.n; i++)
        if (!list.images[i].hidden)
            return err_sr_not_empty(c->arena);
    if (list.damaged)
        return driver_refused(c, "5", "%s holds an image that cannot be read", dir);
    for (unsigned i = 0; i < list.n; i++)
        if (unlink(list.images[i].path) != 0 && errno != ENOENT)
            return driver_failed(c, "removing", list.images[i].path, errno);
    TRY(dir_parts_remove(c, dir));
    return dir_each(c, dir, leftover_remove, (void *)(uintptr_t)dir);
}

/* --- what there is --------------------------------------------------------------------------------- */
static struct vdi_stat stat_of(struct call *c, struct sr *sr, const struct image *image)
{
    return (struct vdi_stat) {
        .location = image->location,
        .uuid = image->location,
        .name = "",
        .format = image->ops->format,
        .virtual_size = image->virtual_size,
        .physical_utilisation = image->physical_size,
        .is_a_snapshot = image->snapshot,
        .parent = image->parent,
        .hidden = image->hidden,
        .cbt_enabled = file_cbt_exists(c, state_of(sr)->dir, image->location),
    };
}

struct error *file_vdi_stat(struct call *c, struct sr *sr, const char *location, struct vdi_stat *vdi)
{
    const char *dir = state_of(sr)->dir;
    struct image image;
    struct error *error = image_find(c, dir, sr->uuid, location, &image);

    if (error_is(error, "VDI_MISSING") && uuid_valid(location) && file_cbt_exists(c, dir, location))
        return file_cbt_stat(c, dir, location, vdi);
    if (error == NULL)
        *vdi = stat_of(c, sr, &image);
    return error;
}

struct error *file_sr_scan(struct call *c, struct sr *sr, struct vdi_stat **vdis_r, unsigned *n_r)
{
    const char *dir = state_of(sr)->dir;
    struct image_list list;
    const char **logs;
    struct error *error;
    unsigned n = 0, n_logs;

    TRY(file_tree_begin(c, sr));
    error = image_list_read(c, dir, &list);
    if (error == NULL)
        error = file_cbt_list(c, dir, &logs, &n_logs);
    file_tree_end(sr);
    TRY(error);
    *vdis_r = arena_calloc(c->arena, list.n + n_logs + 1, sizeof(**vdis_r));
    for (unsigned i = 0; i < list.n; i++)
        (*vdis_r)[n++] = stat_of(c, sr, &list.images[i]);
    for (unsigned i = 0; i < n_logs; i++)
        if (image_list_find(&list, logs[i]) == NULL && file_cbt_stat(c, dir, logs[i], &(*vdis_r)[n]) == NULL)
            n++;
    *n_r = n;
    return NULL;
}

struct error *file_sr_stat(struct call *c, struct sr *sr, struct sr_stat *stat_r)
{
    const struct file_sr *fs = state_of(sr);
    struct image_list list;
    int64_t free, used = 0;

    *stat_r = (struct sr_stat) { .physical_size = 0 };
    TRY(dir_sizes(c, fs->dir, &stat_r->physical_size, &stat_r->physical_utilisation, &free));
    TRY(image_list_read(c, fs->dir, &list));
    for (unsigned i = 0; i < list.n; i++) {
        used += list.images[i].physical_size;
        if (!list.images[i].hidden)
            stat_r->virtual_allocation += list.images[i].virtual_size;
    }
    if (fs->limit > 0) {
        stat_r->physical_size = fs->limit;
        stat_r->physical_utilisation = used;
    }
    return NULL;
}

struct error *file_room(struct call *c, struct sr *sr, int64_t need)
{
    const struct file_sr *fs = state_of(sr);
    int64_t size, used, free;
    struct sr_stat stat;

    TRY(dir_sizes(c, fs->dir, &size, &used, &free));
    if (fs->limit > 0) {
        TRY(file_sr_stat(c, sr, &stat));
        if (stat.physical_size - stat.physical_utilisation < free)
            free = stat.physical_size - stat.physical_utilisation;
    }
    return driver_room(c, need, free < 0 ? 0 : free);
}

struct vdi_where file_where(struct call *c, struct sr *sr, const struct image *image)
{
    const struct file_sr *fs = state_of(sr);

    return (struct vdi_where) {
        .format = image->ops->format,
        .path = image->path,
        .cached = fs->cached,
        .cbt = file_cbt_exists(c, fs->dir, image->location) ? file_cbt_path(c, fs->dir, image->location) : "",
    };
}

struct error *file_not_elsewhere(struct call *c, struct sr *sr, const struct image *image)
{
    if (sr->shared && image_is_locked(image, true))
        return driver_refused(c, "46", "%s is in use on another host", image->location);
    return NULL;
}

/* --- making, removing, sizing ------------------------------------------------------------------------ */
static struct error *size_round(struct call *c, const struct image_ops *ops, const char *location, int64_t size, int64_t *size_r)
{
    int64_t step = ops->size_step > 0 ? ops->size_step : SECTOR;

    if (size < SECTOR)
        return err_vdi_too_small(c->arena, location, arena_printf(c->arena, "%lld", (long long)SECTOR));
    if (size > ops->size_max)
        return err_vdi_too_large(c->arena, location, arena_printf(c->arena, "%lld", (long long)ops->size_max));
    *size_r = (size + step - 1) / step * step;
    return NULL;
}

static struct error *make(struct call *c, struct sr *sr, const char *path, const struct image_ops *ops, int64_t size)
{
    const char *part = part_path(c, path);
    struct error *error;

    unlink(part);
    error = driver_step(c, "file", "create", "image");
    if (error == NULL)
        error = ops->create(c, part, size, NULL, NULL);
    if (error == NULL)
        error = driver_step(c, "file", "create", "name");
    if (error == NULL && rename(part, path) != 0)
        error = driver_failed(c, "renaming", part, errno);
    if (error != NULL)
        unlink(part);
    return error != NULL ? error : dir_flush(c, state_of(sr)->dir);
}

struct error *file_vdi_create(struct call *c, struct sr *sr, const struct vdi_create_spec *spec, struct vdi_stat *vdi)
{
    const struct file_sr *fs = state_of(sr);
    const struct image_ops *ops = spec->format[0] == '\0' ? fs->format : image_ops_find(spec->format);
    struct error *error;
    int64_t size = 0;

    if (ops == NULL)
        return driver_refused(c, "38", "no such image format: %s", spec->format);
    TRY(size_round(c, ops, spec->uuid, spec->virtual_size, &size));
    if (!uuid_valid(spec->uuid))
        return driver_refused(c, "5", "no uuid: %s", spec->uuid);
    error = file_vdi_stat(c, sr, spec->uuid, vdi);
    if (error == NULL && vdi->virtual_size == size && vdi->format == ops->format) /* a repeated call */
        return NULL;
    if (!error_is(error, "VDI_MISSING"))
        return error != NULL ? error : driver_refused(c, "5", "%s is there already, and another disk", spec->uuid);
    TRY(file_room(c, sr, 1));
    TRY(file_tree_begin(c, sr));
    error = make(c, sr, image_path_of(c, fs->dir, spec->uuid, ops, false), ops, size);
    file_tree_end(sr);
    TRY(error);
    return file_vdi_stat(c, sr, spec->uuid, vdi);
}

/* Removes 'image' and then the bases nobody else needs. */
static struct error *remove_chain(struct call *c, struct image_list *list, const struct image *image)
{
    while (image != NULL) {
        const struct image *parent = image_list_find(list, image->parent);

        TRY(driver_step(c, "file", "destroy", image->hidden ? "base" : "image"));
        if (unlink(image->path) != 0 && errno != ENOENT)
            return driver_failed(c, "removing", image->path, errno);
        if (parent == NULL || !parent->hidden || list->damaged || image_list_children(list, parent->location, NULL) > 1)
            return NULL;
        image = parent;
    }
    return NULL;
}

struct error *file_images_destroy(struct call *c, struct sr *sr, const char *location)
{
    const char *dir = state_of(sr)->dir;
    struct image_list list;
    const struct image *image;

    TRY(image_list_read(c, dir, &list));
    image = image_list_find(&list, location);
    if (image != NULL && image_list_children(&list, location, NULL) > 0) { /* not by our hand */
        if (image->ops->set_hidden == NULL)
            return driver_refused(c, "5", "%s is the base of other images", image->path);
        return image->ops->set_hidden(c, image->path, true);
    }
    TRY(remove_chain(c, &list, image));
    if (image == NULL)
        TRY(image_unlink(c, dir, location)); /* gone, or too damaged to be listed */
    return dir_flush(c, dir);
}

struct error *file_vdi_destroy(struct call *c, struct sr *sr, const char *location)
{
    struct file_sr *fs = state_of(sr);
    struct image_use use;
    struct error *error;

    if (!uuid_valid(location))
        return NULL;
    TRY(image_use_begin(c, &fs->turn, &use, location));
    error = file_tree_begin(c, sr);
    if (error == NULL) {
        error = file_images_destroy(c, sr, location);
        if (error == NULL)
            error = file_cbt_remove(c, fs->dir, location);
        file_tree_end(sr);
    }
    image_use_end(&fs->turn, &use);
    return error;
}

static struct error *grow(struct call *c, struct sr *sr, const struct image *image, int64_t size)
{
    TRY(driver_step(c, "file", "resize", "log"));
    TRY(file_cbt_resize(c, state_of(sr)->dir, image->location, size));
    TRY(driver_step(c, "file", "resize", "image"));
    return image->ops->resize(c, image->path, size);
}

static struct error *grow_live(struct call *c, struct sr *sr, const struct image *image, int64_t size)
{
    const struct vdi_live *live = sr->live;
    struct error *error, *resumed;
    bool active = false;

    TRY(driver_step(c, "file", "resize", "pause"));
    TRY(live->pause(live->ctx, c, image->location, &active));
    error = active ? NULL : file_not_elsewhere(c, sr, image);
    if (error == NULL)
        error = grow(c, sr, image, size);
    if (error == NULL && active)
        error = live->resized(live->ctx, c, image->location, size);
    resumed = live->resume(live->ctx, c, image->location, NULL);
    return error != NULL ? error : resumed;
}

static struct error *resize(struct call *c, struct sr *sr, const char *location, int64_t size)
{
    struct image image;

    TRY(image_find(c, state_of(sr)->dir, sr->uuid, location, &image));
    TRY(size_round(c, image.ops, location, size, &size));
    if (size < image.virtual_size)
        return err_vdi_too_small(c->arena, location, arena_printf(c->arena, "%lld", (long long)image.virtual_size));
    if (size == image.virtual_size)
        return NULL;
    return grow_live(c, sr, &image, size);
}

struct error *file_vdi_resize(struct call *c, struct sr *sr, const char *location, int64_t size, struct vdi_stat *vdi)
{
    struct file_sr *fs = state_of(sr);
    struct image_use use;
    struct error *error;

    TRY(image_use_begin(c, &fs->turn, &use, location));
    error = file_tree_begin(c, sr);
    if (error == NULL) {
        error = resize(c, sr, location, size);
        file_tree_end(sr);
    }
    image_use_end(&fs->turn, &use);
    TRY(error);
    return file_vdi_stat(c, sr, location, vdi);
}

/* --- using ------------------------------------------------------------------------------------------- */
struct error *file_vdi_attach(struct call *c, struct sr *sr, const char *location, bool read_only, struct vdi_where *where_r)
{
    const char *dir = state_of(sr)->dir;
    struct image image;
    struct error *error;

    TRY(image_find(c, dir, sr->uuid, location, &image));
    if (file_cbt_exists(c, dir, location)) {
        TRY(file_tree_begin(c, sr));
        error = file_cbt_check(c, dir, location);
        file_tree_end(sr);
        TRY(error);
    }
    if (image.hidden && !read_only)
        return driver_refused(c, "5", "%s is the base of other images: it can only be read", location);
    *where_r = file_where(c, sr, &image);
    return NULL;
}

struct error *file_vdi_activate(struct call *c, struct sr *sr, const char *location)
{
    return image_active_set(c, &state_of(sr)->turn, location, true);
}

struct error *file_vdi_deactivate(struct call *c, struct sr *sr, const char *location)
{
    return image_active_set(c, &state_of(sr)->turn, location, false);
}
