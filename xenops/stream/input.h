/* The reading side, for bytes from anywhere: framing and libxc stream into a domain's memory.
 *
 * Strict: every field is checked before it is used, nothing is allocated by a length that was read
 * beyond fixed limits, and reading never goes past the End of the framing (what follows on the
 * connection is somebody else's). An error says what was wrong and where ("image: at byte N: …").
 *
 * Errors: INTERNAL_ERROR [text], TASK_CANCELLED. On error the memory is part written. */
#ifndef XENOPS_STREAM_INPUT_H
#define XENOPS_STREAM_INPUT_H

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "xenops/stream/format.h"

struct input_target {
    uint8_t *memory; /* n_pages; all zero before */
    uint64_t n_pages;
    /* The file behind the memory, or -1. Long runs are written to it: filling a fresh page through a
     * mapping costs a fault and a zeroing more. */
    int memory_fd;
    /* Asked once the Xenops record is read and before any page: an error refuses the image. NULL is fine. */
    struct error *(*accept)(void *ctx, struct call *, const char *state, size_t len);
    void *ctx;
};

struct input_result {
    const char *state; /* the Xenops record's text, in c's arena */
    size_t state_len;
    const uint8_t *context; /* of HVM_CONTEXT, in c's arena */
    size_t context_len;
    uint64_t pages_read, pages_allocated, bytes;
    const uint64_t *outstanding; /* one bit a page that is to come later (postcopy.h), in c's arena; NULL: the image is whole */
    uint64_t n_outstanding;
};

NODISCARD struct error *input_read(struct call *, struct byte_stream *, const struct input_target *, struct input_result *);

#endif
