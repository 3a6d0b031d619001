#include "storage/drivers/image_fork.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"
#include "storage/drivers/image_recover.h"
#include "storage/image/vhd_file.h"

LOG_MODULE(file_sr);

struct forking {
    struct call *c;
    struct sr *sr;
    const char *dir;
    const struct fork *fork;
    const struct image *source;
    const char *base, *base_path, *made_path;
    const char *source_part, *made_part;
    bool published;             /* committed: made has its contents */
};

static struct error *step(struct forking *f, const char *name)
{
    return driver_step(f->c, "file", f->fork->operation, name);
}

static struct error *renamed(struct forking *f, const char *from, const char *to)
{
    return rename(from, to) == 0 ? NULL : driver_failed(f->c, "renaming", from, errno);
}

static struct error *child(struct forking *f, const char *part, const char *parent)
{
    const struct image_ops *ops = f->source->ops;

    unlink(part);
    return ops->create(f->c, part, f->source->virtual_size, parent, ops->format);
}

/* The second child, and what it says of itself. */
static struct error *made_prepare(struct forking *f, const char *parent)
{
    TRY(child(f, f->made_part, parent));
    if (f->fork->snapshot)
        image_mark_snapshot(f->made_part);
    return NULL;
}

static struct error *source_pause(struct forking *f, bool *active_r)
{
    const struct vdi_live *live = f->sr->live;

    *active_r = true;
    return f->fork->paused ? NULL : live->pause(live->ctx, f->c, f->source->location, active_r);
}

static struct error *source_resume(struct forking *f, const struct vdi_where *where)
{
    const struct vdi_live *live = f->sr->live;

    return f->fork->paused ? NULL : live->resume(live->ctx, f->c, f->source->location, where);
}

/* --- source holds nothing of its own ---------------------------------------------------------------- */
static struct error *fork_beside(struct forking *f)
{
    struct error *error = step(f, "child");

    if (error == NULL)
        error = made_prepare(f, f->source->parent_path);
    if (error == NULL)
        error = dir_flush(f->c, f->dir);
    if (error == NULL)
        error = step(f, "publish");
    if (error == NULL)
        error = renamed(f, f->made_part, f->made_path);
    if (error != NULL)
        unlink(f->made_part);
    return error != NULL ? error : dir_flush(f->c, f->dir);
}

