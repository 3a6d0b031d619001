/* What a simulated guest and its toolstack share: RAM, dirty bitmap and control page, and how a page
 * of the guest looks. Header only, so that xapi-guest needs nothing else of this library.
 *
 * RAM is one memfd of n_pages. The shared memfd is laid out as below; offsets are fixed:
 *   0                      struct guest_control (one page)
 *   GUEST_PUBLISHED_AT     "key=value" lines, guarded by control->published_seq (odd: being written)
 *   GUEST_BITMAP_AT        one bit per page
 *
 * In post-copy RAM has pages that are stale or not there: the guest registers it with userfaultfd, and the toolstack,
 * which holds the same descriptor, shows it the pages as they come.
 *
 * Order of a store: (1) the whole page, (2) its dirty bit (release), (3) the witness. A reader clears
 * the bit (acquire) before it reads the page, so a page it saw torn is dirty again. */
#ifndef XENOPS_SIM_GUEST_MEMORY_H
#define XENOPS_SIM_GUEST_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GUEST_PAGE 4096u
#define GUEST_PAGE_WORDS (GUEST_PAGE / 8)
#define GUEST_PUBLISHED_AT 4096u
#define GUEST_PUBLISHED_SIZE 32768u
#define GUEST_BITMAP_AT (GUEST_PUBLISHED_AT + GUEST_PUBLISHED_SIZE)
#define GUEST_PAGES_MAX (1ull << 34) /* 64 TiB */

#define GUEST_CONTROL_MAGIC 0x3147494d53584158ull /* "XAXSMIG1" */

enum guest_state {
    GUEST_EMPTY,     /* created: neither booted nor restored */
    GUEST_PAUSED,
    GUEST_RUNNING,
    GUEST_SUSPENDED, /* its context was handed out; may resume */
    GUEST_ENDED,
};

enum guest_postcopy {
    GUEST_POSTCOPY_NONE,
    GUEST_POSTCOPY_OFFERED, /* saved: pages are left that have not been sent; it may still resume */
    GUEST_POSTCOPY_GIVEN,   /* they are being sent: another copy runs */
    GUEST_POSTCOPY_FILLING, /* restored, pages are missing */
    GUEST_POSTCOPY_LOST,    /* and will not come any more */
    GUEST_POSTCOPY_DONE,
};
#define GUEST_POSTCOPY_NAMES { "", "offered", "given", "filling", "lost", "done" }

/* Every field but the first three is written by one side only (named) and read by both. */
struct guest_control {
    uint64_t magic;
    uint32_t version;
    uint32_t pid;
    uint64_t n_pages;
    _Atomic uint32_t state;         /* guest: enum guest_state */
    _Atomic uint32_t tracking;      /* toolstack: a live save goes on; the guest ticks every ms */
    _Atomic uint64_t actual_pages;  /* guest: after ballooning */
    _Atomic uint64_t target_pages;  /* guest: as it was last told */
    _Atomic uint64_t pages_written; /* guest: stores since boot */
    _Atomic uint64_t blocks_written;
    _Atomic uint64_t disk_errors;
    _Atomic uint64_t ticks;
    _Atomic uint64_t blackout_us;   /* guest: longest gap between two ticks since tracking began */
    _Atomic uint64_t pages_verified, blocks_verified;
    _Atomic uint64_t verify_us;     /* how long that took: a part of the blackout */
    _Atomic uint32_t published_seq;
    _Atomic uint32_t published_len;
    _Atomic uint32_t throttle;      /* toolstack: percent of its time that the guest does nothing */
    _Atomic uint32_t postcopy;      /* toolstack: enum guest_postcopy */
    _Atomic uint64_t postcopy_left; /* toolstack: pages to come, or to go */
    _Atomic uint64_t postcopy_stall_us; /* toolstack: the longest wait for a page */
    _Atomic uint64_t stood_us;      /* guest: from the last tick before its last suspension to the first after it */
    _Atomic int64_t clock_step_us;  /* guest: how its wall clock jumped when it was last restored */
};
_Static_assert(sizeof(struct guest_control) <= GUEST_PUBLISHED_AT, "control page");
#define GUEST_VERSION (2u << 16 | (uint32_t)sizeof(struct guest_control)) /* both sides must agree on the layout */

