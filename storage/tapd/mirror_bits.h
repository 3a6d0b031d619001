/* A plane of bits over memory of the caller's, with a count for each window so that empty and full stretches
 * are passed over quickly. Bit numbers are below n. Nothing here allocates after bits_init. */
#ifndef STORAGE_TAPD_MIRROR_BITS_H
#define STORAGE_TAPD_MIRROR_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITS_WINDOW 8192u /* bits; 32 MiB of disk */

struct mirror_bits {
    uint64_t *words;    /* bits_bytes(n), not owned */
    uint32_t *windows;  /* how many are set in each, owned */
    uint64_t n, set;
};

size_t bits_bytes(uint64_t n); /* of 'words' */
/* Takes the words as they are; bits beyond n are cleared. */
void bits_init(struct mirror_bits *, uint64_t *words, uint64_t n);
void bits_release(struct mirror_bits *);

/* [first, first + n). How many changed. */
uint64_t bits_set(struct mirror_bits *, uint64_t first, uint64_t n);
uint64_t bits_clear(struct mirror_bits *, uint64_t first, uint64_t n);
uint64_t bits_count(const struct mirror_bits *, uint64_t first, uint64_t n);
bool bits_any(const struct mirror_bits *, uint64_t first, uint64_t n);
bool bits_test(const struct mirror_bits *, uint64_t bit);

/* The first set (clear) bit in [from, limit), or limit. */
uint64_t bits_next_set(const struct mirror_bits *, uint64_t from, uint64_t limit);
uint64_t bits_next_clear(const struct mirror_bits *, uint64_t from, uint64_t limit);

/* to |= from; from becomes empty. Of the same n. */
void bits_move(struct mirror_bits *to, struct mirror_bits *from);
void bits_clear_all(struct mirror_bits *);

#endif
