/* LIBXC_OUTSTANDING, in an image. */
#include <string.h>

#include "xenops/stream/input_bytes.h"
#include "xenops/stream/postcopy.h"

/* Its length follows from the domain's, which is known: room is made for no more. */
struct error *input_outstanding(struct call *c, struct input *in)
{
    uint64_t len = in->left, n_pages = in->target->n_pages, n = POSTCOPY_WORDS(n_pages) * 8;
    struct libxc_outstanding_head h;

    if (len != postcopy_record_len(n_pages))
        return input_bad(c, in, "a record of outstanding pages of %llu bytes", (unsigned long long)len);
    TRY(input_body(c, in, &h, sizeof(h)));
    uint64_t *bits = arena_alloc(c->arena, n);
    TRY(input_body(c, in, bits, n));
    const char *why = postcopy_record_fault(&h, bits, len, n_pages);
    if (why != NULL)
        return input_bad(c, in, "the record of outstanding pages: %s", why);
    in->result->outstanding = bits;
    in->result->n_outstanding = h.outstanding;
    return NULL;
}

struct error *postcopy_record_output(struct call *c, struct byte_stream *s, const _Atomic uint64_t *dirty, uint64_t n_pages, int64_t *left_r)
{
    uint64_t n = postcopy_count(dirty, n_pages);
    struct { struct libxc_record_head record; struct libxc_outstanding_head outstanding; } head = {
        .record = { .type = LIBXC_OUTSTANDING, .length = (uint32_t)postcopy_record_len(n_pages) },
        .outstanding = { .n_pages = n_pages, .outstanding = n },
    };
    struct iovec parts[] = { { .iov_base = &head, .iov_len = sizeof(head) }, { .iov_base = (void *)dirty, .iov_len = POSTCOPY_WORDS(n_pages) * 8 } };

    *left_r = (int64_t)n;
    if (n == 0)
        return NULL;
    if (postcopy_record_len(n_pages) > LIBXC_RECORD_MAX)
        return err_internal(c->arena, "post-copy: a guest of %llu pages is too big", (unsigned long long)n_pages);
    return postcopy_write(c, s, parts, ARRAY_LEN(parts)); /* a multiple of 8: no padding */
}
