#include "storage/drivers/image_recover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"

LOG_MODULE(file_sr);

struct mending {
    struct call *c;
    struct sr *sr;
    const char *dir;
    const struct journal *j;
    const struct image_ops *ops;
    const char *leaf, *base, *made; /* paths */
    bool busy;                      /* it still runs */
};

static struct error *removed(struct mending *m, const char *path)
{
    return unlink(path) == 0 || errno == ENOENT ? NULL : driver_failed(m->c, "removing", path, errno);
}

static struct error *renamed(struct mending *m, const char *from, const char *to)
{
    return rename(from, to) == 0 ? NULL : driver_failed(m->c, "renaming", from, errno);
}

static struct error *hidden_set(struct mending *m, const char *path, bool hidden)
{
    return m->ops->set_hidden == NULL ? NULL : m->ops->set_hidden(m->c, path, hidden);
}

/* --- a new branch (image_fork.c) ------------------------------------------------------------------------ */
static struct error *fork_forward(struct mending *m)
{
    if (image_exists(part_path(m->c, m->made), NULL))
        TRY(renamed(m, part_path(m->c, m->made), m->made));
    return hidden_set(m, m->base, true);
}

static struct error *fork_back(struct mending *m)
{
    TRY(removed(m, part_path(m->c, m->leaf)));
    TRY(removed(m, part_path(m->c, m->made)));
    if (!image_exists(m->leaf, NULL)) /* cannot be; but the data are more than the rule */
        return image_exists(m->base, NULL) ? renamed(m, m->base, m->leaf) : NULL;
    return removed(m, m->base);
}

static bool is_committed(struct mending *m)
{
    ino_t leaf, base;

    return image_exists(m->leaf, &leaf) && image_exists(m->base, &base) && leaf != base;
}

/* The old contents of made are not ours to remove. */
static struct error *revert_mend(struct mending *m)
{
    return is_committed(m) ? fork_forward(m) : fork_back(m);
}

static struct error *clone_mend(struct mending *m)
{
    if (is_committed(m))
        return fork_forward(m);
    TRY(removed(m, m->made));
    return fork_back(m);
}

static struct error *snapshot_mend(struct mending *m)
{
    if (is_committed(m))
        TRY(file_cbt_fork_commit(m->c, m->dir, m->j->leaf));
    else
        TRY(file_cbt_fork_undo(m->c, m->dir, m->j->leaf, m->j->made));
    return clone_mend(m);
}

/* --- copy: what a whole copy does to the logs (raw_copy.c) --------------------------------------------- */
static struct error *copy_mend(struct mending *m)
{
    const char *part = part_path(m->c, m->made);
    AUTO_FD held = -1;

    if (image_exists(m->made, NULL))
        return file_cbt_fork_commit(m->c, m->dir, m->j->leaf);
    if (image_exists(part, NULL) && (held = part_hold(part)) < 0) {
        m->busy = true;
        return NULL;
    }
    TRY(removed(m, part));
    return file_cbt_copy_undo(m->c, m->dir, m->j->leaf, m->j->made);
}

/* --- fold: base takes the place of its child leaf (image_coalesce.c) ----------------------------------- */
static struct error *fold_mend(struct mending *m)
{
    if (image_exists(m->base, NULL) || !image_exists(m->leaf, NULL))
        return NULL;
    return hidden_set(m, m->leaf, false);
}

/* --- adopt: leaf becomes a child of base, the parent of its parent -------------------------------------- */
static struct error *adopt_mend(struct mending *m)
{
    struct image image, parent;

    if (image_find(m->c, m->dir, m->sr->uuid, m->j->leaf, &image) != NULL || strcmp(image.parent, m->j->base) == 0)
        return NULL;
    TRY(image_find(m->c, m->dir, m->sr->uuid, m->j->base, &parent));
    return image.ops->set_parent(m->c, image.path, parent.path, parent.ops->format);
}

static const struct {
    const char *operation;
    struct error *(*mend)(struct mending *);
} menders[] = {
    { "snapshot", snapshot_mend },
    { "clone", clone_mend },
    { "revert", revert_mend },
    { "copy", copy_mend },
    { "fold", fold_mend },
    { "adopt", adopt_mend },
};

static struct error *mended(struct mending *m)
{
    TRY(dir_flush(m->c, m->dir));
    return m->busy ? NULL : image_journal_remove(m->c, m->dir, m->j->leaf);
}

/* And removes the journal. */
static struct error *mend(struct call *c, struct sr *sr, const struct journal *j)
{
    const struct file_sr *fs = sr->state;
    struct mending m = { .c = c, .sr = sr, .dir = fs->dir, .j = j, .ops = image_ops_find(j->format) };

    for (unsigned i = 0; i < ARRAY_LEN(menders); i++) {
        if (strcmp(menders[i].operation, j->operation) != 0 || m.ops == NULL)
            continue;
        m.leaf = image_path_of(c, m.dir, j->leaf, m.ops, false);
        m.base = image_path_of(c, m.dir, j->base, m.ops, true);
        m.made = image_path_of(c, m.dir, j->made, m.ops, false);
        TRY(menders[i].mend(&m));
        if (!m.busy)
            log_info("SR %s: the %s of %s, cut off, is mended", sr->uuid, j->operation, j->leaf);
        return mended(&m);
    }
    return driver_refused(c, "5", "the journal of %s is of an unknown kind: %s %s", j->leaf, j->operation, j->format);
}

struct error *image_recover(struct call *c, struct sr *sr, const struct journal *j)
{
    TRY(mend(c, sr, j));
    return image_journal_remove(c, ((struct file_sr *)sr->state)->dir, j->leaf);
}

/* --- after a crash ------------------------------------------------------------------------------------- */
/* Its tapd may be paused, with the old chain or the new one open. */
static struct error *crashed_recover(struct call *c, struct sr *sr, const struct journal *j)
{
    const struct vdi_live *live = sr->live;
    const struct file_sr *fs = sr->state;
    struct error *error, *resumed;
    struct image image;
    struct vdi_where where;
    bool active = false;

    TRY(live->pause(live->ctx, c, j->leaf, &active));
    error = mend(c, sr, j);
    if (!active)
        return error != NULL ? error : image_journal_remove(c, fs->dir, j->leaf);
    resumed = image_find(c, fs->dir, sr->uuid, j->leaf, &image);
    if (resumed == NULL) {
        where = file_where(c, sr, &image);
        resumed = live->resume(live->ctx, c, j->leaf, &where);
    }
    TRY(error);
    TRY(resumed);
    return image_journal_remove(c, fs->dir, j->leaf);
}

struct error *images_recover(struct call *c, struct sr *sr, bool attaching)
{
    const struct file_sr *fs = sr->state;
    struct journal *journals;
    unsigned n;

    TRY(journals_read(c, fs->dir, &journals, &n));
    for (unsigned i = 0; i < n; i++) {
        TRY(attaching ? crashed_recover(c, sr, &journals[i]) : image_recover(c, sr, &journals[i]));
    }
    return NULL;
}
