/* The writing side: framing, libxc records, batches of pages straight out of the guest's memory.
 *
 * Pages are never copied: a batch is its head and the runs of neighbouring pages, handed to the stream
 * as vectors. A page that changes while it is sent is sent again by whoever drives this (precopy.c).
 * Belongs to one thread. Errors: INTERNAL_ERROR "stream: …", TASK_CANCELLED. */
#ifndef XENOPS_STREAM_OUTPUT_H
#define XENOPS_STREAM_OUTPUT_H

#include <stdbool.h>

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "xenops/stream/format.h"

struct stream_output {
    struct byte_stream *stream;
    const uint8_t *memory; /* of the guest */
    const uint8_t *instead; /* fault: every page of a batch reads like this one; NULL: as it is */
    unsigned batch_max;    /* pfns a batch, at most LIBXC_BATCH */
    uint64_t pages_sent;   /* with data */
    uint64_t zero_pages;   /* without */
    uint64_t started_bytes;
    unsigned n_pfns, n_data;
    uint64_t pfns[LIBXC_BATCH];
};

void output_init(struct stream_output *, struct byte_stream *, const uint8_t *memory);
uint64_t output_bytes(const struct stream_output *); /* since output_init */

/* Signature, Xenops record with 'state', Libxc record head, libxc heads, static records. */
NODISCARD struct error *output_begin(struct call *, struct stream_output *, const char *state, size_t state_len);
static inline bool output_is_full(const struct stream_output *o) { return o->n_pfns >= o->batch_max; }
/* Adds to the batch, which must not be full. */
static inline void output_page(struct stream_output *o, uint64_t pfn)
{
    o->pfns[o->n_pfns++] = LIBXC_PFN(LIBXC_PFN_NORMAL, pfn);
    o->n_data++;
}
static inline void output_zero_page(struct stream_output *o, uint64_t pfn) /* only if never sent before */
{
    o->pfns[o->n_pfns++] = LIBXC_PFN(LIBXC_PFN_ALLOCATE, pfn);
}
/* Sends the batch, if there is one. */
NODISCARD struct error *output_flush(struct call *, struct stream_output *);
/* TSC_INFO, HVM_PARAMS, HVM_CONTEXT, END, and the End of the framing. */
NODISCARD struct error *output_finish(struct call *, struct stream_output *, const void *context, size_t len);

#endif
