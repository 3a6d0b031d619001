/* A disk as a dynamic VHD, or what differs from another disk as a differencing one, written in one go: nothing in it
 * has to be gone back to, so what is sent is found first. */
#include <endian.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "storage/image/vhd_format.h"
#include "xapi/transfer/disk_stream.h"

#define BITMAP_BYTES (VHD_BLOCK_SIZE / VHD_SECTOR / 8)
#define TABLE_OFFSET ((int64_t)(VHD_FOOTER_SIZE + VHD_HEADER_SIZE))
#define COMPARE_STEP 4096u
#define PLAN_SHARE 0.3 /* of a delta's progress is finding it */

struct disk_export {
    uint32_t n_blocks, n_present;
    uint8_t *present;   /* a bit a block */
    uint8_t **bitmaps;  /* delta: of each block that is present; else NULL */
    int64_t table_bytes;
};

static bool has(const struct disk_export *p, uint32_t block) { return (p->present[block >> 3] & (1u << (block & 7))) != 0; }

static void take(struct disk_export *p, uint32_t block)
{
    if (!has(p, block))
        p->n_present++;
    p->present[block >> 3] |= (uint8_t)(1u << (block & 7));
}

/* --- finding ------------------------------------------------------------------------------------------------------ */
static void found(void *ctx, uint64_t offset, uint64_t length, bool zero)
{
    struct disk_export *p = ctx;

    if (zero || length == 0)
        return;
    for (uint64_t b = offset / VHD_BLOCK_SIZE; b <= (offset + length - 1) / VHD_BLOCK_SIZE && b < p->n_blocks; b++)
        take(p, (uint32_t)b);
}

static void differs(struct disk_export *p, int64_t at, uint32_t n)
{
    for (; n > 0; at += VHD_SECTOR, n -= VHD_SECTOR) {
        uint32_t block = (uint32_t)(at / VHD_BLOCK_SIZE), sector = (uint32_t)(at % VHD_BLOCK_SIZE / VHD_SECTOR);
        take(p, block);
        if (p->bitmaps[block] == NULL)
            p->bitmaps[block] = xcalloc(1, BITMAP_BYTES);
        p->bitmaps[block][sector >> 3] |= (uint8_t)(0x80u >> (sector & 7));
    }
}

static struct error *find_delta(struct disk_stream *s, struct disk_export *p, int64_t base_size, char *other)
{
    for (int64_t at = 0; at < s->size;) {
        uint32_t n = s->size - at < DISK_STREAM_CHUNK ? (uint32_t)(s->size - at) : DISK_STREAM_CHUNK;
        uint32_t in_base = base_size <= at ? 0 : base_size - at < n ? (uint32_t)(base_size - at) : n;
        int rc = nbd_read(s->disk, s->buffer, n, (uint64_t)at);
        memset(other + in_base, 0, n - in_base);
        if (rc == 0 && in_base > 0)
            rc = nbd_read(s->base, other, in_base, (uint64_t)at);
        if (rc != 0)
            return disk_failed(s, "comparing the disks", rc);
        for (uint32_t i = 0; i < n; i += COMPARE_STEP) {
            uint32_t step = n - i < COMPARE_STEP ? n - i : COMPARE_STEP;
            if (memcmp(s->buffer + i, other + i, step) != 0)
                differs(p, at + i, step);
        }
        at += n;
        TRY(disk_stream_tick(s, PLAN_SHARE * (double)at / (double)s->size));
    }
    return NULL;
}

static struct error *find(struct disk_stream *s, struct disk_export *p)
{
    if (s->base == NULL) {
        int rc = nbd_status(s->disk, 0, (uint64_t)s->size, found, p);
        return rc == 0 ? NULL : disk_failed(s, "looking for the disk's data", rc);
    }
    char *other = xcalloc(1, DISK_STREAM_CHUNK);
    p->bitmaps = xcalloc(p->n_blocks, sizeof *p->bitmaps);
    struct error *e = find_delta(s, p, s->base_size, other);
    xfree(other);
    return e;
}