static bool is_bare(struct forking *f)
{
    AUTO_FD fd = -1;
    struct vhd_file vhd;

    if (f->source->ops != &image_vhd || f->source->parent[0] == '\0')
        return false;
    fd = open(f->source->path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && vhd_file_read(f->c->arena, fd, f->source->path, true, &vhd) == NULL && vhd.n_allocated == 0;
}

/* done_r false: it is not that simple, go the long way. */
static struct error *fork_bare(struct forking *f, const struct image_list *list, bool *done_r)
{
    const struct image *parent = image_list_find(list, f->source->parent);
    struct error *error = NULL, *resumed;
    bool active = false, tracked = f->fork->snapshot && file_cbt_exists(f->c, f->dir, f->source->location);

    *done_r = false;
    if (parent == NULL || !parent->hidden || tracked || !is_bare(f))
        return NULL;
    TRY(source_pause(f, &active));
    if (f->fork->paused || (!active && file_not_elsewhere(f->c, f->sr, f->source) == NULL)) {
        *done_r = true;
        error = fork_beside(f);
    }
    resumed = source_resume(f, NULL);
    return error != NULL ? error : resumed;
}

/* --- the general case --------------------------------------------------------------------------------- */
static struct error *prepare(struct forking *f)
{
    TRY(step(f, "link"));
    if (link(f->source->path, f->base_path) != 0)
        return driver_failed(f->c, "linking", f->base_path, errno);
    TRY(step(f, "child"));
    TRY(child(f, f->source_part, f->base_path));
    if (f->source->snapshot)
        image_mark_snapshot(f->source_part);
    TRY(step(f, "made"));
    TRY(made_prepare(f, f->base_path));
    if (f->fork->snapshot)
        TRY(file_cbt_fork_prepare(f->c, f->dir, f->source->location, f->fork->made));
    TRY(step(f, "flush"));
    return dir_flush(f->c, f->dir);
}

static struct error *commit(struct forking *f)
{
    TRY(step(f, "commit"));
    TRY(renamed(f, f->source_part, f->source->path));
    TRY(step(f, "publish"));
    TRY(renamed(f, f->made_part, f->made_path));
    f->published = true;
    if (f->fork->snapshot)
        TRY(file_cbt_fork_commit(f->c, f->dir, f->source->location));
    TRY(step(f, "commit-flush"));
    return dir_flush(f->c, f->dir);
}

/* Nobody has written to the children yet, so source can be what it was; the journal then finds nothing committed. */
static struct error *take_back(struct forking *f)
{
    ino_t source, base;

    if (!image_exists(f->base_path, &base) || !image_exists(f->source->path, &source) || source == base)
        return NULL;
    f->published = false;
    unlink(f->source_part);
    if (link(f->base_path, f->source_part) != 0 || rename(f->source_part, f->source->path) != 0)
        return driver_failed(f->c, "restoring", f->source->path, errno);
    return dir_flush(f->c, f->dir);
}

/* Goes back, where that can be: the old contents of what a revert has replaced are gone. *error is what is left of it. */
static void commit_failed(struct forking *f, struct error **error)
{
    struct error *stuck = NULL;

    if (f->fork->replaces && f->published)
        *error = NULL;
    else
        stuck = take_back(f);
    if (stuck != NULL)
        log_err("%s", error_text(f->c->arena, stuck));
}

static struct error *switch_over(struct forking *f)
{
    struct vdi_where where;
    struct error *error, *resumed;
    bool active = false;

    TRY(step(f, "pause"));
    TRY(source_pause(f, &active));
    error = active ? NULL : file_not_elsewhere(f->c, f->sr, f->source);
    if (error == NULL)
        error = commit(f);
    if (error == NULL)
        error = step(f, "resume");
    if (error != NULL)
        commit_failed(f, &error);
    where = file_where(f->c, f->sr, f->source);
    resumed = source_resume(f, &where);
    if (resumed == NULL || error != NULL || (f->fork->replaces && f->published))
        return error;
    log_warn("%s does not open its new chain: %s", f->source->location, error_text(f->c->arena, resumed));
    commit_failed(f, &resumed);
    error = source_resume(f, &where);
    return error != NULL ? error : resumed;
}

static struct error *finish(struct forking *f)
{
    TRY(step(f, "hide"));
    if (f->source->ops->set_hidden != NULL)
        TRY(f->source->ops->set_hidden(f->c, f->base_path, true));
    TRY(step(f, "done"));
    return image_journal_remove(f->c, f->dir, f->source->location);
}

static struct error *fork_whole(struct forking *f)
{
    const struct journal journal = { .operation = f->fork->operation,
                                     .leaf = f->source->location,
                                     .base = f->base,
                                     .made = f->fork->made,
                                     .format = f->source->ops->format };
    struct error *error, *undone;

    TRY(step(f, "journal"));
    TRY(image_journal_write(f->c, f->dir, &journal));
    error = prepare(f);
    if (error == NULL)
        error = switch_over(f);
    if (error == NULL)
        error = finish(f);
    if (error == NULL)
        return NULL;
    undone = image_recover(&(struct call) { .arena = f->c->arena, .clock = f->c->clock, .id = f->c->id }, f->sr, &journal);
    if (undone != NULL) /* the journal stays: who comes next mends it */
        log_warn("after the %s of %s: %s", f->fork->operation, f->source->location, error_text(f->c->arena, undone));
    if (!f->published)
        return error;
    log_warn("%s of %s, done all the same: %s", f->fork->operation, f->source->location, error_text(f->c->arena, error));
    return NULL;
}

static struct error *depth_check(struct forking *f, const struct image_list *list)
{
    unsigned n = 1;

    for (const struct image *i = f->source; i != NULL && n <= FILE_CHAIN_MAX; i = image_list_find(list, i->parent))
        n++;
    if (n > FILE_CHAIN_MAX)
        return driver_refused(f->c, "109", "the chain of snapshots of %s is too long", f->source->location);
    return NULL;
}

struct error *image_fork(struct call *c, struct sr *sr, const struct fork *fork)
{
    const struct file_sr *fs = sr->state;
    const struct image_ops *ops = fork->source->ops;
    struct forking f = { .c = c, .sr = sr, .dir = fs->dir, .fork = fork, .source = fork->source };
    struct image_list list;
    bool done;

    f.base = uuid_make(c->arena);
    f.base_path = image_path_of(c, f.dir, f.base, ops, true);
    f.made_path = image_path_of(c, f.dir, fork->made, ops, false);
    f.source_part = part_path(c, fork->source->path);
    f.made_part = part_path(c, f.made_path);
    TRY(image_list_read(c, f.dir, &list));
    TRY(fork_bare(&f, &list, &done));
    if (done)
        return NULL;
    TRY(depth_check(&f, &list));
    return fork_whole(&f);
}
