/* One image of a chain as the vhd driver holds it: its map in memory, its bitmaps as far as they are cached.
 *
 * 'flat' images (raw files, fixed VHDs) have no map. All on the loop's thread. */
#ifndef STORAGE_TAPD_VHD_IMAGE_H
#define STORAGE_TAPD_VHD_IMAGE_H

#include "storage/image/vhd_file.h"
#include "storage/tapd/block.h"

#define VHD_BITMAPS 1024u /* cached for each image; a job needs one at a time */

struct vhd_job;
struct vhd_image;

/* The bitmap of one block in the cache. Not given up while loading, dirty, staged or referred to. */
struct vhd_bitmap {
    struct disk_io_op_slot slot; /* reads it */
    struct iovec iov;
    struct vhd_image *image;
    uint32_t block;
    uint8_t *bits, *stage;       /* stage: the copy that is being written (leaf only) */
    bool used, loading, dirty, staged;
    unsigned refs;               /* operations that will set bits */
    uint64_t round;              /* the last round of metadata that wrote or will write it */
    struct vhd_job *waiting;     /* for the load */
    struct vhd_bitmap *newer, *older;  /* by use */
    struct vhd_bitmap *same_hash, *next_dirty, *next_staged;
};

struct vhd_bitmaps {
    struct vhd_bitmap *all;
    struct vhd_bitmap *hash[VHD_BITMAPS];
    struct vhd_bitmap *newest, *oldest;
    uint8_t *memory;
    size_t memory_size;
};

struct vhd_image {
    char *path;
    int fd;                /* O_DIRECT unless asked or impossible */
    bool flat;
    int64_t size;
    uint32_t block_size, bitmap_size, entries;
    uint32_t *bat;         /* sectors, host order; VHD_UNUSED */
    uint8_t *full;         /* a bit a block: all its sectors are here */
    struct vhd_bitmaps bitmaps;
    void *owner;           /* the driver's */
};

static inline uint32_t vhd_block_of(const struct vhd_image *i, int64_t offset) { return (uint32_t)(offset / i->block_size); }
static inline bool vhd_is_full(const struct vhd_image *i, uint32_t block) { return (i->full[block >> 3] & (1u << (block & 7))) != 0; }
static inline void vhd_set_full(struct vhd_image *i, uint32_t block) { i->full[block >> 3] |= (uint8_t)(1u << (block & 7)); }
static inline int64_t vhd_bitmap_at(const struct vhd_image *i, uint32_t block) { return (int64_t)i->bat[block] * VHD_SECTOR; }
static inline int64_t vhd_data_at(const struct vhd_image *i, uint32_t block) { return vhd_bitmap_at(i, block) + i->bitmap_size; }

/* Opens path (read_only or not, cached or not) for data. -errno. */
int vhd_data_open(const char *path, bool read_only, bool cached);
/* Takes size and map from what was read; the second time (it grew) keeps what is known of the blocks. */
void vhd_image_take(struct vhd_image *, const struct vhd_file *);
void vhd_image_make_bitmaps(struct vhd_image *, bool writable); /* once, after vhd_image_take */
void vhd_image_release(struct vhd_image *); /* closes; zeroed with fd -1 is fine */

/* Zeroed memory of whole pages, for O_DIRECT; and back. */
void *vhd_pages_new(size_t size);
void vhd_pages_free(void *, size_t size);

/* --- bitmaps ------------------------------------------------------------------------------------------- */
struct vhd_bitmap *vhd_bitmap_find(struct vhd_image *, uint32_t block); /* NULL; it is the newest then */
/* A fresh one for a block that has none here, all bits clear; NULL: all are in use. */
struct vhd_bitmap *vhd_bitmap_take(struct vhd_image *, uint32_t block);
void vhd_bitmap_drop(struct vhd_bitmap *);
bool vhd_bitmap_is_free(const struct vhd_bitmap *);
/* Length in sectors, at most n, of the run of equal bits that begins at 'first'. */
uint32_t vhd_bitmap_run(const uint8_t *bits, uint32_t first, uint32_t n);
bool vhd_bitmap_set(uint8_t *bits, uint32_t first, uint32_t n); /* true: something changed */

#endif
