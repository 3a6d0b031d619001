/* Asynchronous file I/O under the formats: io_uring where the kernel has it, else a few threads. */
#ifndef STORAGE_TAPD_DISK_IO_H
#define STORAGE_TAPD_DISK_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "storage/tapd/loop.h"

enum disk_io_op {
    DISK_READ,
    DISK_WRITE,
    DISK_WRITE_FUA, /* stable when done */
    DISK_SYNC,      /* fdatasync */
    DISK_PUNCH,     /* a hole that reads as zeros; -EOPNOTSUPP where the medium cannot */
    DISK_ZERO,      /* allocated zeros, growing the file; written where the medium has no shorter way */
};

/* One operation in flight; embed it. 'done' runs on the loop, never inside disk_io_submit. */
struct disk_io_op_slot {
    enum disk_io_op op;
    int fd;
    struct iovec *iov;         /* READ, WRITE, WRITE_FUA: covers 'length'; may be changed while in flight */
    unsigned n_iov;
    int64_t offset, length;
    int result;                /* 0 or -errno; a short transfer is finished by us, a read beyond the end gives zeros */
    void (*done)(struct disk_io_op_slot *);
    struct disk_io_op_slot *next; /* ours */
    int64_t transferred;          /* ours */
    bool by_writing;              /* ours */
};

struct disk_io;
struct disk_io *disk_io_new(struct loop *, bool allow_uring); /* never NULL */
void disk_io_free(struct disk_io *);                          /* nothing may be in flight */
const char *disk_io_name(const struct disk_io *);             /* "io_uring", "threads" */
/* 'fd' is used from now on: looks at what it lies on. Files in memory (tmpfs) are read and written by plain calls from
 * the loop, which wait for nothing; elsewhere it changes nothing. Not saying it is fine, too. */
void disk_io_opened(struct disk_io *, int fd);
void disk_io_submit(struct disk_io *, struct disk_io_op_slot *);

#endif
