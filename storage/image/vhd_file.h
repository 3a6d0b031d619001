/* One VHD file: its structures read and checked against the file, and changed so that a crash leaves the old or
 * the new image.
 *
 * Order of a change: what the new header will point to is written where nothing lies, then the header in its
 * other place (512 or 1,536; behind the data where neither is free), then the footer copy at 0, which points to
 * it, then the footer at the end; fdatasync after each. Either footer alone makes a whole image, and each is one
 * sector. The one at the end counts where both are good.
 *
 * Blocking; errors as image.h says. A struct vhd_file belongs to one thread. */
#ifndef STORAGE_IMAGE_VHD_FILE_H
#define STORAGE_IMAGE_VHD_FILE_H

#include "rpc/base/arena.h"
#include "rpc/base/error.h"
#include "storage/image/vhd_format.h"

#define VHD_CHAIN_MAX 64u
#define VHD_TABLE_ROOM ((int64_t)(VHD_SIZE_MAX / VHD_BLOCK_SIZE) * 4) /* for the BAT of the largest image */

struct vhd_file {
    struct arena *arena;       /* of path, bat and errors */
    int fd;                    /* borrowed; plain (not O_DIRECT) */
    const char *path;
    int64_t file_size;
    bool end_valid, copy_valid;/* the two footers; a fixed image has no copy */
    bool copy_differs;
    struct vhd_footer footer;
    int64_t size;              /* virtual, a multiple of 512 */
    /* dynamic and differencing only: */
    struct vhd_header header;
    uint32_t bitmap_size, n_blocks; /* n_blocks: that the size needs */
    uint32_t *bat;             /* header.entries of them, host order; NULL unless asked for */
    uint32_t n_allocated;
    int64_t batmap_header;     /* 0: none */
    struct vhd_batmap batmap;
    int64_t data_end;          /* nothing lies here or behind but the footer; valid with bat */
};

NODISCARD struct error *vhd_file_read(struct arena *, int fd, const char *path, bool with_bat, struct vhd_file *);
/* Only the footer that counts. NULL text: it is a VHD. Never an error of I/O on files that are none. */
const char *vhd_file_footer(int fd, int64_t file_size, struct vhd_footer *, bool *end_valid_r, bool *copy_valid_r);

static inline bool vhd_file_is_fixed(const struct vhd_file *f) { return f->footer.type == VHD_FIXED; }
/* Where the bitmap of the next block may begin when everything before 'end' is taken: the data behind it is aligned
 * to 4,096, the page it begins in is its own, and before it there is room for a footer at 'end'. */
int64_t vhd_next_block(int64_t end, uint32_t bitmap_size);

/* --- changes; all need the bat, and fd open for writing ------------------------------------------------ */
/* Footers as in f->footer. */
NODISCARD struct error *vhd_file_put_footer(struct vhd_file *);
/* Header and footers as in 'f'. */
NODISCARD struct error *vhd_file_put_header(struct vhd_file *);
/* Room for 'length' bytes where nothing lies: one of the places, or behind the data. Nothing is written. */
int64_t vhd_file_room(struct vhd_file *, const int64_t *places, unsigned n, int64_t length);
bool vhd_file_is_free(const struct vhd_file *, int64_t offset, int64_t length);
/* Makes the footers agree and ends the file right behind the data: what a crash left there goes. */
NODISCARD struct error *vhd_file_settle(struct vhd_file *);

#endif
