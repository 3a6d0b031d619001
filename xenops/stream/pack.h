/* zstd (RFC 8878), level 1: one buffer in, one frame out, and back. An object belongs to one thread. */
#ifndef XENOPS_STREAM_PACK_H
#define XENOPS_STREAM_PACK_H

#include <stddef.h>
#include <sys/types.h>

struct packer;
struct packer *packer_new(void);
void packer_free(struct packer *); /* NULL is fine */
size_t packer_room(size_t n);      /* the most that n bytes become */
/* Bytes of the frame; 0 when it could not be made. 'room' is packer_room(n) at least. */
size_t pack(struct packer *, void *to, size_t room, const void *from, size_t n);

struct unpacker;
struct unpacker *unpacker_new(void);
void unpacker_free(struct unpacker *); /* NULL is fine */
/* Exactly 'expected' bytes out of exactly one frame: 0, else -EPROTO. Writes nowhere else, whatever the frame says. */
int unpack(struct unpacker *, void *to, size_t expected, const void *from, size_t n);

#endif
