#include "storage/tapd/mirror_bits.h"

#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define WORDS_OF_WINDOW (BITS_WINDOW / 64u)

static uint64_t n_words(uint64_t n) { return (n + 63) / 64; }
static uint64_t n_windows(uint64_t n) { return (n + BITS_WINDOW - 1) / BITS_WINDOW; }

size_t bits_bytes(uint64_t n) { return (size_t)n_words(n) * 8; }

void bits_init(struct mirror_bits *b, uint64_t *words, uint64_t n)
{
    b->words = words;
    b->n = n;
    b->set = 0;
    b->windows = xcalloc(n_windows(n) + 1, sizeof(*b->windows));
    if (n % 64 != 0 && (words[n / 64] >> (n % 64)) != 0)
        words[n / 64] &= ((uint64_t)1 << (n % 64)) - 1;
    for (uint64_t w = 0; w < n_words(n); w++) {
        unsigned c = (unsigned)__builtin_popcountll(words[w]);
        b->windows[w / WORDS_OF_WINDOW] += c;
        b->set += c;
    }
}

void bits_release(struct mirror_bits *b)
{
    xfree(b->windows);
    b->windows = NULL;
}

/* The bits of word w that lie in [first, end). */
static uint64_t mask_of(uint64_t w, uint64_t first, uint64_t end)
{
    uint64_t mask = ~(uint64_t)0;

    if (w == first / 64)
        mask <<= first % 64;
    if (w == (end - 1) / 64)
        mask &= ~(uint64_t)0 >> (63 - (end - 1) % 64);
    return mask;
}

uint64_t bits_set(struct mirror_bits *b, uint64_t first, uint64_t n)
{
    uint64_t end = first + n, changed = 0;

    CHECK(end >= first && end <= b->n);
    for (uint64_t w = first / 64; n > 0 && w <= (end - 1) / 64; w++) {
        uint64_t add = mask_of(w, first, end) & ~b->words[w];
        if (add == 0)
            continue;
        unsigned c = (unsigned)__builtin_popcountll(add);
        b->words[w] |= add;
        b->windows[w / WORDS_OF_WINDOW] += c;
        changed += c;
    }
    b->set += changed;
    return changed;
}

uint64_t bits_clear(struct mirror_bits *b, uint64_t first, uint64_t n)
{
    uint64_t end = first + n, changed = 0;

    CHECK(end >= first && end <= b->n);
    for (uint64_t w = first / 64; n > 0 && w <= (end - 1) / 64; w++) {
        uint64_t drop = mask_of(w, first, end) & b->words[w];
        if (drop == 0)
            continue;
        unsigned c = (unsigned)__builtin_popcountll(drop);
        b->words[w] &= ~drop;
        b->windows[w / WORDS_OF_WINDOW] -= c;
        changed += c;
    }
    b->set -= changed;
    return changed;
}

uint64_t bits_count(const struct mirror_bits *b, uint64_t first, uint64_t n)
{
    uint64_t end = first + n, count = 0;

    CHECK(end >= first && end <= b->n);
    for (uint64_t w = first / 64; n > 0 && w <= (end - 1) / 64; w++)
        count += (unsigned)__builtin_popcountll(b->words[w] & mask_of(w, first, end));
    return count;
}

bool bits_any(const struct mirror_bits *b, uint64_t first, uint64_t n)
{
    return bits_next_set(b, first, first + n) < first + n;
}

bool bits_test(const struct mirror_bits *b, uint64_t bit) { return (b->words[bit / 64] >> (bit % 64) & 1) != 0; }

/* How many bits a window has: fewer in the last one. */
static uint64_t window_bits(const struct mirror_bits *b, uint64_t window)
{
    uint64_t left = b->n - window * BITS_WINDOW;
    return left < BITS_WINDOW ? left : BITS_WINDOW;
}

/* flip: all ones to look for clear bits, 0 for set ones. */
static uint64_t next(const struct mirror_bits *b, uint64_t from, uint64_t limit, uint64_t flip)
{
    if (limit > b->n)
        limit = b->n;
    while (from < limit) {
        if (from % BITS_WINDOW == 0) {
            uint64_t window = from / BITS_WINDOW;
            if (b->windows[window] == (flip != 0 ? window_bits(b, window) : 0)) {
                from += BITS_WINDOW;
                continue;
            }
        }
        uint64_t w = (b->words[from / 64] ^ flip) >> (from % 64);
        if (w != 0) {
            from += (unsigned)__builtin_ctzll(w);
            break;
        }
        from = (from / 64 + 1) * 64;
    }
    return from < limit ? from : limit;
}

uint64_t bits_next_set(const struct mirror_bits *b, uint64_t from, uint64_t limit) { return next(b, from, limit, 0); }
uint64_t bits_next_clear(const struct mirror_bits *b, uint64_t from, uint64_t limit) { return next(b, from, limit, ~(uint64_t)0); }

static void drop_window(struct mirror_bits *b, uint64_t window)
{
    uint64_t first = window * WORDS_OF_WINDOW, last = n_words(b->n);

    if (last > first + WORDS_OF_WINDOW)
        last = first + WORDS_OF_WINDOW;
    memset(b->words + first, 0, (size_t)(last - first) * 8);
    b->set -= b->windows[window];
    b->windows[window] = 0;
}

void bits_move(struct mirror_bits *to, struct mirror_bits *from)
{
    CHECK(to->n == from->n);
    for (uint64_t window = 0; from->set > 0; window++) {
        if (from->windows[window] == 0)
            continue;
        uint64_t end = (window + 1) * BITS_WINDOW < from->n ? (window + 1) * BITS_WINDOW : from->n;
        for (uint64_t at = window * BITS_WINDOW; (at = bits_next_set(from, at, end)) < end;) {
            uint64_t stop = bits_next_clear(from, at, end);
            bits_set(to, at, stop - at);
            at = stop;
        }
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* in one plane or the other at every moment, also for a kill */
        drop_window(from, window);
    }
}

void bits_clear_all(struct mirror_bits *b)
{
    for (uint64_t window = 0; b->set > 0; window++)
        if (b->windows[window] > 0)
            drop_window(b, window);
}
