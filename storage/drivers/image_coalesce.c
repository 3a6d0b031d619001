#include "storage/drivers/image_coalesce.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/log.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_cbt.h"

LOG_MODULE(coalesce);

#define WAIT_MS 200

struct cleaning {
    struct call *c;
    struct sr *sr;
    struct file_sr *fs;
    struct image_list list;
    bool done;      /* the step did something */
    bool preempted; /* a verb wanted the image */
};

/* --- what may be touched --------------------------------------------------------------------------- */
/* On a shared SR: some leaf that reads through 'image' is open on another host. */
static bool open_elsewhere(struct cleaning *k, const struct image *image, unsigned depth)
{
    if (!image->hidden)
        return !image_is_active(&k->fs->turn, image->location) && image_is_locked(image, false);
    for (unsigned i = 0; depth < FILE_CHAIN_MAX && i < k->list.n; i++)
        if (strcmp(k->list.images[i].parent, image->location) == 0 && open_elsewhere(k, &k->list.images[i], depth + 1))
            return true;
    return false;
}

static bool allowed(struct cleaning *k, const struct image *image)
{
    if (!k->sr->shared)
        return true;
    return image->hidden ? !open_elsewhere(k, image, 0) : image_is_active(&k->fs->turn, image->location);
}

/* qemu-img does the work for QCOW2, and cannot while anybody reads the chain. */
static bool in_use(struct cleaning *k, const struct image *image, unsigned depth)
{
    if (!image->hidden)
        return image_is_active(&k->fs->turn, image->location);
    for (unsigned i = 0; depth < FILE_CHAIN_MAX && i < k->list.n; i++)
        if (strcmp(k->list.images[i].parent, image->location) == 0 && in_use(k, &k->list.images[i], depth + 1))
            return true;
    return false;
}

/* The base that 'image' can be merged into, or NULL. */
static const struct image *target_of(struct cleaning *k, const struct image *image)
{
    const struct image *parent = image_list_find(&k->list, image->parent);

    if (parent == NULL || !parent->hidden || parent->ops != image->ops)
        return NULL;
    if (image->ops == &image_qcow2 && (k->sr->shared || in_use(k, image, 0)))
        return NULL;
    return image_list_children(&k->list, parent->location, NULL) == 1 && allowed(k, image) ? parent : NULL;
}

/* --- garbage ---------------------------------------------------------------------------------------- */
static struct error *garbage_remove(struct cleaning *k)
{
    for (unsigned i = 0; i < k->list.n; i++) {
        const struct image *image = &k->list.images[i];

        if (!image->hidden || image_list_children(&k->list, image->location, NULL) > 0 || image_is_locked(image, false))
            continue;
        TRY(driver_step(k->c, "file", "clean", "remove"));
        log_info("SR %s: removing %s, which nobody needs", k->sr->uuid, image->name);
        if (unlink(image->path) != 0 && errno != ENOENT)
            return driver_failed(k->c, "removing", image->path, errno);
        k->done = true;
        return dir_flush(k->c, k->fs->dir);
    }
    return NULL;
}

/* --- merging ------------------------------------------------------------------------------------------ */
struct merging { struct call call; struct call *outer; struct cancel *cancel; };

static void merge_progress(struct call *c, double fraction)
{
    struct merging *m = c->progress_ctx;

    if (call_cancelled(m->outer))
        cancel_raise(m->cancel);
    call_progress(m->outer, fraction);
}

static struct error *grow(struct cleaning *k, const struct image *parent, int64_t size)
{
    struct error *error;

    if (parent->virtual_size >= size)
        return NULL;
    TRY(file_tree_begin(k->c, k->sr));
    error = driver_step(k->c, "file", "clean", "grow");
    if (error == NULL)
        error = parent->ops->resize(k->c, parent->path, size);
    file_tree_end(k->sr);
    return error;
}

static struct error *children_adopt(struct cleaning *k, const struct image *base, const struct image *parent)
{
    struct image_list now;

    TRY(file_tree_begin(k->c, k->sr));
    struct error *error = image_list_read(k->c, k->fs->dir, &now);
    file_tree_end(k->sr);
    TRY(error);
    if (now.damaged)
        return driver_refused(k->c, "5", "an image of the SR cannot be read");
    for (unsigned i = 0; i < now.n; i++)
        if (strcmp(now.images[i].parent, base->location) == 0)
            TRY(image_adopt(k->c, k->sr, &now.images[i], base, parent));
    return NULL;
}

