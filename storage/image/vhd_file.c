#include "storage/image/vhd_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/image/image_error.h"

#define PAGE ((int64_t)4096)

struct extent { int64_t offset, length; const char *what; };
#define EXTENTS_MAX (4 + VHD_LOCATORS)

static int64_t align_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

int64_t vhd_next_block(int64_t end, uint32_t bitmap_size)
{
    int64_t head = align_up(bitmap_size, PAGE), start = align_up(end, PAGE);

    if (start + (head - bitmap_size) < end + VHD_FOOTER_SIZE)
        start += PAGE;
    return start + (head - bitmap_size);
}

/* --- footers ------------------------------------------------------------------------------------ */
static const char *footer_at(int fd, int64_t offset, struct vhd_footer *f)
{
    uint8_t bytes[VHD_FOOTER_SIZE];

    return offset < 0 || fd_pread_all(fd, bytes, sizeof(bytes), offset) != 0 ? "no footer" : vhd_footer_decode(bytes, f);
}

const char *vhd_file_footer(int fd, int64_t file_size, struct vhd_footer *f, bool *end_valid_r, bool *copy_valid_r)
{
    struct vhd_footer end, copy;
    const char *wrong = footer_at(fd, file_size / VHD_SECTOR * VHD_SECTOR - VHD_FOOTER_SIZE, &end);
    const char *copy_wrong = footer_at(fd, 0, &copy);

    *end_valid_r = wrong == NULL;
    *copy_valid_r = copy_wrong == NULL && copy.type != VHD_FIXED;
    if (wrong == NULL && end.type == VHD_FIXED)
        *copy_valid_r = false; /* the guest's first sector, whatever it says */
    if (wrong == NULL)
        *f = end;
    else if (*copy_valid_r) {
        *f = copy;
        wrong = NULL;
    } else if (strcmp(wrong, "no footer") == 0 && copy_wrong != NULL)
        wrong = copy_wrong;
    return wrong;
}

/* --- what lies where ---------------------------------------------------------------------------- */
static unsigned file_extents(const struct vhd_file *f, struct extent e[EXTENTS_MAX])
{
    unsigned n = 0;

    e[n++] = (struct extent) { 0, VHD_FOOTER_SIZE, "the footer's copy" };
    e[n++] = (struct extent) { f->footer.data_offset, VHD_HEADER_SIZE, "the header" };
    e[n++] = (struct extent) { f->header.table_offset, align_up((int64_t)f->header.entries * 4, VHD_SECTOR), "the BAT" };
    for (unsigned i = 0; i < VHD_LOCATORS; i++)
        if (f->header.locators[i].code != 0 && f->header.locators[i].length > 0)
            e[n++] = (struct extent) { f->header.locators[i].offset, f->header.locators[i].length, "a parent locator" };
    return n;
}

