/* What a raw disk lies on: one file, one block device, or pieces of block devices in order.
 *
 * "segments:DEVICE@OFFSET+LENGTH;…" (bytes, multiples of 512) names the pieces; a device's name ends at the last @. */
#ifndef STORAGE_TAPD_RAW_MEDIUM_H
#define STORAGE_TAPD_RAW_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/base/error.h"
#include "storage/tapd/block.h"

struct raw_device {
    char *path;
    int fd;
    bool is_file;
};
struct raw_segment {
    unsigned device;
    int64_t start;  /* on the disk */
    int64_t offset; /* on the device */
    int64_t length;
};
struct raw_medium {
    struct raw_device *devices;
    struct raw_segment *segments; /* without gaps, ordered by start */
    unsigned n_devices, n_segments;
    int64_t size;
};

/* Opens and locks. A file's size is rounded up to 512, in the file too where it is opened for writing. */
NODISCARD struct error *raw_medium_open(struct arena *, const struct block_open *, struct raw_medium *);
void raw_medium_close(struct raw_medium *); /* zeroed is fine */
const struct raw_segment *raw_medium_find(const struct raw_medium *, int64_t offset); /* inside [0, size) */
/* The size a single file or device has now; -errno (-EOPNOTSUPP for segments). */
int64_t raw_medium_size(const struct raw_medium *);

#endif
