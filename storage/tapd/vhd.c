/* The vhd format: opening a chain, closing it, growing. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/image/vhd_parent.h"
#include "storage/tapd/vhd_private.h"

static struct error *failed(struct arena *a, const char *path, const char *what, int error)
{
    return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s: %s: %s", path, what, strerror(-error)));
}

/* --- opening ------------------------------------------------------------------------------------ */
/* A descriptor for the structures: plain, for they are read in any pieces. */
static int plain_open(const char *path, bool writing)
{
    int fd = open(path, (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);

    return fd < 0 ? -errno : fd;
}

static struct vhd_image *image_add(struct vhd *v, const char *path, int fd)
{
    struct vhd_image *i = &v->images[v->n_images++];

    *i = (struct vhd_image) { .path = xstrdup(path), .fd = fd, .owner = v };
    return i;
}

/* The last of a chain: a raw file or device. */
static struct error *open_raw_parent(struct arena *a, struct vhd *v, const struct block_open *o, const char *path)
{
    int fd = vhd_data_open(path, true, o->cached);
    struct vhd_image *i;
    int64_t size;

    if (fd < 0)
        return failed(a, path, "cannot be opened", fd);
    i = image_add(v, path, fd);
    size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        return failed(a, path, "its size cannot be read", -errno);
    i->flat = true;
    i->size = size / VHD_SECTOR * VHD_SECTOR;
    return NULL;
}

/* A leaf that others may write to is locked; parents are nobody's alone. */
static struct error *lock_leaf(struct arena *a, const struct block_open *o, const struct vhd_file *f, int fd)
{
    int error = o->read_only && f->footer.hidden ? 0 : leaf_lock(fd, 0, !o->read_only);

    return error == 0 ? NULL : failed(a, o->path, "is in use by another tapd, or cannot be locked", error);
}

/* Opens one image and learns where the next one is (path "" : there is none). *plain_r is what 'f' reads from. */
static struct error *open_vhd(struct arena *a, struct vhd *v, const struct block_open *o, int *plain_r, struct vhd_file *f, struct vhd_parent *next)
{
    bool leaf = v->n_images == 0, writing = leaf && !o->read_only;
    const char *path = next->path;
    struct vhd_image *i;
    int fd;

    *plain_r = plain_open(path, writing);
    if (*plain_r < 0)
        return failed(a, path, "cannot be opened", *plain_r);
    fd = vhd_data_open(path, !writing, o->cached);
    if (fd < 0)
        return failed(a, path, "cannot be opened", fd);
    i = image_add(v, path, fd);
    TRY(vhd_file_read(a, *plain_r, path, false, f));
    if (leaf)
        TRY(lock_leaf(a, o, f, fd));
    TRY(vhd_file_read(a, *plain_r, path, true, f)); /* again: now nobody changes it */
    vhd_image_take(i, f);
    vhd_image_make_bitmaps(i, writing);
    *next = (struct vhd_parent) { .path = "" };
    if (f->footer.type != VHD_DIFFERENCING)
        return NULL;
    TRY(vhd_parent_find(f, next));
    if (!next->found)
        return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "damaged image %s: its parent %s is not there or has another id", path, next->path));
    return NULL;
}

static struct error *open_parents(struct arena *a, struct vhd *v, const struct block_open *o, struct vhd_parent *next)
{
    while (next->path[0] != '\0') {
        AUTO_FD plain = -1;
        struct vhd_file f;

        if (v->n_images == VHD_CHAIN_MAX + 1)
            return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "damaged image %s: a chain of more than %u images, or a loop", o->path, VHD_CHAIN_MAX));
        if (strcmp(next->format, "raw") == 0)
            return open_raw_parent(a, v, o, next->path);
        TRY(open_vhd(a, v, o, &plain, &f, next));
    }
    return NULL;
}

/* The leaf is repaired, where a crash left something to do, once all of the chain is found good. */
static struct error *open_chain(struct arena *a, struct vhd *v, const struct block_open *o)
{
    struct vhd_parent next = { .path = o->path, .format = "vhd" };
    AUTO_FD plain = -1;
    struct vhd_file f;

