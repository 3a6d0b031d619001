/* Snapshot, clone and revert of the file drivers: by tree or by copy, as the format can. */
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"
#include "storage/drivers/file_sr.h"
#include "storage/drivers/image_fork.h"
#include "storage/drivers/raw_copy.h"

static struct error *copy_by_tree(struct call *c, struct sr *sr, const struct fork *f)
{
    const struct file_sr *fs = sr->state;
    struct fork again = *f;
    struct image source;
    struct error *error;

    TRY(file_tree_begin(c, sr));
    again.source = &source;
    error = image_find(c, fs->dir, sr->uuid, f->source->location, &source); /* now that nobody changes it */
    if (error == NULL)
        error = image_fork(c, sr, &again);
    file_tree_end(sr);
    return error;
}

static struct error *copy_used(struct call *c, struct sr *sr, const char *location, struct fork *f)
{
    const struct file_sr *fs = sr->state;
    struct image source;

    TRY(image_find(c, fs->dir, sr->uuid, location, &source));
    f->source = &source;
    return source.ops->can_have_parent ? copy_by_tree(c, sr, f) : raw_copy(c, sr, f);
}

/* 'location' is the source. */
static struct error *copy(struct call *c, struct sr *sr, const char *location, struct fork *f)
{
    struct file_sr *fs = sr->state;
    struct image_use source, made;
    struct error *error;

    TRY(image_use_begin(c, &fs->turn, &source, location));
    error = image_use_begin(c, &fs->turn, &made, f->made);
    if (error == NULL) {
        error = copy_used(c, sr, location, f);
        image_use_end(&fs->turn, &made);
    }
    image_use_end(&fs->turn, &source);
    return error;
}

/* The source is not the VDI the call is about: it is paused, where somebody reads it, before the turn is taken. */
static struct error *copy_paused(struct call *c, struct sr *sr, const char *location, struct fork *f)
{
    const struct vdi_live *live = sr->live;
    struct error *error, *resumed;
    struct vdi_where where;
    bool active;

    TRY(live->pause(live->ctx, c, location, &active));
    f->paused = true;
    error = copy(c, sr, location, f);
    resumed = file_vdi_attach(c, sr, location, true, &where);
    if (resumed == NULL)
        resumed = live->resume(live->ctx, c, location, &where);
    return error != NULL ? error : resumed;
}

static struct error *branch(struct call *c, struct sr *sr, const char *location, struct fork *f, struct vdi_stat *vdi)
{
    if (!uuid_valid(f->made))
        return driver_refused(c, "5", "no uuid: %s", f->made);
    if (file_vdi_stat(c, sr, f->made, vdi) == NULL) /* a repeated call */
        return NULL;
    TRY(copy(c, sr, location, f));
    return file_vdi_stat(c, sr, f->made, vdi);
}

struct error *file_vdi_snapshot(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct fork f = { .operation = "snapshot", .made = uuid, .snapshot = true };

    return branch(c, sr, location, &f, vdi);
}

struct error *file_vdi_clone(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct fork f = { .operation = "clone", .made = uuid };

    return branch(c, sr, location, &f, vdi);
}

struct error *file_vdi_revert(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    const struct file_sr *fs = sr->state;
    struct fork f = { .operation = "revert", .made = location, .replaces = true };
    struct error *error;
    struct image old, snapshot;

    TRY(image_find(c, fs->dir, sr->uuid, location, &old));
    TRY(image_find(c, fs->dir, sr->uuid, uuid, &snapshot));
    if (old.ops != snapshot.ops)
        return driver_refused(c, "38", "%s is %s, its snapshot is %s", location, old.ops->format, snapshot.ops->format);
    TRY(file_not_elsewhere(c, sr, &old));
    TRY(file_tree_begin(c, sr));
    error = file_cbt_fill(c, fs->dir, location, snapshot.virtual_size);
    file_tree_end(sr);
    TRY(error);
    TRY(copy_paused(c, sr, uuid, &f));
    return file_vdi_stat(c, sr, location, vdi);
}
