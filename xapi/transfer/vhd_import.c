/* A VHD that comes as a stream, written to a disk. Foreign bytes: nothing in them is believed. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "storage/image/vhd_format.h"
#include "xapi/transfer/disk_stream.h"

#define BITMAP_MAX (VHD_BLOCK_MAX / VHD_SECTOR / 8)

struct place { uint32_t sector, block; }; /* where a block stands in the file */

struct vhd_in {
    struct disk_stream *s;
    int64_t at;               /* bytes read of the stream */
    int64_t size;             /* virtual */
    uint32_t block_size, n;
    struct place *places;     /* n of them, by sector */
    uint8_t bitmap[BITMAP_MAX];
};

static struct error *get(struct vhd_in *v, void *bytes, size_t n)
{
    int rc = bytes_read_all(v->s->stream, bytes, n);

    v->at += (int64_t)n;
    return rc == 0 ? NULL : rc == -EPIPE ? stream_malformed(v->s, "it ends too early") : stream_failed(v->s, "import", rc);
}

static struct error *skip_to(struct vhd_in *v, int64_t offset)
{
    if (offset < v->at)
        return stream_malformed(v->s, "its parts overlap or are out of order");
    while (v->at < offset) {
        int64_t n = offset - v->at;
        TRY(get(v, v->s->buffer, n < (int64_t)DISK_STREAM_CHUNK ? (size_t)n : DISK_STREAM_CHUNK));
    }
    return NULL;
}

/* What follows the last block: a footer, perhaps padding. */
static struct error *drain(struct vhd_in *v)
{
    for (;;) {
        ssize_t got = bytes_read(v->s->stream, v->s->buffer, DISK_STREAM_CHUNK);
        if (got <= 0)
            return got == 0 ? NULL : stream_failed(v->s, "import", (int)got);
        TRY(disk_stream_tick(v->s, 1));
    }
}

/* --- the table ----------------------------------------------------------------------------------------------------- */
static int by_sector(const void *a, const void *b)
{
    uint32_t x = ((const struct place *)a)->sector, y = ((const struct place *)b)->sector;
    return x < y ? -1 : x > y;
}

static struct error *read_table(struct vhd_in *v, const struct vhd_header *h)
{
    uint32_t needed = (uint32_t)((v->size + h->block_size - 1) / h->block_size), words[1024];

    if (h->entries < needed || h->entries > VHD_ENTRIES_MAX)
        return stream_malformed(v->s, "its block table does not fit its size");
    TRY(skip_to(v, h->table_offset));
    v->places = xcalloc(needed + 1u, sizeof *v->places);
    for (uint32_t i = 0; i < needed; i += ARRAY_LEN(words)) {
        uint32_t n = needed - i < ARRAY_LEN(words) ? needed - i : (uint32_t)ARRAY_LEN(words);
        TRY(get(v, words, n * sizeof words[0]));
        for (uint32_t k = 0; k < n; k++)
            if (be32toh(words[k]) != VHD_UNUSED)
                v->places[v->n++] = (struct place){ be32toh(words[k]), i + k };
    }
    qsort(v->places, v->n, sizeof *v->places, by_sector);
    return NULL;
}

/* --- blocks ----------------------------------------------------------------------------------------------------------- */
/* Runs of sectors that the image holds; the others are the parent's, or zeros. */
static struct error *put_sectors(struct vhd_in *v, int64_t disk_at, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        uint32_t run = 1;
        bool set = vhd_bit(v->bitmap, first + i);
        while (i + run < n && vhd_bit(v->bitmap, first + i + run) == set)
            run++;
        if (set)
            TRY(disk_put(v->s, v->s->buffer + (size_t)i * VHD_SECTOR, run * VHD_SECTOR, disk_at + (int64_t)i * VHD_SECTOR));
        i += run;
    }
    return NULL;
}

static struct error *read_block(struct vhd_in *v, const struct place *p)
{
    int64_t disk_at = (int64_t)p->block * v->block_size;