    TRY(open_vhd(a, v, o, &plain, &f, &next));
    TRY(open_parents(a, v, o, &next));
    if (o->read_only)
        return NULL;
    TRY(vhd_file_settle(&f));
    if (!vhd_leaf(v)->flat) {
        vhd_meta_init(v, &f);
        vhd_end_init(v, &f);
    }
    return NULL;
}

static void make_pools(struct vhd *v)
{
    v->jobs = xcalloc(VHD_JOBS, sizeof(*v->jobs));
    for (unsigned n = VHD_JOBS; n-- > 0;) {
        v->jobs[n].next = v->free_jobs;
        v->free_jobs = &v->jobs[n];
    }
    v->ops = xcalloc(VHD_OPS, sizeof(*v->ops));
    for (unsigned n = VHD_OPS; n-- > 0;) {
        v->ops[n].slot.done = vhd_op_done;
        v->ops[n].vhd = v;
        v->ops[n].next = v->free_ops;
        v->free_ops = &v->ops[n];
    }
    v->waiting_last = &v->waiting;
    v->gather.run = vhd_gathered;
}

static void vhd_free(struct vhd *v)
{
    vhd_meta_release(v);
    vhd_end_release(v);
    for (unsigned n = 0; n < v->n_images; n++)
        vhd_image_release(&v->images[n]);
    xfree(v->images);
    xfree(v->jobs);
    xfree(v->ops);
    xfree(v);
}

/* --- block_ops ---------------------------------------------------------------------------------- */
static int vhd_close(struct block *b)
{
    struct vhd *v = vhd_of(b);
    int error = 0;

    CHECK(v->n_busy == 0 && v->waiting == NULL);
    loop_not_later(b->loop, &v->gather);
    if (!b->read_only) {
        error = v->syncs.broken;
        if (error == 0 && v->unsynced && fdatasync(vhd_leaf(v)->fd) != 0)
            error = -errno;
        if (error == 0 && !vhd_leaf(v)->flat)
            error = vhd_end_cut(v);
    }
    vhd_free(v);
    return error;
}

/* The map may have moved: all of it is read again. */
static int vhd_resized(struct block *b, int64_t size)
{
    struct vhd *v = vhd_of(b);
    struct vhd_image *i = vhd_leaf(v);
    AUTO_ARENA a = arena_new();
    AUTO_FD plain = plain_open(i->path, !b->read_only);
    struct vhd_file f;

    if (plain < 0)
        return plain;
    if (v->n_busy > 0)
        return -EBUSY;
    if (vhd_file_read(a, plain, i->path, true, &f) != NULL || f.size != size || size < b->size)
        return -EINVAL;
    if (i->flat || (!b->read_only && vhd_file_settle(&f) != NULL))
        return -EIO;
    vhd_image_take(i, &f);
    if (!b->read_only) {
        vhd_meta_init(v, &f);
        vhd_end_init(v, &f);
    }
    b->size = size;
    return 0;
}

static const struct block_ops vhd_ops = { .name = "vhd", .submit = vhd_submit, .extents = vhd_extents, .close = vhd_close, .resized = vhd_resized };

struct error *vhd_open(struct arena *a, const struct block_open *o, struct block **block_r)
{
    struct vhd *v = xcalloc(1, sizeof(*v));
    struct error *error;

    v->io = o->io;
    v->can_punch = true;
    v->images = xcalloc(VHD_CHAIN_MAX + 1, sizeof(*v->images));
    error = open_chain(a, v, o);
    if (error != NULL) {
        vhd_free(v);
        return error;
    }
    v->differencing = v->n_images > 1;
    make_pools(v);
    v->block = (struct block) { .ops = &vhd_ops, .loop = o->loop, .size = v->images[0].size, .read_only = o->read_only, .thin = true };
    *block_r = &v->block;
    return NULL;
}
