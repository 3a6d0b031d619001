#include "xenops/stream/pack.h"

#include <errno.h>
#include <zstd.h>

#include "rpc/base/check.h"

#define LEVEL 1

/* The objects are zstd's own, under other names. */
struct packer *packer_new(void)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();

    CHECK(c != NULL);
    return (struct packer *)c;
}

void packer_free(struct packer *p) { ZSTD_freeCCtx((ZSTD_CCtx *)p); }
size_t packer_room(size_t n) { return ZSTD_compressBound(n); }

size_t pack(struct packer *p, void *to, size_t room, const void *from, size_t n)
{
    size_t len = ZSTD_compressCCtx((ZSTD_CCtx *)p, to, room, from, n, LEVEL);

    return ZSTD_isError(len) ? 0 : len;
}

struct unpacker *unpacker_new(void)
{
    ZSTD_DCtx *d = ZSTD_createDCtx();

    CHECK(d != NULL);
    return (struct unpacker *)d;
}

void unpacker_free(struct unpacker *u) { ZSTD_freeDCtx((ZSTD_DCtx *)u); }

int unpack(struct unpacker *u, void *to, size_t expected, const void *from, size_t n)
{
    if (ZSTD_findFrameCompressedSize(from, n) != n) /* one frame, and nothing behind it */
        return -EPROTO;
    return ZSTD_decompressDCtx((ZSTD_DCtx *)u, to, expected, from, n) == expected ? 0 : -EPROTO;
}
