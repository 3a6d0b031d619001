/* libFuzzer target: the frames of post-copy, at either side (xenops/stream/postcopy.h). What comes must be refused or lead to
 * pages within the domain, each missing one put in place once. The first byte says which side, the second how much is missing;
 * corpus/postcopy has seeds. */
#include "xenops/stream/postcopy.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "rpc/base/check.h"

#define PAGES 130u /* not a whole number of words */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct fuzz_stream {
    struct byte_stream stream; /* first member */
    const uint8_t *at;
    size_t left, step;
};

static ssize_t fuzz_read(struct byte_stream *s, void *to, size_t n)
{
    struct fuzz_stream *f = (struct fuzz_stream *)s;

    n = n < f->left ? n : f->left;
    n = n < f->step ? n : f->step;
    if (n > 0)
        memcpy(to, f->at, n);
    f->at += n;
    f->left -= n;
    return (ssize_t)n;
}
static int fuzz_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    volatile uint8_t sum = 0;

    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < parts[i].iov_len; k += 512)
            sum ^= ((const uint8_t *)parts[i].iov_base)[k]; /* all of it can be read */
    (void)sum;
    return 0;
}
static int no_fd(const struct byte_stream *s) { return -1; }
static size_t always(const struct byte_stream *s) { return 1; } /* the end is to be read, too */

static const struct byte_stream_ops fuzz_ops = { .name = "fuzz", .read = fuzz_read, .writev = fuzz_writev, .fd = no_fd, .pending = always };

static uint8_t memory[PAGES * LIBXC_PAGE];
static uint8_t placed[PAGES];
static uint64_t missing[POSTCOPY_WORDS(PAGES)];
static unsigned touched;

/* Now and then a page is touched, missing or not; at the very end the guest has gone. */
static int fault(void *ctx, uint64_t *pfn_r)
{
    if (++touched % 3 != 0)
        return 0;
    if (touched > 3000)
        return -ESRCH;
    *pfn_r = touched * 7 % PAGES;
    return 1;
}
static int settle(void *ctx, uint64_t pfn)
{
    CHECK(pfn < PAGES && (missing[pfn / 64] >> (pfn % 64) & 1) == 0);
    return 0;
}
static int place(void *ctx, uint64_t pfn, unsigned n, const uint8_t *data)
{
    CHECK(n > 0 && pfn < PAGES && n <= PAGES - pfn);
    for (unsigned i = 0; i < n; i++)
        CHECK(placed[pfn + i]++ == 0);
    if (data != NULL)
        memcpy(memory + pfn * LIBXC_PAGE, data, (size_t)n * LIBXC_PAGE);
    return 0;
}

static uint64_t word_of(uint8_t how, unsigned w)
{
    uint64_t bits = how * 0x0101010101010101ull;

    return w == PAGES / 64 ? bits & ((1ull << PAGES % 64) - 1) : bits;
}

static void pull(struct call *c, struct fuzz_stream *s, uint8_t how, int fault_fd)
{
    const struct postcopy_target target = { .n_pages = PAGES, .missing = missing, .fault_fd = fault_fd, .fault = fault, .settle = settle, .place = place };
    struct postcopy_got got;
    uint64_t n = 0, done = 0;

    touched = 0;
    memset(placed, 0, sizeof(placed));
    for (unsigned w = 0; w < POSTCOPY_WORDS(PAGES); w++) {
        missing[w] = word_of(how, w);
        n += (uint64_t)__builtin_popcountll(missing[w]);
    }
    struct error *e = postcopy_pull(c, &s->stream, &target, &got);
    for (unsigned i = 0; i < PAGES; i++)
        done += placed[i];
    CHECK(got.pages <= done && done <= n);
    CHECK(e != NULL || got.guest_ended || done == n);
}

static void push(struct call *c, struct fuzz_stream *s, uint8_t how)
{
    _Atomic uint64_t left[POSTCOPY_WORDS(PAGES)];
    const struct postcopy_source source = { .memory = memory, .n_pages = PAGES, .left = left };
    struct postcopy_sent sent;

    for (unsigned w = 0; w < POSTCOPY_WORDS(PAGES); w++)
        atomic_init(&left[w], word_of(how, w));
    uint64_t n = postcopy_count(left, PAGES);
    struct error *e = postcopy_push(c, &s->stream, &source, &sent);
    CHECK(sent.pages + postcopy_count(left, PAGES) == n);
    CHECK(e != NULL || sent.end == POSTCOPY_GUEST_ENDED || sent.pages == n);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static int fault_fd = -1;

    if (fault_fd < 0)
        fault_fd = eventfd(1, EFD_CLOEXEC);
    for (unsigned i = 0; len >= 2 && i < 2; i++) {
        AUTO_ARENA a = arena_new();
        struct call c = { .arena = a, .clock = &clock_real };
        struct fuzz_stream s = { .stream = { .ops = &fuzz_ops }, .at = bytes + 2, .left = len - 2, .step = i == 0 ? SIZE_MAX : 7 };
        if (bytes[0] % 2 == 0)
            pull(&c, &s, bytes[1], bytes[0] % 4 == 0 ? fault_fd : -1);
        else
            push(&c, &s, bytes[1]);
    }
    return 0;
}