static bool overlaps(int64_t a, int64_t a_length, int64_t b, int64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

static struct error *check_extents(const struct vhd_file *f)
{
    struct extent e[EXTENTS_MAX];
    unsigned n = file_extents(f, e);

    for (unsigned i = 0; i < n; i++) {
        if (e[i].offset + e[i].length > f->file_size)
            return image_damaged(f->arena, f->path, "%s lies beyond the end of the file", e[i].what);
        for (unsigned j = 0; j < i; j++)
            if (overlaps(e[i].offset, e[i].length, e[j].offset, e[j].length))
                return image_damaged(f->arena, f->path, "%s and %s overlap", e[j].what, e[i].what);
    }
    return NULL;
}

/* blktap keeps it behind the BAT. One that is not as it should be counts as none. */
static void find_batmap(struct vhd_file *f)
{
    int64_t at = f->header.table_offset + align_up((int64_t)f->header.entries * 4, VHD_SECTOR);
    uint8_t bytes[VHD_SECTOR];

    f->batmap_header = 0;
    if (!vhd_footer_may_have_batmap(&f->footer) || fd_pread_all(f->fd, bytes, sizeof(bytes), at) != 0 || !vhd_batmap_decode(bytes, &f->batmap))
        return;
    if (f->batmap.offset >= at && f->batmap.offset + f->batmap.size <= f->file_size)
        f->batmap_header = at;
}

static int by_position(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The first of the sorted blocks that ends behind 'offset'. */
static uint32_t first_behind(const uint32_t *sorted, uint32_t n, int64_t whole, int64_t offset)
{
    uint32_t low = 0, high = n;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if ((int64_t)sorted[middle] * VHD_SECTOR + whole > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static struct error *check_blocks(struct vhd_file *f, int64_t file_size)
{
    int64_t whole = (int64_t)f->bitmap_size + f->header.block_size;
    AUTO_FREE uint32_t *sorted = xcalloc((size_t)f->n_allocated + 1, sizeof(*sorted));
    struct extent e[EXTENTS_MAX];
    unsigned n_extents = file_extents(f, e);
    uint32_t n = 0;

    for (uint32_t i = 0; n < f->n_allocated; i++)
        if (f->bat[i] != VHD_UNUSED)
            sorted[n++] = f->bat[i];
    qsort(sorted, n, sizeof(*sorted), by_position);
    for (uint32_t i = 1; i < n; i++)
        if ((int64_t)(sorted[i] - sorted[i - 1]) * VHD_SECTOR < whole)
            return image_damaged(f->arena, f->path, "two blocks overlap at sector %u", sorted[i]);
    if (n > 0 && (int64_t)sorted[n - 1] * VHD_SECTOR + whole > file_size)
        return image_damaged(f->arena, f->path, "a block at sector %u lies beyond the end of the file", sorted[n - 1]);
    for (unsigned i = 0; i < n_extents; i++) {
        uint32_t at = first_behind(sorted, n, whole, e[i].offset);

        if (at < n && (int64_t)sorted[at] * VHD_SECTOR < e[i].offset + e[i].length)
            return image_damaged(f->arena, f->path, "a block at sector %u overlaps %s", sorted[at], e[i].what);
        if (e[i].offset + e[i].length > f->data_end)
            f->data_end = e[i].offset + e[i].length;
    }
    if (f->batmap_header != 0 && f->batmap.offset + f->batmap.size > f->data_end)
        f->data_end = f->batmap.offset + f->batmap.size;
    if (n > 0 && (int64_t)sorted[n - 1] * VHD_SECTOR + whole > f->data_end)
        f->data_end = (int64_t)sorted[n - 1] * VHD_SECTOR + whole;
    return NULL;
}

/* A BAT with nothing behind it keeps the room up to the footer: it may grow. */
static void keep_table_room(struct vhd_file *f)
{
    int64_t table_end = f->header.table_offset + (int64_t)f->header.entries * 4, limit = f->end_valid ? f->file_size - VHD_FOOTER_SIZE : f->file_size;

    f->data_end = align_up(f->data_end, VHD_SECTOR);
    if (f->data_end > align_up(table_end, VHD_SECTOR))
        return;
    if (limit > f->header.table_offset + VHD_TABLE_ROOM)
        limit = f->header.table_offset + VHD_TABLE_ROOM;
    if (limit > f->data_end)
        f->data_end = limit / VHD_SECTOR * VHD_SECTOR;
}

static struct error *read_bat(struct vhd_file *f)
{
    struct stat st;
    int error;

    f->bat = xcalloc(f->header.entries, sizeof(*f->bat)); /* megabytes: not cleared first, as an arena would */
    arena_on_free(f->arena, xfree, f->bat);
    error = fd_pread_all(f->fd, f->bat, (size_t)f->header.entries * 4, f->header.table_offset);
    if (error == 0 && fstat(f->fd, &st) != 0) /* its size now: a tapd may be making it longer */
        error = -errno;
    if (error != 0)
        return image_failed(f->arena, "reading the BAT of", f->path, error);
    f->n_allocated = 0;
    for (uint32_t i = 0; i < f->header.entries; i++) {
        f->bat[i] = __builtin_bswap32(f->bat[i]);
        f->n_allocated += f->bat[i] != VHD_UNUSED;
    }
    f->data_end = 0;
    TRY(check_blocks(f, st.st_size));
    keep_table_room(f);
    return NULL;
}

static struct error *read_dynamic(struct vhd_file *f, bool with_bat)
{
    uint8_t bytes[VHD_HEADER_SIZE];
    const char *wrong;

    if (f->footer.data_offset + VHD_HEADER_SIZE > f->file_size || fd_pread_all(f->fd, bytes, sizeof(bytes), f->footer.data_offset) != 0)
        return image_damaged(f->arena, f->path, "the header lies beyond the end of the file");
    wrong = vhd_header_decode(bytes, &f->header);
    if (wrong != NULL)
        return image_damaged(f->arena, f->path, "%s", wrong);
    f->bitmap_size = vhd_bitmap_size(f->header.block_size);
    f->n_blocks = (uint32_t)((f->size + f->header.block_size - 1) / f->header.block_size);
    if (f->header.entries < f->n_blocks)
        return image_damaged(f->arena, f->path, "the BAT has %u entries, the size needs %u", f->header.entries, f->n_blocks);
    TRY(check_extents(f));
    find_batmap(f);
    return with_bat ? read_bat(f) : NULL;
}

struct error *vhd_file_read(struct arena *arena, int fd, const char *path, bool with_bat, struct vhd_file *f)
{
    struct vhd_footer copy;
    const char *wrong;
    struct stat st;

    *f = (struct vhd_file) { .arena = arena, .fd = fd, .path = path };
    if (fstat(fd, &st) != 0)
        return image_failed(arena, "reading", path, errno);
    if (!S_ISREG(st.st_mode))
        return image_refused(arena, "%s is no file: a VHD must be one", path);
    f->file_size = st.st_size;
    wrong = vhd_file_footer(fd, f->file_size, &f->footer, &f->end_valid, &f->copy_valid);
    if (wrong != NULL)
        return image_damaged(arena, path, "%s", wrong);
    f->size = vhd_virtual_size(&f->footer);
    if (f->end_valid && f->copy_valid)
        f->copy_differs = footer_at(fd, 0, &copy) != NULL || memcmp(copy.raw, f->footer.raw, VHD_FOOTER_SIZE) != 0;
    if (!vhd_file_is_fixed(f))
        return read_dynamic(f, with_bat);
    f->data_end = f->file_size / VHD_SECTOR * VHD_SECTOR - VHD_FOOTER_SIZE;
    if (f->size > f->data_end)
        return image_damaged(arena, path, "%lld bytes are missing", (long long)(f->size - f->data_end));
    return NULL;
}

/* --- changes ------------------------------------------------------------------------------------ */
static struct error *put(struct vhd_file *f, const void *bytes, size_t n, int64_t offset)
{
    int error = fd_pwrite_all(f->fd, bytes, n, offset);

    if (error == 0 && fdatasync(f->fd) != 0)
        error = -errno;
    if (error == 0 && offset + (int64_t)n > f->file_size)
        f->file_size = offset + (int64_t)n;
    return error == 0 ? NULL : image_failed(f->arena, "writing", f->path, error);
}

struct error *vhd_file_put_footer(struct vhd_file *f)
{
    bool in_place = f->end_valid && f->file_size - VHD_FOOTER_SIZE >= f->data_end && f->file_size % VHD_SECTOR == 0;
    int64_t end = f->file_size - VHD_FOOTER_SIZE;

    if (!in_place) {
        end = vhd_file_is_fixed(f) ? f->data_end : align_up(f->file_size, VHD_SECTOR);
        if (end < f->data_end)
            end = f->data_end;
    }
    vhd_footer_encode(&f->footer, f->footer.raw);
    if (!vhd_file_is_fixed(f))
        TRY(put(f, f->footer.raw, VHD_FOOTER_SIZE, 0));
    TRY(put(f, f->footer.raw, VHD_FOOTER_SIZE, end));
    f->end_valid = f->file_size == end + VHD_FOOTER_SIZE;
    f->copy_valid = !vhd_file_is_fixed(f);
    f->copy_differs = false;
    return NULL;
}

bool vhd_file_is_free(const struct vhd_file *f, int64_t offset, int64_t length)
{
    int64_t whole = (int64_t)f->bitmap_size + f->header.block_size;
    struct extent e[EXTENTS_MAX];
    unsigned n = file_extents(f, e);

    if (offset + length > f->data_end)
        return false;
    for (unsigned i = 0; i < n; i++)
        if (overlaps(offset, length, e[i].offset, e[i].length))
            return false;
    if (f->batmap_header != 0 &&
        (overlaps(offset, length, f->batmap_header, VHD_SECTOR) || overlaps(offset, length, f->batmap.offset, f->batmap.size)))
        return false;
    for (uint32_t i = 0; f->n_allocated > 0 && i < f->header.entries; i++)
        if (f->bat[i] != VHD_UNUSED && overlaps(offset, length, (int64_t)f->bat[i] * VHD_SECTOR, whole))
            return false;
    return true;
}

int64_t vhd_file_room(struct vhd_file *f, const int64_t *places, unsigned n, int64_t length)
{
    int64_t at;

    for (unsigned i = 0; i < n; i++)
        if (vhd_file_is_free(f, places[i], length))
            return places[i];
    /* not over the footer that is still needed */
    at = align_up(f->data_end + VHD_FOOTER_SIZE, PAGE);
    f->data_end = at + align_up(length, PAGE);
    return at;
}

struct error *vhd_file_put_header(struct vhd_file *f)
{
    static const int64_t places[] = { VHD_FOOTER_SIZE, VHD_FOOTER_SIZE + VHD_HEADER_SIZE };
    int64_t at = vhd_file_room(f, places, ARRAY_LEN(places), VHD_HEADER_SIZE);

    vhd_header_encode(&f->header, f->header.raw);
    TRY(put(f, f->header.raw, VHD_HEADER_SIZE, at));
    f->footer.data_offset = at;
    return vhd_file_put_footer(f);
}

struct error *vhd_file_settle(struct vhd_file *f)
{
    bool at_end = f->file_size == f->data_end + VHD_FOOTER_SIZE;

    if (f->end_valid && at_end && (vhd_file_is_fixed(f) || (f->copy_valid && !f->copy_differs)))
        return NULL;
    if (vhd_file_is_fixed(f))
        return NULL;
    TRY(put(f, f->footer.raw, VHD_FOOTER_SIZE, 0));
    TRY(put(f, f->footer.raw, VHD_FOOTER_SIZE, f->data_end));
    if (ftruncate(f->fd, f->data_end + VHD_FOOTER_SIZE) != 0 || fdatasync(f->fd) != 0)
        return image_failed(f->arena, "writing", f->path, errno);
    f->file_size = f->data_end + VHD_FOOTER_SIZE;
    f->end_valid = f->copy_valid = true;
    f->copy_differs = false;
    return NULL;
}