/* Not in use. What was committed when it is killed does no harm. */
static struct error *commit_qcow2(struct call *c, const struct image *image)
{
    const char *const argv[] = { "qemu-img", "commit", "-q", "-d", "-f", "qcow2", image->path, NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    int status = 0, error;
    pid_t pid;

    spec.argv = argv;
    error = child_start(&spec, &pid);
    if (error != 0)
        return driver_failed(c, "running", argv[0], -error);
    while ((error = child_wait(pid, WAIT_MS, &status)) == -ETIMEDOUT) {
        call_progress(c, 0);
        if (call_cancelled(c))
            (void)kill(pid, SIGKILL);
    }
    if (call_cancelled(c))
        return driver_cancelled(c);
    if (error != 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return driver_refused(c, "5", "qemu-img commit of %s failed", image->path);
    return NULL;
}

static struct error *data_merge(struct cleaning *k, struct call *c, const struct image *image, const struct image *parent, bool *active_r)
{
    const struct vdi_live *live = k->sr->live;
    struct vdi_where from = file_where(k->c, k->sr, image), to = file_where(k->c, k->sr, parent);

    *active_r = false;
    if (image->ops == &image_qcow2)
        return commit_qcow2(c, image);
    if (live->merge == NULL)
        return driver_refused(c, "5", "there is no tapd here to merge images");
    return live->merge(live->ctx, c, image->location, &from, &to, active_r);
}

static struct error *merge(struct cleaning *k, struct call *c, const struct image *image, const struct image *parent)
{
    bool active = false;

    TRY(driver_step(k->c, "file", "clean", "merge"));
    TRY(file_room(k->c, k->sr, image->physical_size));
    TRY(grow(k, parent, image->virtual_size));
    TRY(data_merge(k, c, image, parent, &active));
    if (image->hidden)
        return children_adopt(k, image, parent);
    return image_fold(k->c, k->sr, image, parent, active);
}

/* In a call that ends when somebody wants the image. */
static struct error *merge_marked(struct cleaning *k, const struct image *image, const struct image *parent)
{
    struct merging m = { .call = *k->c, .outer = k->c, .cancel = cancel_new() };
    struct error *error = NULL;

    m.call.cancel = m.cancel;
    m.call.progress = merge_progress;
    m.call.progress_ctx = &m;
    if (image_merge_begin(&k->fs->turn, image->location, m.cancel)) {
        log_debug("SR %s: %s goes into %s", k->sr->uuid, image->name, parent->name);
        error = merge(k, &m.call, image, parent);
        image_merge_end(&k->fs->turn);
        k->done = error == NULL;
        if (error_is(error, "TASK_CANCELLED") && !call_cancelled(k->c)) {
            k->preempted = true;
            error = NULL;
        }
    }
    cancel_unref(m.cancel);
    return error;
}

/* Bases first: that makes chains short for the leaves. What fails stands in nobody else's way, and is the step's error
 * when nothing else could be done. */
static struct error *merge_one(struct cleaning *k)
{
    struct error *failed = NULL;

    for (int hidden = 1; hidden >= 0; hidden--) {
        for (unsigned i = 0; i < k->list.n && !k->done && !k->preempted; i++) {
            const struct image *image = &k->list.images[i], *parent = target_of(k, image);
            struct error *error;

            if (image->hidden != (hidden != 0) || parent == NULL)
                continue;
            error = merge_marked(k, image, parent);
            if (call_cancelled(k->c))
                return driver_cancelled(k->c);
            if (error != NULL)
                log_warn("SR %s: %s stays as it is: %s", k->sr->uuid, image->name, error_text(k->c->arena, error));
            failed = failed != NULL ? failed : error;
        }
    }
    return k->done || k->preempted ? NULL : failed;
}

struct error *file_sr_clean(struct call *c, struct sr *sr, bool *more_r)
{
    struct cleaning k = { .c = c, .sr = sr, .fs = sr->state };
    struct error *error;

    *more_r = false;
    TRY(file_tree_begin(c, sr));
    error = image_list_read(c, k.fs->dir, &k.list);
    if (error == NULL && !k.list.damaged)
        error = garbage_remove(&k);
    if (error == NULL)
        error = file_cbt_tidy(c, k.fs->dir);
    file_tree_end(sr);
    TRY(error);
    if (!k.done && !k.list.damaged)
        TRY(merge_one(&k));
    *more_r = k.done || k.preempted;
    return NULL;
}
