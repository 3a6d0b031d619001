/* The one interface of everything that holds blocks in tapd: image formats at the bottom, layers on top.
 *
 * All of it lives on the loop's thread. Requests come from their owner's pool (no allocation on the I/O
 * path) and carry one buffer, aligned to 4,096 by the NBD server and the copiers. Offsets and lengths are
 * multiples of 512 inside [0, size]; length 0 only for BLOCK_FLUSH. */
#ifndef STORAGE_TAPD_BLOCK_H
#define STORAGE_TAPD_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/base/error.h"
#include "storage/tapd/disk_io.h"
#include "storage/tapd/loop.h"

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_ZERO /* reads as zeros afterwards */, BLOCK_DISCARD /* a hint */, BLOCK_FLUSH };
#define BLOCK_FUA 1u      /* WRITE, ZERO: stable before done */
#define BLOCK_NO_HOLE 2u  /* ZERO: keep the space allocated */
#define BLOCK_COPIER 4u   /* from a background job: layers that serve the guest (throttle, statistics) let it pass */

#define BLOCK_REQUEST_MAX (1u << 20) /* longest request below the NBD server: longer ones are split there */
#define BLOCK_FRAMES 8u

struct block;
struct block_request {
    enum block_op op;
    unsigned flags;
    int64_t offset;
    uint32_t length;
    void *buffer;
    int result;                              /* 0 or -errno, valid in done */
    void (*done)(struct block_request *);    /* once, on the loop; may be inside block_submit */
    void *owner;                             /* of whoever set 'done' */
    struct block_request *next;              /* free for whoever holds the request now */
    /* A layer that passes the same request down pushes its own done/owner and pops it in there. */
    struct { void (*done)(struct block_request *); void *owner; } frames[BLOCK_FRAMES];
    unsigned n_frames;
};
void block_push(struct block_request *, void (*done)(struct block_request *), void *owner); /* then block_submit(below) */
void block_pop(struct block_request *);      /* restores the owner's done; then call r->done(r) or block_finish */
void block_finish(struct block_request *, int result);

/* Ranges for block status: data, or reads as zeros (a hole, or known zeros). */
struct block_extent { int64_t offset, length; bool hole, zero; };
typedef bool block_extent_fn(void *ctx, const struct block_extent *); /* false: enough */

struct block_ops {
    const char *name; /* "raw", "vhd", "throttle" */
    void (*submit)(struct block *, struct block_request *);
    /* Covers [offset, offset + length) in order; neighbours of a kind may come apart. May read metadata
     * (blocks for that long). 0 or -errno. own_only: what this image itself holds, not its parents
     * (what it does not hold is a hole). NULL: all is data. */
    int (*extents)(struct block *, int64_t offset, int64_t length, bool own_only, block_extent_fn *, void *ctx);
    /* Nothing is in flight, and the caller is in nobody's 'done'. Writes back metadata, closes what is below, frees. Blocks. 0 or -errno; it is gone anyway. */
    int (*close)(struct block *);
    /* The image grew (already done on the medium by the caller for raw, vhd): take the new size. NULL: passes down. */
    int (*resized)(struct block *, int64_t size);
};
struct block {
    const struct block_ops *ops;
    struct block *below;   /* NULL at the bottom */
    struct loop *loop;
    int64_t size;
    bool read_only;
    bool thin;             /* ZERO without NO_HOLE and DISCARD give space back */
};
void block_submit(struct block *, struct block_request *); /* checks range and read_only (-EROFS), then the pointer */
int block_extents(struct block *, int64_t offset, int64_t length, bool own_only, block_extent_fn *, void *ctx);
int block_close(struct block *); /* NULL is fine */
/* The image grew on its medium: every layer from the bottom up takes the size. A format with 'resized' hands it
 * down itself where it must. 0 or -errno (nothing changed). Blocks for a look at the medium. */
int block_resized(struct block *, int64_t size);

/* A pool of requests with aligned buffers, all made at once. buffer_size 0: none. */
struct request_pool;
struct request_pool *request_pool_new(unsigned n, uint32_t buffer_size);
struct block_request *request_take(struct request_pool *); /* zeroed but for buffer; NULL when all are out */
void request_give(struct request_pool *, struct block_request *);
unsigned request_pool_free_count(const struct request_pool *);
void request_pool_free(struct request_pool *);

/* --- opening ------------------------------------------------------------------------------------- */
#define BLOCK_GUEST_DEPTH 256u /* most requests of guests in flight in one tapd: pools of layers are sized by it */

struct block_open {
    struct loop *loop;
    struct disk_io *io;
    const char *format;   /* "raw", "vhd", "qcow2", "nbd" */
    const char *path;     /* raw: a file, a device, or "segments:DEVICE@OFFSET+LENGTH;…" (bytes); nbd: a URI (rpc/nbd/nbd_uri.h) */
    bool read_only;
    bool cached;          /* through the page cache; else O_DIRECT where the medium can */
    bool parent;          /* opened as somebody's parent (read_only): takes no lock, a coalescing tapd may write it */
    const char *dir;      /* the tapd's own directory, for sockets of children (qcow2) */
};
typedef struct error *block_open_fn(struct arena *, const struct block_open *, struct block **);
block_open_fn raw_open, vhd_open, qcow2_open, nbd_open;
/* By format. The image's writer holds an exclusive lock (OFD, byte 0 of the leaf) and a reader of a leaf a
 * shared one unless the image is somebody's parent: two tapds, also of two hosts, never write one image.
 * Errors: SR_BACKEND_FAILURE ["tapd"; ""; text] with the path and the reason. Blocks. */
NODISCARD struct error *block_open(struct arena *, const struct block_open *, struct block **block_r);
/* The lock of a leaf on its open descriptor, at 'offset' (0 but for segments of a device). A tapd that was just
 * killed may still hold it in the kernel: waits for that, a second at most. 0, -EBUSY or another -errno. Blocks. */
NODISCARD int leaf_lock(int fd, int64_t offset, bool exclusive);

/* --- layers; each takes what is below and gives it back by block_close ------------------------------- */
struct block *stats_layer(struct block *below);
struct block *throttle_layer(struct block *below);   /* unlimited at first */
/* Fault points "tapd.read", "tapd.write", "tapd.flush" (target: "target.read", …): error, "enospc", "delay-<ms>", "short". */
struct block *fault_layer(struct block *below, bool target);

struct block_stats { uint64_t reads, writes, flushes, bytes_read, bytes_written, errors; uint64_t latency_us[24]; /* writes, by power of two */ };
void stats_get(const struct block *, struct block_stats *);
void throttle_set(struct block *, int64_t bytes_per_s, int64_t operations_per_s); /* 0: unlimited */

#endif
