/* The bytes of image chains, read and written by hand: for tests of who arranges the images, without tapd.
 *
 * Offsets and lengths are multiples of 512. What fails stops the process. */
#ifndef TESTS_LIB_IMAGE_BYTES_H
#define TESTS_LIB_IMAGE_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* "raw", "vhd" (no fixed ones) or "qcow2" (bytes that are all the same). */
void image_put(const char *format, const char *path, int64_t offset, const void *, size_t n);
void image_get(const char *format, const char *path, int64_t offset, void *, size_t n); /* parents too */
/* What a VHD itself holds is written into another one: at most max_blocks of its blocks. */
void image_merge(const char *from, const char *to, unsigned max_blocks);

#endif
