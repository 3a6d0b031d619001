/* Post-copy: the guest runs at its destination before all of its memory is there.
 *
 * The image (format.h) then ends without the pages that are still dirty. A record LIBXC_OUTSTANDING, anywhere after the
 * last PAGE_DATA, names them: struct libxc_outstanding_head, then one bit a page in 64-bit words (bit n % 64 of word n / 64).
 * It is not an optional record: a reader that does not know it must refuse, for what came of those pages is stale.
 * When precopy_save returns with result.postcopy, the source's dirty bits are exactly these pages.
 *
 * Afterwards the same connection carries frames of little-endian numbers, both ways: struct postcopy_frame, then what
 * its type says.
 *   source -> destination   PAGES     count pfn words (1…POSTCOPY_BATCH_MAX; format.h, NORMAL or ALLOCATE: an empty page),
 *                                     then the NORMAL pages' data in that order. Only outstanding pages, each once.
 *   destination -> source   WANT      count pfns (1…POSTCOPY_WANT_MAX) that the guest waits for; those already on their way are fine
 *                           TAKEN     number: pages put in place so far
 *                           DONE      number: enum postcopy_end. The source may forget the guest. Nothing follows.
 * The source answers WANT before it goes on with the rest, and keeps no more on its way than the link carries in
 * POSTCOPY_QUEUE_MS beyond its round trip: that bounds how long a guest waits for a page.
 *
 * Both functions block until the end, belong to one thread, and watch call_cancelled() while they wait for the stream; a
 * blocked write ends with bytes_abort. Errors: INTERNAL_ERROR "post-copy: …", TASK_CANCELLED. */
#ifndef XENOPS_STREAM_POSTCOPY_H
#define XENOPS_STREAM_POSTCOPY_H

#include <stdatomic.h>

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "xenops/stream/format.h"

/* --- the record in the image --- */
#define LIBXC_OUTSTANDING 0x0fff0001u
struct libxc_outstanding_head {
    uint64_t n_pages;     /* of the domain */
    uint64_t outstanding; /* bits that are set, at least 1 */
};
#define POSTCOPY_WORDS(n_pages) (((n_pages) + 63) / 64)
/* Bytes of the record's body. */
static inline uint64_t postcopy_record_len(uint64_t n_pages) { return sizeof(struct libxc_outstanding_head) + POSTCOPY_WORDS(n_pages) * 8; }
/* Of a bitmap of n_pages; bits beyond are not looked at. */
uint64_t postcopy_count(const _Atomic uint64_t *bits, uint64_t n_pages);
/* The record of what is dirty now, written after the last PAGE_DATA was flushed. *left_r: its pages; 0: nothing was written. */
NODISCARD struct error *postcopy_record_output(struct call *, struct byte_stream *, const _Atomic uint64_t *dirty, uint64_t n_pages,
                                               int64_t *left_r);
/* What is wrong with a record that was read, for a domain of n_pages; NULL: nothing. */
const char *postcopy_record_fault(const struct libxc_outstanding_head *, const uint64_t *bits, uint64_t len, uint64_t n_pages);

/* --- the frames --- */
#define POSTCOPY_MAGIC 0x31435058u /* "XPC1" */
#define POSTCOPY_BATCH_MAX 256u
#define POSTCOPY_WANT_MAX 64u
#define POSTCOPY_QUEUE_MS 20
enum postcopy_type { POSTCOPY_PAGES = 1, POSTCOPY_WANT, POSTCOPY_TAKEN, POSTCOPY_DONE };
enum postcopy_end { POSTCOPY_COMPLETE, POSTCOPY_GUEST_ENDED };
struct postcopy_frame {
    uint32_t magic;
    uint16_t type, zero;
    uint32_t count, zero2;
    uint64_t number;
};
_Static_assert(sizeof(struct postcopy_frame) == 24, "layout");
/* A frame's head, read and checked so far: its type is one of 'types' (bits 1 << type), its count within that type's limit. */
NODISCARD struct error *postcopy_head_read(struct call *, struct byte_stream *, unsigned types, struct postcopy_frame *);
/* Exactly n bytes; cancellable while nothing comes. */
NODISCARD struct error *postcopy_read(struct call *, struct byte_stream *, void *, size_t n);
NODISCARD struct error *postcopy_write(struct call *, struct byte_stream *, struct iovec *, int n);

/* --- the source --- */
struct postcopy_source {
    const uint8_t *memory; /* n_pages; the guest stands still for good */
    uint64_t n_pages;
    _Atomic uint64_t *left; /* one bit a page to send; cleared as they go */
};
struct postcopy_sent { uint64_t pages, wanted; uint64_t bytes; enum postcopy_end end; };
/* Until the destination says DONE. */
NODISCARD struct error *postcopy_push(struct call *, struct byte_stream *, const struct postcopy_source *, struct postcopy_sent *);

/* --- the destination --- */
struct postcopy_target {
    void *ctx;
    uint64_t n_pages;
    uint64_t *missing;     /* one bit a page to come; cleared as they are put in place */
    int fault_fd;          /* readable when fault() has something, or the guest has ended; -1: never */
    /* The next page the guest waits for: 1 with *pfn_r, 0 for none, -ESRCH when the guest has ended, -errno. */
    int (*fault)(void *ctx, uint64_t *pfn_r);
    /* A page that is not missing: it is empty, or was put in place just before. */
    int (*settle)(void *ctx, uint64_t pfn);
    /* n neighbouring pages; data NULL: they are empty. 0, -ESRCH when the guest has ended, -errno. */
    int (*place)(void *ctx, uint64_t pfn, unsigned n, const uint8_t *data);
    void (*progress)(void *ctx, uint64_t left); /* after each batch; may be NULL */
};
struct postcopy_got {
    uint64_t pages, wanted, bytes;
    int64_t stall_us;       /* the longest that the guest waited for a page */
    bool guest_ended;       /* then not all pages came */
};
/* Until all that is missing is in place (the source has been told), or the guest has ended. */
NODISCARD struct error *postcopy_pull(struct call *, struct byte_stream *, const struct postcopy_target *, struct postcopy_got *);

#endif
