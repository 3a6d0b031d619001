/* The verbs of changed block tracking of the file drivers. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"
#include "storage/image/cbt_log.h"

#define UNRELATED "460" /* the field's code */

/* In the turn, the VDI's tapd paused and then on a log or on none. */
static struct error *with_paused(struct call *c, struct sr *sr, const char *location, struct error *(*fn)(struct call *, struct sr *, const struct image *))
{
    const struct vdi_live *live = sr->live;
    const struct file_sr *fs = sr->state;
    struct error *error, *resumed;
    struct vdi_where where;
    struct image image;
    bool active = false;

    TRY(image_find(c, fs->dir, sr->uuid, location, &image));
    TRY(live->pause(live->ctx, c, location, &active));
    error = active ? NULL : file_not_elsewhere(c, sr, &image);
    if (error == NULL)
        error = fn(c, sr, &image);
    where = file_where(c, sr, &image);
    resumed = live->resume(live->ctx, c, location, active ? &where : NULL);
    return error != NULL ? error : resumed;
}

static struct error *in_turn(struct call *c, struct sr *sr, const char *location, struct error *(*fn)(struct call *, struct sr *, const struct image *))
{
    struct file_sr *fs = sr->state;
    struct image_use use;
    struct error *error;

    TRY(image_use_begin(c, &fs->turn, &use, location));
    error = file_tree_begin(c, sr);
    if (error == NULL) {
        error = with_paused(c, sr, location, fn);
        file_tree_end(sr);
    }
    image_use_end(&fs->turn, &use);
    return error;
}

static struct error *enable(struct call *c, struct sr *sr, const struct image *image)
{
    const struct file_sr *fs = sr->state;
    const char *path = file_cbt_path(c, fs->dir, image->location);
    int error;

    TRY(file_cbt_check(c, fs->dir, image->location));
    TRY(driver_step(c, "file", "cbt", "create"));
    error = cbt_log_create(path, image->virtual_size, "", "");
    return error == 0 || error == -EEXIST ? NULL : driver_failed(c, "making the log", path, -error);
}

struct error *file_vdi_enable_cbt(struct call *c, struct sr *sr, const char *location)
{
    return in_turn(c, sr, location, enable);
}

static struct error *disable(struct call *c, struct sr *sr, const struct image *image)
{
    return file_cbt_remove(c, ((struct file_sr *)sr->state)->dir, image->location);
}

struct error *file_vdi_disable_cbt(struct call *c, struct sr *sr, const char *location)
{
    return in_turn(c, sr, location, disable);
}

struct error *file_vdi_data_destroy(struct call *c, struct sr *sr, const char *location)
{
    struct file_sr *fs = sr->state;
    struct image_use use;
    struct error *error;

    if (!file_cbt_exists(c, fs->dir, location))
        return err_vdi_no_cbt_metadata(c->arena, location);
    TRY(image_use_begin(c, &fs->turn, &use, location));
    error = file_tree_begin(c, sr);
    if (error == NULL) {
        error = file_images_destroy(c, sr, location);
        file_tree_end(sr);
    }
    image_use_end(&fs->turn, &use);
    return error;
}

/* --- what changed ---------------------------------------------------------------------------------------- */
static struct error *unrelated(struct call *c, const char *from, const char *to)
{
    return driver_refused(c, UNRELATED, "%s is no older state of %s whose changes were tracked", from, to);
}

/* Joins the logs from 'to' back to 'from'. */
static struct error *walk(struct call *c, const char *dir, const char *from, const char *to, uint8_t *bitmap, size_t len)
{
    for (const char *at = to; strcmp(at, from) != 0;) {
        const char *path = file_cbt_log_of(c, dir, at);
        struct cbt_log_info info;
        int error;

        if (path == NULL)
            return unrelated(c, from, to);
        error = cbt_log_info(path, &info);
        if (error == 0)
            error = cbt_log_or(path, bitmap, len);
        if (error == -ESTALE)
            return driver_refused(c, UNRELATED, "the changes of %s are not known: its host went down", at);
        if (error != 0)
            return driver_failed(c, "reading the log", path, -error);
        if (info.parent[0] == '\0')
            return unrelated(c, from, to);
        at = arena_strdup(c->arena, info.parent);
    }
    return NULL;
}

static struct error *changed(struct call *c, const char *dir, const char *from, const char *to, uint8_t **bitmap_r, size_t *len_r)
{
    const char *path = file_cbt_path(c, dir, to);
    struct cbt_log_info info;
    int error = cbt_log_info(path, &info);

    if (error == -ENOENT)
        return err_vdi_no_cbt_metadata(c->arena, to);
    if (error != 0)
        return driver_failed(c, "reading the log", path, -error);
    if (!file_cbt_exists(c, dir, from))
        return err_vdi_no_cbt_metadata(c->arena, from);
    *len_r = cbt_bitmap_size(info.size);
    *bitmap_r = arena_alloc(c->arena, *len_r + 1);
    return walk(c, dir, from, to, *bitmap_r, *len_r);
}

struct error *file_vdi_changed_blocks(struct call *c, struct sr *sr, const char *from, const char *to, uint8_t **bitmap_r, size_t *len_r)
{
    const struct file_sr *fs = sr->state;
    struct error *error;

    TRY(file_tree_begin(c, sr));
    error = changed(c, fs->dir, from, to, bitmap_r, len_r);
    file_tree_end(sr);
    return error;
}
