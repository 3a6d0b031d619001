/* Finding zeros in what was read. */
#ifndef STORAGE_TAPD_MIRROR_ZEROS_H
#define STORAGE_TAPD_MIRROR_ZEROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* len: a multiple of 64; the bytes aligned to 8. */
bool zeros_all(const void *, size_t len);

/* The next piece of [at, len) of a buffer: *zero_r tells its kind, the result its length. Zeros count from 64 KiB
 * in a row on (in blocks of 4,096), or when they are all there is: shorter ones cost more as a request of
 * their own than as data. */
size_t zeros_piece(const uint8_t *bytes, size_t at, size_t len, bool *zero_r);

#endif
