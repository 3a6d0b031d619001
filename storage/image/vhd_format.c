#include "storage/image/vhd_format.h"

#include <string.h>

#define EPOCH_2000 ((int64_t)946684800)
#define CREATOR_VERSION 0x00010001u
#define OS_WINDOWS 0x5769326bu
#define CHS_MAX ((int64_t)65535 * 16 * 255) /* sectors: the geometry says no more */

/* Where the fields are. */
enum {
    F_FEATURES = 8, F_VERSION = 12, F_DATA_OFFSET = 16, F_TIMESTAMP = 24, F_CREATOR = 28, F_CREATOR_VERSION = 32, F_OS = 36,
    F_ORIGINAL_SIZE = 40, F_CURRENT_SIZE = 48, F_CYLINDERS = 56, F_HEADS = 58, F_SECTORS = 59, F_TYPE = 60, F_CHECKSUM = 64, F_ID = 68,
    F_SAVED = 84, F_HIDDEN = 85,
};
enum {
    H_DATA_OFFSET = 8, H_TABLE_OFFSET = 16, H_VERSION = 24, H_ENTRIES = 28, H_BLOCK_SIZE = 32, H_CHECKSUM = 36, H_PARENT_ID = 40,
    H_PARENT_TIMESTAMP = 56, H_PARENT_NAME = 64, H_LOCATORS = 576, H_LOCATOR_SIZE = 24,
};
enum { B_OFFSET = 8, B_SIZE = 16 };

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)(v >> 32));
    put32(p + 4, (uint32_t)v);
}

uint32_t vhd_checksum(const uint8_t *bytes, uint32_t n, uint32_t skip_at)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++)
        if (i < skip_at || i >= skip_at + 4)
            sum += bytes[i];
    return ~sum;
}

/* --- footer ------------------------------------------------------------------------------------- */
const char *vhd_footer_decode(const uint8_t bytes[VHD_FOOTER_SIZE], struct vhd_footer *f)
{
    uint32_t type = get32(bytes + F_TYPE);
    uint64_t size = get64(bytes + F_CURRENT_SIZE), data_offset = get64(bytes + F_DATA_OFFSET);

    if (memcmp(bytes, "conectix", 8) != 0)
        return "no footer";
    if (get32(bytes + F_CHECKSUM) != vhd_checksum(bytes, VHD_FOOTER_SIZE, F_CHECKSUM))
        return "wrong checksum of the footer";
    if (get32(bytes + F_VERSION) >> 16 != 1)
        return "unknown version of the format";
    if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFFERENCING)
        return "unknown type of image";
    if (size == 0 || size > (uint64_t)VHD_SIZE_MAX)
        return "impossible size";
    if (type != VHD_FIXED && (data_offset < VHD_FOOTER_SIZE || data_offset % VHD_SECTOR != 0 || data_offset > (uint64_t)1 << 42))
        return "impossible place of the header";
    *f = (struct vhd_footer) {
        .data_offset = type == VHD_FIXED ? 0 : (int64_t)data_offset,
        .timestamp = get32(bytes + F_TIMESTAMP),
        .creator_version = get32(bytes + F_CREATOR_VERSION),
        .original_size = (int64_t)get64(bytes + F_ORIGINAL_SIZE),
        .current_size = (int64_t)size,
        .cylinders = (uint16_t)(bytes[F_CYLINDERS] << 8 | bytes[F_CYLINDERS + 1]),
        .heads = bytes[F_HEADS],
        .sectors = bytes[F_SECTORS],
        .type = (enum vhd_type)type,
        .hidden = bytes[F_HIDDEN] != 0,
    };
    memcpy(f->creator, bytes + F_CREATOR, 4);
    memcpy(f->id, bytes + F_ID, 16);
    memcpy(f->raw, bytes, VHD_FOOTER_SIZE);
    if (memcmp(f->creator, "tap", 3) == 0 && f->creator_version <= 1)
        return "bitmaps in the order of tapdisk 0.1";
    return vhd_virtual_size(f) > 0 ? NULL : "impossible geometry";
}