static inline size_t guest_shared_size(uint64_t n_pages)
{
    return GUEST_BITMAP_AT + ((n_pages + 8 * GUEST_PAGE - 1) / (8 * GUEST_PAGE)) * GUEST_PAGE;
}
static inline _Atomic uint64_t *guest_bitmap(struct guest_control *c)
{
    return (_Atomic uint64_t *)(void *)((char *)c + GUEST_BITMAP_AT);
}
static inline char *guest_published(struct guest_control *c) { return (char *)c + GUEST_PUBLISHED_AT; }

static inline void guest_bitmap_set(_Atomic uint64_t *bitmap, uint64_t page)
{
    atomic_fetch_or_explicit(&bitmap[page / 64], 1ull << (page % 64), memory_order_release);
}

/* --- one page ------------------------------------------------------------------------------------ */

struct guest_page {
    uint64_t checksum; /* of all that follows */
    uint64_t number;
    uint64_t boot;     /* the boot that wrote it */
    uint32_t version;  /* 1, 2, …; a page that was never written is all zero: version 0 */
    uint32_t content;  /* enum guest_content */
    uint64_t body[GUEST_PAGE_WORDS - 4];
};
_Static_assert(sizeof(struct guest_page) == GUEST_PAGE, "page");

enum guest_content { GUEST_CONTENT_RANDOM, GUEST_CONTENT_HALF_ZERO, GUEST_CONTENT_TEXT };
#define GUEST_BODY_WORDS (GUEST_PAGE_WORDS - 4)

/* Any single changed bit changes the result: every step is a bijection of the lane. */
static inline uint64_t guest_checksum(const void *bytes, size_t n_words)
{
    const uint64_t *w = bytes;
    uint64_t lane[4] = { 0x9e3779b97f4a7c15ull, 0xbf58476d1ce4e5b9ull, 0x94d049bb133111ebull, 0x2545f4914f6cdd1dull };

    size_t i = 0;
    for (; i + 4 <= n_words; i += 4)
        for (unsigned l = 0; l < 4; l++) {
            lane[l] = (lane[l] ^ w[i + l]) * 0xd6e8feb86659fd93ull;
            lane[l] ^= lane[l] >> 29;
        }
    for (; i < n_words; i++)
        lane[i % 4] = (lane[i % 4] ^ w[i]) * 0xd6e8feb86659fd93ull;
    uint64_t sum = n_words;
    for (unsigned l = 0; l < 4; l++) {
        sum = (sum ^ lane[l]) * 0xff51afd7ed558ccdull;
        sum ^= sum >> 32;
    }
    return sum;
}

static inline uint64_t guest_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

static inline uint64_t guest_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    return x != 0 ? x : 1;
}

/* The contents follow from boot, number and version alone. */
static inline void guest_page_fill(struct guest_page *p, uint64_t boot, uint64_t number, uint32_t version, enum guest_content content)
{
    uint64_t seed = guest_mix(boot ^ (number << 20) ^ version), pattern = guest_mix(number);

    p->number = number;
    p->boot = boot;
    p->version = version;
    p->content = content;
    switch (content) {
    case GUEST_CONTENT_RANDOM:
        for (unsigned i = 0; i < GUEST_BODY_WORDS; i++)
            p->body[i] = guest_random(&seed);
        break;
    case GUEST_CONTENT_HALF_ZERO:
        for (unsigned i = 0; i < GUEST_BODY_WORDS / 2; i++)
            p->body[i] = guest_random(&seed);
        memset(&p->body[GUEST_BODY_WORDS / 2], 0, (GUEST_BODY_WORDS - GUEST_BODY_WORDS / 2) * 8);
        break;
    case GUEST_CONTENT_TEXT:
        for (unsigned i = 0; i < GUEST_BODY_WORDS; i++)
            p->body[i] = i % 16 == 0 ? guest_random(&seed) : 0x2074786574206f6eull + (pattern >> (i % 16)) % 7;
        break;
    }
    p->checksum = guest_checksum(&p->number, GUEST_PAGE_WORDS - 1);
}

static inline bool guest_page_is_zero(const void *page)
{
    const uint64_t *w = page;

    for (unsigned i = 0; i < GUEST_PAGE_WORDS; i++)
        if (w[i] != 0)
            return false;
    return true;
}

/* True with *version_r when the page is whole: all zero (0) or written as page 'number' by 'boot'. */
static inline bool guest_page_check(const struct guest_page *p, uint64_t boot, uint64_t number, uint32_t *version_r)
{
    *version_r = p->version;
    if (p->version == 0)
        return guest_page_is_zero(p);
    return p->number == number && p->boot == boot && p->checksum == guest_checksum(&p->number, GUEST_PAGE_WORDS - 1);
}

#endif
