/* What is where in a chain, sector by sector. Reads bitmaps that are not cached, and waits for them. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/tapd/vhd_private.h"

struct walk {
    struct vhd *v;
    bool own_only;
    block_extent_fn *fn;
    void *ctx;
    struct block_extent held;   /* not told yet: the next one may be of its kind */
    bool enough;
    uint8_t *scratch;           /* a bitmap */
    const struct vhd_image *scratch_image;
    uint32_t scratch_block;
};

#define SCRATCH_SIZE (VHD_BLOCK_MAX / VHD_SECTOR / 8)

static void tell(struct walk *w, int64_t offset, int64_t length, bool hole, bool zero)
{
    struct block_extent *h = &w->held;

    if (h->length > 0 && h->hole == hole && h->zero == zero) {
        h->length += length;
        return;
    }
    if (h->length > 0 && !w->fn(w->ctx, h))
        w->enough = true;
    *h = (struct block_extent) { .offset = offset, .length = length, .hole = hole, .zero = zero };
}

/* The run of one kind at [at, end) of the file: data, or a hole in it. A file system that cannot tell has data only. */
static int64_t file_run(int fd, int64_t at, int64_t end, bool *hole_r)
{
    int64_t data = lseek(fd, at, SEEK_DATA), to;

    *hole_r = data < 0 ? errno == ENXIO : data > at;
    if (data < 0)
        return end;
    to = *hole_r ? data & ~(int64_t)(VHD_SECTOR - 1) : (lseek(fd, at, SEEK_HOLE) + VHD_SECTOR - 1) & ~(int64_t)(VHD_SECTOR - 1);
    if (to <= at) {
        *hole_r = false;
        to = at + VHD_SECTOR;
    }
    return to < end ? to : end;
}

/* 'length' bytes at 'at' are in this image, at 'offset' of its file. */
static void tell_held(struct walk *w, const struct vhd_image *i, int64_t at, int64_t length, int64_t offset)
{
    for (int64_t done = 0; done < length && !w->enough;) {
        bool hole;
        int64_t n = file_run(i->fd, offset + done, offset + length, &hole) - (offset + done);

        tell(w, at + done, n, hole && !w->own_only, hole);
        done += n;
    }
}

static int bits_of(struct walk *w, struct vhd_image *i, uint32_t block, const uint8_t **bits_r)
{
    const struct vhd_bitmap *b = vhd_bitmap_find(i, block);
    int error;

    *bits_r = b != NULL && !b->loading ? b->bits : w->scratch;
    if (*bits_r != w->scratch || (w->scratch_image == i && w->scratch_block == block))
        return 0;
    w->scratch_image = NULL;
    error = fd_pread_all(i->fd, w->scratch, i->bitmap_size, vhd_bitmap_at(i, block));
    if (error != 0)
        return error;
    w->scratch_image = i;
    w->scratch_block = block;
    return 0;
}

/* One image's answer about [at, at + *n_r), which it makes shorter: it has it at *offset_r, or not. */
static int ask(struct walk *w, struct vhd_image *i, int64_t at, int64_t *n_r, bool *has_r, int64_t *offset_r)
{
    uint32_t block, in_block, n;
    const uint8_t *bits;
    int error;

    *has_r = i->flat;
    *offset_r = at;
    if (i->flat)
        return 0;
    block = vhd_block_of(i, at);
    in_block = (uint32_t)(at % i->block_size);
    n = *n_r < i->block_size - in_block ? (uint32_t)*n_r : i->block_size - in_block;
    *n_r = n;
    if (i->bat[block] == VHD_UNUSED)
        return 0;
    *offset_r = vhd_data_at(i, block) + in_block;
    *has_r = vhd_is_full(i, block);
    if (*has_r)
        return 0;
    error = bits_of(w, i, block, &bits);
    if (error != 0)
        return error;
    *n_r = (int64_t)vhd_bitmap_run(bits, in_block / VHD_SECTOR, n / VHD_SECTOR) * VHD_SECTOR;
    *has_r = vhd_bit(bits, in_block / VHD_SECTOR);
    return 0;
}

static int step(struct walk *w, int64_t at, int64_t *n_r)
{
    struct vhd *v = w->v;
    unsigned levels = w->own_only ? 1 : v->n_images;
    int64_t offset = 0;

    for (unsigned level = 0; level < levels; level++) {
        struct vhd_image *i = &v->images[level];
        bool has;
        int error;

        if (at >= i->size)
            break;
        if (*n_r > i->size - at)
            *n_r = i->size - at;
        error = ask(w, i, at, n_r, &has, &offset);
        if (error != 0)
            return error;
        if (has) {
            tell_held(w, i, at, *n_r, offset);
            return 0;
        }
    }
    tell(w, at, *n_r, true, !w->own_only || v->n_images == 1);
    return 0;
}

int vhd_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    struct walk w = { .v = vhd_of(b), .own_only = own_only, .fn = fn, .ctx = ctx, .scratch = vhd_pages_new(SCRATCH_SIZE) };
    int error = 0;

    for (int64_t at = offset, n; at < offset + length && error == 0 && !w.enough; at += n) {
        n = offset + length - at;
        error = step(&w, at, &n);
    }
    if (error == 0 && !w.enough && w.held.length > 0)
        fn(ctx, &w.held);
    vhd_pages_free(w.scratch, SCRATCH_SIZE);
    return error;
}