void vhd_footer_encode(const struct vhd_footer *f, uint8_t bytes[VHD_FOOTER_SIZE])
{
    memcpy(bytes, f->raw, VHD_FOOTER_SIZE);
    put64(bytes + F_DATA_OFFSET, f->type == VHD_FIXED ? ~(uint64_t)0 : (uint64_t)f->data_offset);
    put32(bytes + F_TIMESTAMP, f->timestamp);
    memcpy(bytes + F_CREATOR, f->creator, 4);
    put32(bytes + F_CREATOR_VERSION, f->creator_version);
    put64(bytes + F_ORIGINAL_SIZE, (uint64_t)f->original_size);
    put64(bytes + F_CURRENT_SIZE, (uint64_t)f->current_size);
    bytes[F_CYLINDERS] = (uint8_t)(f->cylinders >> 8);
    bytes[F_CYLINDERS + 1] = (uint8_t)f->cylinders;
    bytes[F_HEADS] = f->heads;
    bytes[F_SECTORS] = f->sectors;
    put32(bytes + F_TYPE, f->type);
    memcpy(bytes + F_ID, f->id, 16);
    bytes[F_HIDDEN] = f->hidden ? 1 : 0;
    put32(bytes + F_CHECKSUM, vhd_checksum(bytes, VHD_FOOTER_SIZE, F_CHECKSUM));
}

void vhd_footer_init(struct vhd_footer *f, enum vhd_type type, int64_t size, const uint8_t id[16], int64_t epoch_now)
{
    *f = (struct vhd_footer) {
        .timestamp = vhd_timestamp(epoch_now),
        .creator = "tap",
        .creator_version = CREATOR_VERSION,
        .original_size = size,
        .type = type,
    };
    memcpy(f->id, id, 16);
    memcpy(f->raw, "conectix", 8);
    put32(f->raw + F_FEATURES, 2); /* "reserved", always set */
    put32(f->raw + F_VERSION, 0x00010000);
    put32(f->raw + F_OS, OS_WINDOWS);
    vhd_set_size(f, size);
}

/* --- sizes -------------------------------------------------------------------------------------- */
int64_t vhd_virtual_size(const struct vhd_footer *f)
{
    int64_t by_geometry = (int64_t)f->cylinders * f->heads * f->sectors;
    bool by_virtual_pc = memcmp(f->creator, "vpc ", 4) == 0 || memcmp(f->creator, "qemu", 4) == 0;

    if (by_virtual_pc && by_geometry != CHS_MAX)
        return by_geometry * VHD_SECTOR;
    return f->current_size / VHD_SECTOR * VHD_SECTOR;
}

/* The geometry as the specification's appendix wants it. */
void vhd_set_size(struct vhd_footer *f, int64_t size)
{
    int64_t sectors = size / VHD_SECTOR, tracks;
    int64_t heads, per_track;

    f->current_size = size;
    if (sectors > CHS_MAX)
        sectors = CHS_MAX;
    if (sectors >= (int64_t)65535 * 16 * 63) {
        per_track = 255;
        heads = 16;
        tracks = sectors / per_track;
    } else {
        per_track = 17;
        tracks = sectors / per_track;
        heads = (tracks + 1023) / 1024;
        if (heads < 4)
            heads = 4;
        if (tracks >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = sectors / per_track;
        }
        if (tracks >= heads * 1024) {
            per_track = 63;
            heads = 16;
            tracks = sectors / per_track;
        }
    }
    f->cylinders = (uint16_t)(tracks / heads);
    f->heads = (uint8_t)heads;
    f->sectors = (uint8_t)per_track;
}

uint32_t vhd_bitmap_size(uint32_t block_size)
{
    uint32_t bytes = block_size / VHD_SECTOR / 8;

    return (bytes + VHD_SECTOR - 1) / VHD_SECTOR * VHD_SECTOR;
}

uint32_t vhd_timestamp(int64_t epoch)
{
    return epoch < EPOCH_2000 ? 0 : (uint32_t)(epoch - EPOCH_2000);
}

bool vhd_id_is_zero(const uint8_t id[16])
{
    static const uint8_t zeros[16];

    return memcmp(id, zeros, 16) == 0;
}

/* --- header ------------------------------------------------------------------------------------- */
static const char *locator_decode(const uint8_t *p, struct vhd_locator *l)
{
    uint32_t space = get32(p + 4);
    uint64_t offset = get64(p + 16);

    *l = (struct vhd_locator) { .code = get32(p) };
    if (l->code == 0)
        return NULL;
    if (space < VHD_SECTOR) /* sectors as the specification says; others write bytes */
        space *= VHD_SECTOR;
    l->length = get32(p + 8);
    if (space > 1u << 20 || l->length > space || offset > (uint64_t)1 << 42)
        return "impossible parent locator";
    l->space = space;
    l->offset = (int64_t)offset;
    return NULL;
}

