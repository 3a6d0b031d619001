/* The vhd driver's own state, for vhd.c (open, close), vhd_io.c (requests), vhd_meta.c, vhd_end.c, vhd_extents.c.
 *
 * How a write becomes safe. Three promises:
 *   acknowledged  the data, the sectors' bits and the block's BAT entry are with the kernel: killing tapd loses
 *                 nothing
 *   flushed       the same on the medium (fdatasync)
 *   any moment    what is on the medium is an image: both footers good, every BAT entry leads to a block inside
 *                 the file
 * A new block is taken behind the last one, in a hole. Its BAT entry may be written at any time, for its bitmap
 * and data read as zeros. Bits are set in memory when the data has been written, and only then go to the medium.
 * BAT pages, bitmaps and the bitmaps of ones of new blocks gather and are written in rounds, one at a time; a job
 * is done when the round that covers what it changed is done. So metadata costs one small write for many jobs.
 * No sync stands between data and bits, only the order: over a parent, a sector that was written and not flushed
 * when the power went may read as zeros, where a disk would give the old or the new contents.
 * Before blocks are taken the file is made longer, many blocks ahead, with a footer at its new end (which falls
 * into the gap before a block), and synced: the end of the file is always a footer. Opening and closing for writing
 * cut off what is ahead.
 *
 * A block of an image without parent gets a bitmap of ones at once, for it reads as zeros anyway. Bits are never
 * cleared and blocks never given back: zeros punch holes into the data. */
#ifndef STORAGE_TAPD_VHD_PRIVATE_H
#define STORAGE_TAPD_VHD_PRIVATE_H

#include "storage/tapd/vhd_image.h"

#define VHD_JOBS (BLOCK_GUEST_DEPTH + 128u) /* requests at work; more wait */
#define VHD_OPS 384u                        /* reads and writes at work */
#define VHD_PARTS 32u                       /* of an operation, from neighbouring jobs */
#define VHD_OP_MAX ((int64_t)2 << 20)
#define VHD_META_OPS 32u
#define VHD_AHEAD 128u                      /* blocks the file is made longer by */
#define VHD_NEW_MAX 2048u                   /* new blocks whose bitmaps of ones wait for a round */
#define VHD_TABLE_PAGE 4096u                /* the BAT is written in these */
#define VHD_PAGE_ENTRIES (VHD_TABLE_PAGE / 4)

struct vhd;

struct vhd_job {
    struct vhd *vhd;
    struct block_request *request;
    uint32_t at;            /* bytes dealt with, or on their way */
    unsigned pending;       /* operations */
    int error;
    bool parked;            /* in one of the lists of waiting jobs */
    bool collected;         /* see vhd_op_done */
    bool needs_sync;
    uint64_t round;         /* of metadata that must be done */
    struct vhd_job *next;
};
struct vhd_jobs { struct vhd_job *first, *last; };

struct vhd_part {
    struct vhd_job *job;
    uint32_t block;         /* VHD_UNUSED: no map is concerned */
    struct vhd_bitmap *bitmap; /* gets these bits when it is written; or NULL */
    uint32_t first, n;
};
struct vhd_op {
    struct disk_io_op_slot slot;
    struct vhd *vhd;
    struct iovec iov[VHD_PARTS];
    struct vhd_part parts[VHD_PARTS];
    unsigned n_parts;
    struct vhd_op *next;
};
struct vhd_meta_op { struct disk_io_op_slot slot; struct iovec iov; struct vhd *vhd; struct vhd_meta_op *next; };

