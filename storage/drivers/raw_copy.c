#include "storage/drivers/raw_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"
#include "storage/drivers/image_recover.h"
#include "storage/sparse_copy.h"

LOG_MODULE(file_sr);

struct copying {
    struct call *c;
    struct sr *sr;
    const struct fork *fork;
    const struct image *source;
    const char *dir, *part, *path;
    bool tracked;            /* the log of changed blocks goes to the snapshot */
    struct journal journal;  /* of that */
};

static struct error *step(struct copying *k, const char *name)
{
    return driver_step(k->c, "file", k->fork->operation, name);
}

/* --- in a pause ------------------------------------------------------------------------------------- */
static int share_blocks(struct copying *k)
{
    AUTO_FD from = open(k->source->path, O_RDONLY | O_CLOEXEC);
    AUTO_FD to = open(k->part, O_RDWR | O_CLOEXEC);

    return from < 0 || to < 0 || ioctl(to, FICLONE, from) != 0 ? -errno : 0;
}

static struct error *share(struct copying *k)
{
    int error;

    TRY(step(k, "share"));
    error = share_blocks(k);
    return error == 0 ? NULL : driver_failed(k->c, "sharing the blocks of", k->source->path, -error);
}

static struct error *log_switch(struct copying *k)
{
    if (!k->tracked)
        return NULL;
    TRY(step(k, "log"));
    TRY(file_cbt_fork_commit(k->c, k->dir, k->source->location));
    return dir_flush(k->c, k->dir);
}

/* Shares the blocks there and then, or just looks whether it is served, and goes over to the new log. */
static struct error *in_pause(struct copying *k, bool sharing, bool *served_r)
{
    const struct vdi_live *live = k->sr->live;
    struct error *error, *resumed = NULL;
    struct vdi_where where;

    *served_r = false;
    TRY(step(k, "pause"));
    if (!k->fork->paused)
        TRY(live->pause(live->ctx, k->c, k->source->location, served_r));
    error = *served_r ? NULL : file_not_elsewhere(k->c, k->sr, k->source);
    if (error == NULL && sharing)
        error = share(k);
    if (error == NULL)
        error = log_switch(k);
    where = file_where(k->c, k->sr, k->source);
    if (!k->fork->paused)
        resumed = live->resume(live->ctx, k->c, k->source->location, k->tracked ? &where : NULL);
    return error != NULL ? error : resumed;
}

/* --- the data ------------------------------------------------------------------------------------------ */
static struct error *copy(struct copying *k)
{
    const struct vdi_live *live = k->sr->live;
    struct vdi_where from = file_where(k->c, k->sr, k->source), to = { .format = "raw", .path = k->part, .cached = from.cached, .cbt = "" };
    bool served;

    TRY(file_room(k->c, k->sr, k->source->physical_size));
    TRY(in_pause(k, false, &served));
    TRY(step(k, "copy"));
    if (served)
        TRY(live->copy_point(live->ctx, k->c, k->source->location, &from, &to));
    else
        TRY(sparse_copy_path(k->c, k->source->path, k->part, k->source->virtual_size));
    /* what was written between the new log's beginning and the moment of the copy is in both */
    return k->tracked ? file_cbt_add(k->c, k->dir, k->source->location, k->fork->made) : NULL;
}

static struct error *flush(struct copying *k, int fd)
{
    return fsync(fd) == 0 ? NULL : driver_failed(k->c, "syncing", k->part, errno);
}

static struct error *publish_in_turn(struct copying *k)
{
    if (rename(k->part, k->path) != 0)
        return driver_failed(k->c, "renaming", k->part, errno);
    TRY(dir_flush(k->c, k->dir));
    return k->tracked ? image_journal_remove(k->c, k->dir, k->journal.leaf) : NULL;
}

static struct error *publish(struct copying *k)
{
    struct error *error;

    if (k->fork->snapshot)
        image_mark_snapshot(k->part);
    TRY(step(k, "publish"));
    TRY(file_tree_begin(k->c, k->sr));
    error = publish_in_turn(k);
    file_tree_end(k->sr);
    return error;
}

/* --- all of it ------------------------------------------------------------------------------------------ */
static struct error *logs_prepare(struct copying *k)
{
    struct error *error;

    if (!k->tracked)
        return NULL;
    TRY(step(k, "journal"));
    TRY(file_tree_begin(k->c, k->sr));
    error = image_journal_write(k->c, k->dir, &k->journal);
    if (error == NULL)
        error = file_cbt_fork_prepare(k->c, k->dir, k->source->location, k->fork->made);
    file_tree_end(k->sr);
    return error;
}

static void undo(struct copying *k)
{
    struct call calm = { .arena = k->c->arena, .clock = k->c->clock, .id = k->c->id };
    struct error *error;

    unlink(k->part);
    if (!k->tracked)
        return;
    error = file_tree_begin(&calm, k->sr); /* the part is gone: this undoes it */
    if (error == NULL)
        file_tree_end(k->sr);
    else
        log_warn("after the %s of %s: %s", k->fork->operation, k->source->location, error_text(k->c->arena, error));
}

static struct error *copy_held(struct copying *k, int held)
{
    bool served;

    TRY(logs_prepare(k));
    if (((struct file_sr *)k->sr->state)->reflink)
        TRY(in_pause(k, true, &served));
    else
        TRY(copy(k));
    TRY(flush(k, held));
    return publish(k);
}

struct error *raw_copy(struct call *c, struct sr *sr, const struct fork *fork)
{
    const char *dir = ((struct file_sr *)sr->state)->dir;
    struct copying k = { .c = c, .sr = sr, .dir = dir, .fork = fork, .source = fork->source };
    struct error *error;
    AUTO_FD held = -1;

    k.path = image_path_of(c, dir, fork->made, fork->source->ops, false);
    k.part = part_path(c, k.path);
    k.tracked = fork->snapshot && file_cbt_exists(c, dir, fork->source->location);
    k.journal = (struct journal) {
        .operation = "copy", .leaf = fork->source->location, .base = "", .made = fork->made, .format = fork->source->ops->format };
    unlink(k.part);
    TRY(step(&k, "part"));
    TRY(fork->source->ops->create(c, k.part, fork->source->virtual_size, NULL, NULL));
    held = part_hold(k.part);
    error = held < 0 ? driver_failed(c, "locking", k.part, errno) : copy_held(&k, held);
    if (error != NULL)
        undo(&k);
    return error;
}