const char *vhd_header_decode(const uint8_t bytes[VHD_HEADER_SIZE], struct vhd_header *h)
{
    uint64_t table_offset = get64(bytes + H_TABLE_OFFSET);

    if (memcmp(bytes, "cxsparse", 8) != 0)
        return "no dynamic header";
    if (get32(bytes + H_CHECKSUM) != vhd_checksum(bytes, VHD_HEADER_SIZE, H_CHECKSUM))
        return "wrong checksum of the dynamic header";
    if (get32(bytes + H_VERSION) >> 16 != 1)
        return "unknown version of the dynamic header";
    *h = (struct vhd_header) {
        .table_offset = (int64_t)table_offset,
        .entries = get32(bytes + H_ENTRIES),
        .block_size = get32(bytes + H_BLOCK_SIZE),
        .parent_timestamp = get32(bytes + H_PARENT_TIMESTAMP),
    };
    if (table_offset < VHD_FOOTER_SIZE || table_offset % VHD_SECTOR != 0 || table_offset > (uint64_t)1 << 42)
        return "impossible place of the BAT";
    if ((h->block_size & (h->block_size - 1)) != 0 || h->block_size < VHD_BLOCK_MIN || h->block_size > VHD_BLOCK_MAX)
        return "impossible block size";
    if (h->entries == 0 || h->entries > VHD_ENTRIES_MAX)
        return "impossible length of the BAT";
    memcpy(h->parent_id, bytes + H_PARENT_ID, 16);
    memcpy(h->parent_name, bytes + H_PARENT_NAME, sizeof(h->parent_name));
    memcpy(h->raw, bytes, VHD_HEADER_SIZE);
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const char *wrong = locator_decode(bytes + H_LOCATORS + i * H_LOCATOR_SIZE, &h->locators[i]);

        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

void vhd_header_encode(const struct vhd_header *h, uint8_t bytes[VHD_HEADER_SIZE])
{
    memcpy(bytes, h->raw, VHD_HEADER_SIZE);
    put64(bytes + H_TABLE_OFFSET, (uint64_t)h->table_offset);
    put32(bytes + H_ENTRIES, h->entries);
    put32(bytes + H_BLOCK_SIZE, h->block_size);
    memcpy(bytes + H_PARENT_ID, h->parent_id, 16);
    put32(bytes + H_PARENT_TIMESTAMP, h->parent_timestamp);
    memcpy(bytes + H_PARENT_NAME, h->parent_name, sizeof(h->parent_name));
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        uint8_t *p = bytes + H_LOCATORS + i * H_LOCATOR_SIZE;

        memset(p, 0, H_LOCATOR_SIZE);
        put32(p, h->locators[i].code);
        put32(p + 4, h->locators[i].space / VHD_SECTOR);
        put32(p + 8, h->locators[i].length);
        put64(p + 16, (uint64_t)h->locators[i].offset);
    }
    put32(bytes + H_CHECKSUM, vhd_checksum(bytes, VHD_HEADER_SIZE, H_CHECKSUM));
}

void vhd_header_init(struct vhd_header *h)
{
    *h = (struct vhd_header) { .block_size = VHD_BLOCK_SIZE };
    memcpy(h->raw, "cxsparse", 8);
    put64(h->raw + H_DATA_OFFSET, ~(uint64_t)0);
    put32(h->raw + H_VERSION, 0x00010000);
}

/* --- batmap ------------------------------------------------------------------------------------- */
bool vhd_footer_may_have_batmap(const struct vhd_footer *f)
{
    return f->type != VHD_FIXED && memcmp(f->creator, "tap", 3) == 0 && f->creator_version >= CREATOR_VERSION;
}

bool vhd_batmap_decode(const uint8_t bytes[VHD_SECTOR], struct vhd_batmap *b)
{
    uint64_t offset = get64(bytes + B_OFFSET);
    uint32_t sectors = get32(bytes + B_SIZE);

    if (memcmp(bytes, "tdbatmap", 8) != 0 || offset > (uint64_t)1 << 42 || sectors > VHD_ENTRIES_MAX / 8 / VHD_SECTOR + 1)
        return false;
    *b = (struct vhd_batmap) { .offset = (int64_t)offset, .size = sectors * VHD_SECTOR };
    return true;
}
