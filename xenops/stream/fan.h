/* One image over several connections, and compressed.
 *
 * fan_out is what any saver writes its image to (XenSavedDomv2 framing round a libxc v3 stream, format.h); it follows the
 * records, splits each PAGE_DATA by pfn over the connections (stripes of FAN_STRIPE pfns, so that a pfn always takes the same
 * one and its last version arrives last), and puts a barrier at everything else. fan_in is what any restorer reads: the same
 * image again, its PAGE_DATA records in another order, which means nothing, and cut smaller.
 *
 * On a connection there are blocks: struct fan_head, then 'length' bytes.
 *   FAN_PAGES    one PAGE_DATA record with its head; only pfns of this connection's stripes
 *   FAN_ZSTD     the same as one zstd frame (RFC 8878) of 'plain' bytes
 *   FAN_BARRIER  'plain' is its number, from 1; the connection waits until all have come to it
 *   FAN_RAW      connection 0, at a barrier: other bytes of the image
 *   FAN_RELEASE  connection 0: the barrier is lifted
 *   FAN_END      on all of them, at a barrier: the image is complete; what follows is not ours
 * It begins at barrier 0. All numbers are little-endian.
 *
 * One thread uses a fan_out, one a fan_in; abort is for any. Each connection but the first has a thread of its own (encryption
 * and compression are worth it). The connections stay the caller's, and must outlive the fan. */
#ifndef XENOPS_STREAM_FAN_H
#define XENOPS_STREAM_FAN_H

#include <stdbool.h>

#include "rpc/base/bytes.h"
#include "rpc/base/clock.h"
#include "xenops/stream/format.h"

#define FAN_MAX 16u
#define FAN_STRIPE 64u
#define FAN_PFNS_MAX 1024u /* of a PAGE_DATA record, in and out: what libxc and output.h write at most */
#define FAN_RECORD_MAX (sizeof(struct libxc_record_head) + sizeof(struct libxc_page_head) + (8u + LIBXC_PAGE) * FAN_PFNS_MAX)
#define FAN_RAW_MAX (256u << 10)

enum fan_kind { FAN_PAGES = 1, FAN_ZSTD, FAN_BARRIER, FAN_RAW, FAN_RELEASE, FAN_END };
struct fan_head { uint32_t kind, length, plain, zero; };
_Static_assert(sizeof(struct fan_head) == 16, "layout");

enum fan_compress { FAN_OFF, FAN_ON, FAN_AUTO /* where it is measured to pay */ };
const char *fan_compress_name(enum fan_compress); /* "off", "on", "auto" */

static inline unsigned fan_stripe(uint64_t pfn, unsigned n) { return (unsigned)(pfn / FAN_STRIPE % n); }

/* Writes return once every connection has taken its part: nothing is kept of the caller's memory. -EPROTO: what was written
 * is no image. finish() does nothing: the connections are finished by their owner. */
struct byte_stream *fan_out_new(struct byte_stream *const *connections, unsigned n, enum fan_compress, const struct clock *);
struct fan_stats { uint64_t blocks, zstd_blocks, plain_bytes, zstd_plain, zstd_bytes; };
void fan_out_stats(const struct byte_stream *, struct fan_stats *); /* of the writer's thread */

/* confirm: says on each connection what was taken from it (confirm.h). */
struct byte_stream *fan_in_new(struct byte_stream *const *connections, unsigned n, bool confirm);
/* What was wrong with the blocks, after a read failed; NULL: nothing. Lives as long as the fan. */
const char *fan_in_fault(struct byte_stream *);

#endif
