/* What both sides of post-copy share. */
#include "xenops/stream/postcopy.h"

#include <errno.h>
#include <string.h>

#define WAIT_MS 1000 /* between two looks at the deadline */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte order");

/* --- the record --- */

static uint64_t mask_of(uint64_t word, uint64_t n_pages)
{
    uint64_t left = n_pages - word * 64;

    return left >= 64 ? UINT64_MAX : (1ull << left) - 1;
}

uint64_t postcopy_count(const _Atomic uint64_t *bits, uint64_t n_pages)
{
    uint64_t n = 0;

    for (uint64_t w = 0; w < POSTCOPY_WORDS(n_pages); w++)
        n += (uint64_t)__builtin_popcountll(atomic_load_explicit(&bits[w], memory_order_relaxed) & mask_of(w, n_pages));
    return n;
}

const char *postcopy_record_fault(const struct libxc_outstanding_head *h, const uint64_t *bits, uint64_t len, uint64_t n_pages)
{
    uint64_t n = 0;

    if (h->n_pages != n_pages)
        return "it is of another amount of memory";
    if (len != postcopy_record_len(n_pages))
        return "its length is not that of its bitmap";
    for (uint64_t w = 0; w < POSTCOPY_WORDS(n_pages); w++) {
        if ((bits[w] & ~mask_of(w, n_pages)) != 0)
            return "it names pages beyond the domain";
        n += (uint64_t)__builtin_popcountll(bits[w]);
    }
    return n == 0 || n != h->outstanding ? "its number of pages is wrong" : NULL;
}

/* --- frames --- */

static struct error *lost(struct call *c, int rc) { return err_internal(c->arena, "post-copy: the connection is lost: %s", strerror(-rc)); }

static struct error *wait_readable(struct call *c, struct byte_stream *s)
{
    while (s->ops->fd != NULL && s->ops->fd(s) >= 0) {
        int rc = bytes_wait(s, c->cancel != NULL ? cancel_fd(c->cancel) : -1, WAIT_MS);
        if (rc > 0)
            break;
        if (rc == -ECANCELED || call_cancelled(c))
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        if (rc < 0)
            return lost(c, rc);
    }
    return NULL;
}

struct error *postcopy_read(struct call *c, struct byte_stream *s, void *to, size_t n)
{
    ssize_t got;

    for (char *p = to; n > 0; p += got, n -= (size_t)got) {
        TRY(wait_readable(c, s));
        got = bytes_read(s, p, n);
        if (got <= 0)
            return lost(c, got < 0 ? (int)got : -EPIPE);
    }
    return NULL;
}

struct error *postcopy_write(struct call *c, struct byte_stream *s, struct iovec *parts, int n)
{
    int rc = bytes_writev(s, parts, n);

    return rc < 0 ? lost(c, rc) : NULL;
}

static bool count_fits(const struct postcopy_frame *f)
{
    switch ((enum postcopy_type)f->type) {
    case POSTCOPY_PAGES: return f->count >= 1 && f->count <= POSTCOPY_BATCH_MAX && f->number == 0;
    case POSTCOPY_WANT: return f->count >= 1 && f->count <= POSTCOPY_WANT_MAX && f->number == 0;
    case POSTCOPY_TAKEN: return f->count == 0;
    case POSTCOPY_DONE: return f->count == 0 && f->number <= POSTCOPY_GUEST_ENDED;
    }
    return false;
}

struct error *postcopy_head_read(struct call *c, struct byte_stream *s, unsigned types, struct postcopy_frame *f)
{
    TRY(postcopy_read(c, s, f, sizeof(*f)));
    if (f->magic != POSTCOPY_MAGIC || f->zero != 0 || f->zero2 != 0)
        return err_internal(c->arena, "post-copy: no frame begins here (%#x)", f->magic);
    if (f->type > POSTCOPY_DONE || (types >> f->type & 1) == 0 || !count_fits(f))
        return err_internal(c->arena, "post-copy: a frame of type %u, count %u, number %llu", f->type, f->count, (unsigned long long)f->number);
    return NULL;
}