/* One page of the BAT. Rounds are numbered from 1; 0: nothing was changed since it was opened. */
struct vhd_table_page {
    uint64_t round;                /* that covers its last change and the bitmaps of ones of its new blocks */
    uint64_t bits_round;           /* the last that wrote bits of its blocks */
    bool dirty, staged;
};
/* Metadata of the leaf that is on its way. */
struct vhd_meta {
    int64_t table_at;
    struct vhd_table_page *pages;
    uint32_t n_pages, n_dirty_pages, page_cursor;
    uint8_t *stage;                /* the BAT as on disk; what a round writes */
    size_t stage_size;
    uint32_t fresh[2][VHD_NEW_MAX];/* blocks that need a bitmap of ones: gathering, and of this round */
    uint32_t n_fresh, n_fresh_staged, fresh_cursor;
    unsigned fresh_side;           /* the one that gathers */
    struct vhd_bitmap *dirty, *staged, *bitmap_cursor;
    uint8_t *ones;                 /* what such a block begins with: its first page or pages up to the data */
    uint32_t head_size;
    uint64_t round_staged, round_done, round_synced;
    bool running, wanted;
    int error;                     /* of this round */
    unsigned in_flight;
    struct vhd_meta_op ops[VHD_META_OPS], *free;
    struct vhd_jobs waiting;       /* for rounds */
};
/* The end of the leaf's file. */
struct vhd_end {
    int64_t end, limit;            /* blocks are taken at end; they must fit below limit */
    uint32_t n_left;               /* blocks that were never taken */
    bool moved;                    /* since it was opened */
    struct disk_io_op_slot slot;
    struct iovec iov;
    uint8_t *footer;               /* a page */
    int64_t new_limit;
    bool extending;
    struct vhd_job *extender;      /* the job that set it going: it is not done before it is */
    struct vhd_jobs waiting;
};
struct vhd_syncs {
    struct disk_io_op_slot slot;
    bool running;
    uint64_t round;                /* that was done when it began */
    int broken;                    /* one failed: nothing is promised any more */
    struct vhd_jobs now, later;
};

struct vhd {
    struct block block;
    struct disk_io *io;
    struct vhd_image *images;      /* leaf first */
    unsigned n_images;
    bool differencing, can_punch;
    bool unsynced;                 /* something was written since the last sync began */
    struct vhd_job *jobs, *free_jobs;
    unsigned n_busy;
    struct block_request *waiting, **waiting_last; /* for a job */
    struct vhd_op *ops, *free_ops, *gathering;
    struct loop_idle gather;
    struct vhd_jobs waiting_op, waiting_bitmap;
    struct vhd_meta meta;
    struct vhd_end end;
    struct vhd_syncs syncs;
};

static inline struct vhd *vhd_of(struct block *b) { return CONTAINER_OF(b, struct vhd, block); }
static inline struct vhd_image *vhd_leaf(struct vhd *v) { return &v->images[0]; }

/* vhd_io.c */
void vhd_submit(struct block *, struct block_request *);
void vhd_gathered(struct loop_idle *);
void vhd_op_done(struct disk_io_op_slot *);
void vhd_job_go(struct vhd_job *);  /* as far as it comes; not when parked */

/* vhd_jobs.c: lists of jobs that wait for something */
void vhd_park(struct vhd_jobs *, struct vhd_job *);
void vhd_wake(struct vhd_jobs *, int error); /* all go on, or fail; some may park again */
bool vhd_wake_one(struct vhd_jobs *);        /* false: there was none */

/* vhd_meta.c: BAT and bitmaps of a writable leaf that has them */
void vhd_meta_init(struct vhd *, const struct vhd_file *); /* again after it grew */
void vhd_meta_release(struct vhd *);
bool vhd_meta_has_room(struct vhd *, struct vhd_job *); /* for one more new block; else the job was parked */
void vhd_meta_new_block(struct vhd *, uint32_t block, int64_t at);
void vhd_meta_written(struct vhd *, const struct vhd_part *); /* sets the bits of what has been written */
uint64_t vhd_meta_round(const struct vhd *, const struct vhd_part *); /* that must be done for it */
bool vhd_meta_synced(const struct vhd *, uint32_t block, const struct vhd_bitmap *); /* on the medium, with all bits */
void vhd_meta_want(struct vhd *); /* a round, as soon as none is running */
void vhd_meta_round_start(struct vhd *);

/* vhd_end.c: the end of the file, and syncs */
void vhd_end_init(struct vhd *, const struct vhd_file *);
void vhd_end_release(struct vhd *);
/* A place for a block, or 0: the job was parked until the file is longer, or has its error. */
int64_t vhd_end_take(struct vhd *, struct vhd_job *);
int vhd_end_cut(struct vhd *); /* cuts off what is ahead; blocks; 0 or -errno */
void vhd_sync(struct vhd *, struct vhd_job *); /* parks it for that */
void vhd_sync_done(struct disk_io_op_slot *);

/* vhd_extents.c */
int vhd_extents(struct block *, int64_t offset, int64_t length, bool own_only, block_extent_fn *, void *ctx);

#endif
