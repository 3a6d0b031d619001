/* Bounded, cancellable reading for input.c and input_pages.c. */
#ifndef XENOPS_STREAM_INPUT_BYTES_H
#define XENOPS_STREAM_INPUT_BYTES_H

#include "xenops/stream/input.h"

#define INPUT_BUFFER (256u << 10)

struct input {
    struct byte_stream *stream;
    const struct input_target *target;
    struct input_result *result;
    uint64_t left;     /* of the record's body: read-ahead stops there */
    uint32_t at, held; /* of the buffer */
    uint64_t *pfns;    /* pfns_room of them */
    uint32_t pfns_room;
    uint8_t *buffer;
};

struct error *input_bad_at(struct call *, const struct input *, int line, const char *fmt, ...) PRINTF(4, 5);
#define input_bad(c, in, ...) input_bad_at(c, in, __LINE__, __VA_ARGS__)

/* Exactly n bytes, straight from the stream: only while nothing is held. Not counted against left. */
NODISCARD struct error *input_exact(struct call *, struct input *, void *, size_t n);
/* Exactly n of the body: input_bad when fewer are left. Small ones go through the buffer. */
NODISCARD struct error *input_body(struct call *, struct input *, void *, size_t n);
/* n bytes of the body, a multiple of INPUT_UNIT, without copying: at *bytes_r are the next *n_r of
 * them (at least one unit, at most n), until the next call. Only when whole units are left. */
#define INPUT_UNIT LIBXC_PAGE
NODISCARD struct error *input_borrow(struct call *, struct input *, size_t n, const uint8_t **bytes_r, size_t *n_r);
/* n bytes of the body go nowhere. */
NODISCARD struct error *input_skip(struct call *, struct input *, uint64_t n);

/* The body of a LIBXC_OUTSTANDING record (postcopy_record.c). */
NODISCARD struct error *input_outstanding(struct call *, struct input *);
/* The body of a PAGE_DATA record of in->left bytes. */
NODISCARD struct error *input_pages(struct call *, struct input *);

#endif
