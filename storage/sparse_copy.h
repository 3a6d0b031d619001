/* Copying disk images: holes stay holes, the kernel moves the data where it can. */
#ifndef STORAGE_SPARSE_COPY_H
#define STORAGE_SPARSE_COPY_H

#include <stdint.h>

#include "rpc/base/call.h"
#include "rpc/base/error.h"

/* Copies the first 'size' bytes of one file over another of at least that size that reads as zeros.
 * A copy-on-write filesystem shares the blocks (FICLONE), else copy_file_range, else read and write.
 * Reports progress, watches c's cancel flag, ends with an fsync and, unless the blocks are shared, with reading both
 * back and comparing them. SR_BACKEND_FAILURE, TASK_CANCELLED. */
NODISCARD struct error *sparse_copy(struct call *c, int from_fd, int to_fd, int64_t size);

/* The same by path; 'to' must exist and be at least as large. */
NODISCARD struct error *sparse_copy_path(struct call *c, const char *from, const char *to, int64_t size);

#endif
