/* What stands behind disk_io.h: io_uring (disk_io_uring.c) or threads (disk_io_threads.c). */
#ifndef STORAGE_TAPD_DISK_IO_BACKEND_H
#define STORAGE_TAPD_DISK_IO_BACKEND_H

#include "storage/tapd/disk_io.h"

#define DISK_IO_FDS 1024 /* descriptors from there on are never taken for memory */

struct disk_io_ops {
    const char *name;
    void (*submit)(struct disk_io *, struct disk_io_op_slot *);
    void (*free)(struct disk_io *);
};
struct disk_io {
    const struct disk_io_ops *ops;
    struct loop *loop;
    bool in_memory[DISK_IO_FDS];
};

struct disk_io *disk_io_uring_new(struct loop *); /* NULL: the kernel or the build has none */
struct disk_io *disk_io_threads_new(struct loop *);

/* One system call's worth of what is left of a slot. */
struct disk_io_part {
    enum disk_io_op op;      /* DISK_WRITE for zeros that have to be written */
    const struct iovec *iov; /* READ, WRITE, WRITE_FUA */
    unsigned n_iov;
    int64_t offset, length;
    struct iovec zeros;      /* ours: iov may point here */
};
void disk_io_begin(struct disk_io_op_slot *); /* clears what is ours */
void disk_io_part(const struct disk_io_op_slot *, struct disk_io_part *);
/* The result of that call (bytes or 0, or -errno). True: all done, slot->result is set. False: another part. */
bool disk_io_step(struct disk_io_op_slot *, int64_t result);
/* One part of a slot by a plain call: what disk_io_step takes. */
int64_t disk_io_call(const struct disk_io_op_slot *);
/* The mode of fallocate for PUNCH and ZERO. */
int disk_io_fallocate_mode(enum disk_io_op);

#endif