    TRY(skip_to(v, (int64_t)p->sector * VHD_SECTOR));
    TRY(get(v, v->bitmap, vhd_bitmap_size(v->block_size)));
    for (uint32_t done = 0; done < v->block_size;) {
        uint32_t n = v->block_size - done < DISK_STREAM_CHUNK ? v->block_size - done : DISK_STREAM_CHUNK;
        int64_t left = v->size - (disk_at + done);
        TRY(get(v, v->s->buffer, n));
        uint32_t inside = left <= 0 ? 0 : left < n ? (uint32_t)left : n;
        TRY(put_sectors(v, disk_at + done, done / VHD_SECTOR, inside / VHD_SECTOR));
        done += n;
    }
    return NULL;
}

static struct error *read_dynamic(struct vhd_in *v, const struct vhd_footer *footer)
{
    uint8_t bytes[VHD_HEADER_SIZE];
    struct vhd_header header;

    TRY(skip_to(v, footer->data_offset));
    TRY(get(v, bytes, sizeof bytes));
    const char *wrong = vhd_header_decode(bytes, &header);
    if (wrong != NULL)
        return stream_malformed(v->s, wrong);
    v->block_size = header.block_size;
    TRY(read_table(v, &header));
    for (uint32_t i = 0; i < v->n; i++) {
        TRY(read_block(v, &v->places[i]));
        TRY(disk_stream_tick(v->s, (double)(i + 1) / v->n));
    }
    return drain(v);
}

/* --- fixed: the data, and a footer nobody knows of before the end ---------------------------------------------------- */
static struct error *read_fixed(struct vhd_in *v, const uint8_t first[VHD_FOOTER_SIZE])
{
    struct disk_stream *s = v->s;
    char *held = xcalloc(1, DISK_STREAM_CHUNK + VHD_FOOTER_SIZE);
    uint32_t n = VHD_FOOTER_SIZE;
    int64_t at = 0;
    struct error *e = NULL;

    memcpy(held, first, n);
    for (ssize_t got = 1; e == NULL && got > 0;) {
        while (n < DISK_STREAM_CHUNK + VHD_FOOTER_SIZE && (got = bytes_read(s->stream, held + n, DISK_STREAM_CHUNK + VHD_FOOTER_SIZE - n)) > 0)
            n += (uint32_t)got;
        uint32_t data = n - VHD_FOOTER_SIZE;
        struct vhd_footer footer;
        if (got < 0)
            e = stream_failed(s, "import", (int)got);
        else if (at + data > s->size || data % VHD_SECTOR != 0)
            e = stream_malformed(s, "it is larger than the disk, or no VHD");
        else if (got == 0 && vhd_footer_decode((const uint8_t *)held + data, &footer) != NULL)
            e = stream_malformed(s, "it has no footer");
        else
            e = disk_put(s, held, data, at);
        at += data;
        memmove(held, held + data, VHD_FOOTER_SIZE);
        n = VHD_FOOTER_SIZE;
        if (e == NULL)
            e = disk_stream_tick(s, (double)at / (double)s->size);
    }
    xfree(held);
    return e;
}

static struct error *read_any(struct vhd_in *v)
{
    uint8_t bytes[VHD_FOOTER_SIZE];
    struct vhd_footer footer;

    TRY(get(v, bytes, sizeof bytes));
    if (memcmp(bytes, "conectix", 8) != 0)
        return read_fixed(v, bytes);
    const char *wrong = vhd_footer_decode(bytes, &footer);
    if (wrong != NULL)
        return stream_malformed(v->s, wrong);
    v->size = vhd_virtual_size(&footer);
    if (v->size > v->s->size)
        return stream_malformed(v->s, "it is larger than the disk");
    return read_dynamic(v, &footer);
}

struct error *vhd_import(struct disk_stream *s)
{
    struct vhd_in *v = xcalloc(1, sizeof *v);
    v->s = s;
    struct error *e = read_any(v);
    int rc = e == NULL ? nbd_flush(s->disk) : 0;

    xfree(v->places);
    xfree(v);
    return e != NULL ? e : rc == 0 ? NULL : disk_failed(s, "flushing the disk", rc);
}