struct error *vhd_export_plan(struct disk_stream *s, struct disk_export **plan_r, int64_t *length_r)
{
    if (s->size > VHD_SIZE_MAX)
        return stream_malformed(s, "the disk is too large for a VHD");
    struct disk_export *p = *plan_r = xcalloc(1, sizeof *p);
    p->n_blocks = (uint32_t)((s->size + VHD_BLOCK_SIZE - 1) / VHD_BLOCK_SIZE);
    p->present = xcalloc(p->n_blocks / 8 + 1, 1);
    p->table_bytes = ((int64_t)p->n_blocks * 4 + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
    TRY(find(s, p));
    *length_r = TABLE_OFFSET + p->table_bytes + (int64_t)p->n_present * (vhd_bitmap_size(VHD_BLOCK_SIZE) + VHD_BLOCK_SIZE) + VHD_FOOTER_SIZE;
    return NULL;
}

void vhd_export_free(struct disk_export *p)
{
    if (p == NULL)
        return;
    for (uint32_t i = 0; p->bitmaps != NULL && i < p->n_blocks; i++)
        xfree(p->bitmaps[i]);
    xfree(p->bitmaps);
    xfree(p->present);
    xfree(p);
}

/* --- sending ------------------------------------------------------------------------------------------------------- */
static void id_of(const char *uuid, uint8_t id[16])
{
    unsigned n = 0;

    for (; *uuid != '\0' && n < 32; uuid++) {
        unsigned digit = *uuid >= '0' && *uuid <= '9' ? (unsigned)(*uuid - '0') : *uuid >= 'a' && *uuid <= 'f' ? (unsigned)(*uuid - 'a') + 10 : 16;
        if (digit < 16) {
            id[n / 2] = (uint8_t)(id[n / 2] << 4 | digit);
            n++;
        }
    }
}

static struct error *put(struct disk_stream *s, const void *bytes, size_t n)
{
    int rc = bytes_write(s->stream, bytes, n);
    return rc == 0 ? NULL : stream_failed(s, "export", rc);
}

static struct error *put_head(struct disk_stream *s, const struct disk_export *p, uint8_t footer_bytes[VHD_FOOTER_SIZE])
{
    struct vhd_footer footer;
    struct vhd_header header;
    uint8_t header_bytes[VHD_HEADER_SIZE], id[16] = { 0 };
    uint32_t ignored;

    id_of(s->vdi_uuid, id);
    vhd_footer_init(&footer, s->base != NULL ? VHD_DIFFERENCING : VHD_DYNAMIC, s->size, id, clock_wall(s->call->clock));
    footer.data_offset = VHD_FOOTER_SIZE;
    vhd_header_init(&header);
    header.table_offset = TABLE_OFFSET;
    header.entries = p->n_blocks;
    header.block_size = VHD_BLOCK_SIZE;
    if (s->base != NULL) {
        id_of(s->base_uuid, header.parent_id);
        (void)vhd_utf16_encode(arena_printf(s->call->arena, "%s.vhd", s->base_uuid), true, header.parent_name, sizeof header.parent_name, &ignored);
    }
    vhd_footer_encode(&footer, footer_bytes);
    vhd_header_encode(&header, header_bytes);
    TRY(put(s, footer_bytes, VHD_FOOTER_SIZE));
    return put(s, header_bytes, VHD_HEADER_SIZE);
}

static struct error *put_table(struct disk_stream *s, const struct disk_export *p)
{
    const int64_t stride = vhd_bitmap_size(VHD_BLOCK_SIZE) + VHD_BLOCK_SIZE;
    int64_t at = TABLE_OFFSET + p->table_bytes;
    uint32_t words[VHD_SECTOR / 4];

    for (uint32_t first = 0; first < p->n_blocks; first += VHD_SECTOR / 4) {
        for (uint32_t i = 0; i < VHD_SECTOR / 4; i++) {
            bool there = first + i < p->n_blocks && has(p, first + i);
            words[i] = htobe32(there ? (uint32_t)(at / VHD_SECTOR) : VHD_UNUSED);
            at += there ? stride : 0;
        }
        TRY(put(s, words, sizeof words));
    }
    return NULL;
}

static struct error *put_block(struct disk_stream *s, const struct disk_export *p, uint32_t block)
{
    uint8_t bitmap[BITMAP_BYTES];
    int64_t at = (int64_t)block * VHD_BLOCK_SIZE, end = at + VHD_BLOCK_SIZE;

    memset(bitmap, 0xff, sizeof bitmap);
    TRY(put(s, p->bitmaps != NULL ? p->bitmaps[block] : bitmap, sizeof bitmap));
    for (; at < end; at += DISK_STREAM_CHUNK) {
        uint32_t n = s->size <= at ? 0 : s->size - at < DISK_STREAM_CHUNK ? (uint32_t)(s->size - at) : DISK_STREAM_CHUNK;
        memset(s->buffer + n, 0, DISK_STREAM_CHUNK - n); /* behind the end of the disk */
        int rc = n > 0 ? nbd_read(s->disk, s->buffer, n, (uint64_t)at) : 0;
        if (rc != 0)
            return disk_failed(s, "reading the disk", rc);
        TRY(put(s, s->buffer, DISK_STREAM_CHUNK));
    }
    return NULL;
}

struct error *vhd_export_send(struct disk_stream *s, struct disk_export *p)
{
    double before = s->base != NULL ? PLAN_SHARE : 0;
    uint8_t footer[VHD_FOOTER_SIZE];
    uint32_t sent = 0;

    TRY(put_head(s, p, footer));
    TRY(put_table(s, p));
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        if (!has(p, b))
            continue;
        TRY(put_block(s, p, b));
        TRY(disk_stream_tick(s, before + (1 - before) * ++sent / p->n_present));
    }
    return put(s, footer, sizeof footer);
}
