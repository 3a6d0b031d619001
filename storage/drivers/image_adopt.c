/* How coalescing ends: children change their parent, or a base takes the place of its last child. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/image_coalesce.h"
#include "storage/drivers/image_recover.h"

LOG_MODULE(coalesce);

static struct error *step(struct call *c, const char *operation, const char *name)
{
    return driver_step(c, "file", operation, name);
}

/* Leaves it to the journal what an operation did that failed. */
static struct error *undone(struct call *c, struct sr *sr, const struct journal *journal, struct error *error)
{
    struct error *stuck = image_recover(&(struct call) { .arena = c->arena, .clock = c->clock, .id = c->id }, sr, journal);

    if (stuck != NULL)
        log_warn("after the %s of %s: %s", journal->operation, journal->leaf, error_text(c->arena, stuck));
    return error;
}

/* --- adopt --------------------------------------------------------------------------------------- */
/* So that no host opens the leaf meanwhile; -1 where one has. */
static int lock_leaf(const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);

    return fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0 ? fd_steal(&fd) : -1;
}

static struct error *adopt(struct call *c, struct sr *sr, const struct image *child, const struct image *parent, const struct journal *journal)
{
    const struct file_sr *fs = sr->state;
    struct error *error;

    TRY(step(c, "adopt", "journal"));
    TRY(image_journal_write(c, fs->dir, journal));
    error = step(c, "adopt", "link");
    if (error == NULL)
        error = child->ops->set_parent(c, child->path, parent->path, parent->ops->format);
    if (error == NULL)
        error = step(c, "adopt", "done");
    return error != NULL ? undone(c, sr, journal, error) : image_journal_remove(c, fs->dir, child->location);
}

static struct error *adopt_in_turn(struct call *c, struct sr *sr, const struct image *child, const struct image *base, const struct image *parent,
                                   bool lock)
{
    const struct file_sr *fs = sr->state;
    const struct journal journal = { .operation = "adopt",
                                     .leaf = child->location,
                                     .base = parent->location,
                                     .made = base->location,
                                     .format = child->ops->format };
    struct image now;
    AUTO_FD held = -1;

    if (image_find(c, fs->dir, sr->uuid, child->location, &now) != NULL || now.inode != child->inode || strcmp(now.parent, base->location) != 0)
        return NULL; /* no child of it any more */
    if (lock && (held = lock_leaf(child->path)) < 0)
        return driver_refused(c, "46", "%s is in use on another host", child->location);
    return adopt(c, sr, child, parent, &journal);
}

struct error *image_adopt(struct call *c, struct sr *sr, const struct image *child, const struct image *base, const struct image *parent)
{
    const struct vdi_live *live = sr->live;
    struct error *error, *resumed = NULL;
    struct vdi_where where = file_where(c, sr, child);
    bool active = false;

    if (!child->hidden)
        TRY(live->pause(live->ctx, c, child->location, &active));
    error = file_tree_begin(c, sr);
    if (error == NULL) {
        error = adopt_in_turn(c, sr, child, base, parent, sr->shared && !child->hidden && !active);
        file_tree_end(sr);
    }
    if (!child->hidden)
        resumed = live->resume(live->ctx, c, child->location, active ? &where : NULL);
    return error != NULL ? error : resumed;
}

/* --- fold ------------------------------------------------------------------------------------------ */
/* Nothing has changed since the data were merged. */
static struct error *fold_check(struct call *c, struct sr *sr, const struct image *leaf, const struct image *parent)
{
    const struct file_sr *fs = sr->state;
    const struct image *l, *p;
    struct image_list list;

    TRY(image_list_read(c, fs->dir, &list));
    l = image_list_find(&list, leaf->location);
    p = image_list_find(&list, parent->location);
    if (list.damaged || l == NULL || p == NULL || l->inode != leaf->inode || p->inode != parent->inode || l->virtual_size > p->virtual_size ||
        strcmp(l->parent, parent->location) != 0 || image_list_children(&list, parent->location, NULL) != 1)
        return driver_refused(c, "5", "the tree of %s has changed", leaf->location);
    return NULL;
}

static void mark_as(const struct image *leaf, const char *path)
{
    if (leaf->snapshot)
        image_mark_snapshot(path);
    else
        image_unmark_snapshot(path);
}

static struct error *replace(struct call *c, const char *dir, const struct image *leaf, const struct image *parent)
{
    TRY(step(c, "fold", "commit"));
    mark_as(leaf, parent->path);
    if (rename(parent->path, leaf->path) != 0)
        return driver_failed(c, "renaming", parent->path, errno);
    return dir_flush(c, dir);
}

/* With the turn. */
static struct error *fold(struct call *c, struct sr *sr, const struct image *leaf, const struct image *parent, bool active)
{
    const struct file_sr *fs = sr->state;
    const struct vdi_live *live = sr->live;
    const struct journal journal = {
        .operation = "fold", .leaf = leaf->location, .base = parent->location, .made = "", .format = leaf->ops->format };
    struct vdi_where where = file_where(c, sr, leaf);
    struct error *error = fold_check(c, sr, leaf, parent), *resumed = NULL;
    bool replaced = false;

    if (error == NULL)
        error = step(c, "fold", "journal");
    if (error == NULL && (error = image_journal_write(c, fs->dir, &journal)) == NULL) {
        error = replace(c, fs->dir, leaf, parent);
        replaced = !image_exists(parent->path, NULL);
    }
    if (active)
        resumed = live->resume(live->ctx, c, leaf->location, replaced ? &where : NULL);
    if (error == NULL)
        error = step(c, "fold", "show");
    if (error == NULL && leaf->ops->set_hidden != NULL)
        error = leaf->ops->set_hidden(c, leaf->path, false);
    if (error == NULL)
        error = step(c, "fold", "done");
    error = error != NULL ? undone(c, sr, &journal, error) : image_journal_remove(c, fs->dir, leaf->location);
    return error != NULL ? error : resumed;
}

struct error *image_fold(struct call *c, struct sr *sr, const struct image *leaf, const struct image *parent, bool active)
{
    const struct vdi_live *live = sr->live;
    struct error *error = file_tree_begin(c, sr), *resumed;

    if (error == NULL) {
        error = fold(c, sr, leaf, parent, active);
        file_tree_end(sr);
        return error;
    }
    resumed = active ? live->resume(live->ctx, c, leaf->location, NULL) : NULL;
    if (resumed != NULL)
        log_err("%s: %s", leaf->location, error_text(c->arena, resumed));
    return error;
}
