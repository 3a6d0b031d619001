/* The structures of Microsoft's Virtual Hard Disk Image Format Specification 1.0, in memory and on disk.
 *
 * All numbers on disk are big-endian. A dynamic image:
 *
 *   0            copy of the footer (512)
 *   data_offset  dynamic header (1,024), by the footer
 *   table_offset BAT, by the header: for each block the sector of its bitmap, or VHD_UNUSED
 *   ...          blocks: bitmap (a bit a sector, most significant first, padded to 512), then the data
 *   end - 512    footer
 *
 * A set bit: this image has the sector. A clear bit: the parent has it, or it reads as zeros.
 * A fixed image is the data and one footer. Pure functions over memory; nothing here does I/O. */
#ifndef STORAGE_IMAGE_VHD_FORMAT_H
#define STORAGE_IMAGE_VHD_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/attributes.h"

#define VHD_SECTOR 512u
#define VHD_FOOTER_SIZE 512u
#define VHD_HEADER_SIZE 1024u
#define VHD_BLOCK_SIZE (2u << 20) /* what we write; others are read */
#define VHD_BLOCK_MIN (512u << 10)
#define VHD_BLOCK_MAX (64u << 20)
#define VHD_SIZE_MAX ((int64_t)2040 << 30)
#define VHD_UNUSED 0xffffffffu
#define VHD_ENTRIES_MAX ((uint32_t)(VHD_SIZE_MAX / VHD_BLOCK_MIN))
#define VHD_LOCATORS 8u
#define VHD_NAME_UNITS 256u /* UTF-16 units in the header's own parent name */

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

struct vhd_footer {
    int64_t data_offset;         /* of the dynamic header */
    uint32_t timestamp;          /* seconds since 2000 */
    char creator[4];
    uint32_t creator_version;
    int64_t original_size, current_size;
    uint16_t cylinders;
    uint8_t heads, sectors;
    enum vhd_type type;
    uint8_t id[16];              /* the image's unique id */
    bool hidden;                 /* blktap's mark, in the first reserved byte */
    uint8_t raw[VHD_FOOTER_SIZE];/* as read: what we do not know is kept */
};

struct vhd_locator {
    uint32_t code;               /* VHD_LOCATOR_*, 0: free */
    uint32_t space, length;      /* bytes: of the room, of the name */
    int64_t offset;
};
#define VHD_LOCATOR_MACX 0x4d616358u /* file URI, UTF-8 */
#define VHD_LOCATOR_W2KU 0x57326b75u /* absolute path, UTF-16 little-endian (blktap: relative) */
#define VHD_LOCATOR_W2RU 0x57327275u /* relative path, UTF-16 little-endian */

struct vhd_header {
    int64_t table_offset;
    uint32_t entries, block_size;
    uint8_t parent_id[16];       /* all zeros: a raw parent, where the type is differencing */
    uint32_t parent_timestamp;
    uint8_t parent_name[2 * VHD_NAME_UNITS]; /* UTF-16 big-endian */
    struct vhd_locator locators[VHD_LOCATORS];
    uint8_t raw[VHD_HEADER_SIZE];
};

/* What is wrong, in a few words, or NULL. All fields are checked for themselves; offsets against the file by
 * whoever knows the file (storage/image/vhd_file.h). */
const char *vhd_footer_decode(const uint8_t bytes[VHD_FOOTER_SIZE], struct vhd_footer *);
const char *vhd_header_decode(const uint8_t bytes[VHD_HEADER_SIZE], struct vhd_header *);
/* With checksum. Fields without a member are taken from raw; vhd_*_init prepares that. */
void vhd_footer_encode(const struct vhd_footer *, uint8_t bytes[VHD_FOOTER_SIZE]);
void vhd_header_encode(const struct vhd_header *, uint8_t bytes[VHD_HEADER_SIZE]);
/* New ones: id and sizes set; we sign as "tap" 1.1, which blktap reads as: bitmaps in order, hidden mark, no
 * batmap unless it finds one; and qemu as: the size is current_size. */
void vhd_footer_init(struct vhd_footer *, enum vhd_type, int64_t size, const uint8_t id[16], int64_t epoch_now);
void vhd_header_init(struct vhd_header *);

/* The size a guest sees: current_size, but what Virtual PC and old qemu wrote goes by the geometry. */
int64_t vhd_virtual_size(const struct vhd_footer *);
void vhd_set_size(struct vhd_footer *, int64_t size); /* current size and geometry */
uint32_t vhd_bitmap_size(uint32_t block_size);       /* bytes, whole sectors */
uint32_t vhd_timestamp(int64_t epoch);
bool vhd_id_is_zero(const uint8_t id[16]);
uint32_t vhd_checksum(const uint8_t *, uint32_t n, uint32_t skip_at); /* the 4 bytes at skip_at count as zeros */

/* blktap's second map, behind the BAT: which blocks have all their bits set. We need none: it stays true as
 * bits are only ever set, and is given up when the BAT grows. */
struct vhd_batmap { int64_t offset; uint32_t size; }; /* bytes */
bool vhd_footer_may_have_batmap(const struct vhd_footer *);
bool vhd_batmap_decode(const uint8_t bytes[VHD_SECTOR], struct vhd_batmap *); /* false: none there */

/* UTF-16 names. Both give false where the text is malformed or too long; 'out' is NUL-terminated. */
bool vhd_utf16_decode(const uint8_t *, uint32_t n, bool big_endian, char *out, uint32_t cap);
bool vhd_utf16_encode(const char *, bool big_endian, uint8_t *out, uint32_t cap, uint32_t *n_r);

static inline bool vhd_bit(const uint8_t *bitmap, uint32_t sector) { return (bitmap[sector >> 3] & (0x80u >> (sector & 7))) != 0; }

#endif
