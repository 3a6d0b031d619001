/* libFuzzer target: a VHD that a client sends. corpus/vhd_import has seeds. The disk is 8 MiB of memory behind the
 * client's calls, which this program answers itself: whatever comes, nothing outside the disk is written. */
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "xapi/transfer/disk_stream.h"

#define DISK_SIZE (8u << 20)

static char disk[DISK_SIZE];

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void inside(uint64_t offset, uint32_t length) { CHECK(offset <= DISK_SIZE && length <= DISK_SIZE - offset && length % 512 == 0 && offset % 512 == 0); }

int nbd_read(struct nbd_client *c, void *buffer, uint32_t length, uint64_t offset)
{
    inside(offset, length);
    memcpy(buffer, disk + offset, length);
    return 0;
}

int nbd_write(struct nbd_client *c, const void *buffer, uint32_t length, uint64_t offset, bool fua)
{
    inside(offset, length);
    memcpy(disk + offset, buffer, length);
    return 0;
}

int nbd_zero(struct nbd_client *c, uint32_t length, uint64_t offset, bool no_hole)
{
    inside(offset, length);
    memset(disk + offset, 0, length);
    return 0;
}

int nbd_flush(struct nbd_client *c) { return 0; }

int nbd_status(struct nbd_client *c, uint64_t offset, uint64_t length, void (*range)(void *, uint64_t, uint64_t, bool), void *ctx)
{
    range(ctx, offset, length, false);
    return 0;
}

/* --- the stream ----------------------------------------------------------------------------------------------- */
struct source { struct byte_stream stream; const uint8_t *bytes; size_t len; };

static ssize_t source_read(struct byte_stream *b, void *out, size_t n)
{
    struct source *s = (struct source *)b;

    n = n < s->len ? n : s->len;
    memcpy(out, s->bytes, n);
    s->bytes += n;
    s->len -= n;
    return (ssize_t)n;
}

static const struct byte_stream_ops source_ops = { .name = "source", .read = source_read };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct source source = { .stream = { .ops = &source_ops }, .bytes = bytes, .len = len };
    AUTO_ARENA arena = arena_new();
    struct call call = { .arena = arena, .clock = &clock_real, .id = "fuzz" };
    struct disk_stream s = { .call = &call, .size = DISK_SIZE, .vdi_uuid = "", .stream = &source.stream, .buffer = xcalloc(1, DISK_STREAM_CHUNK) };

    (void)vhd_import(&s);
    xfree(s.buffer);
    return 0;
}
