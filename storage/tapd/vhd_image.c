#include "storage/tapd/vhd_image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"

LOG_MODULE(vhd);

#define PAGE 4096u

void *vhd_pages_new(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

void vhd_pages_free(void *p, size_t size)
{
    if (p != NULL)
        munmap(p, size);
}

/* Bitmaps lie at any sector: O_DIRECT only where it takes those. */
static bool takes_sectors(int fd)
{
    static uint8_t sector[VHD_SECTOR] __attribute__((aligned(PAGE)));

    return pread(fd, sector, VHD_SECTOR, VHD_SECTOR) >= 0;
}

int vhd_data_open(const char *path, bool read_only, bool cached)
{
    int flags = (read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK;
    int fd;

    if (!cached) {
        AUTO_FD direct = open(path, flags | O_CLOEXEC | O_DIRECT);

        if (direct >= 0 && takes_sectors(direct))
            return fd_steal(&direct);
        if (direct < 0 && errno != EINVAL)
            return -errno;
        log_info("%s cannot be opened uncached: the page cache is used", path);
    }
    fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void vhd_image_take(struct vhd_image *i, const struct vhd_file *f)
{
    uint8_t *full;

    i->size = f->size;
    if (vhd_file_is_fixed(f)) {
        i->flat = true;
        return;
    }
    full = xcalloc(1, f->header.entries / 8 + 1);
    if (i->full != NULL)
        memcpy(full, i->full, i->entries / 8 + 1);
    xfree(i->full);
    xfree(i->bat);
    i->full = full;
    i->block_size = f->header.block_size;
    i->bitmap_size = f->bitmap_size;
    i->entries = f->header.entries;
    i->bat = xcalloc(i->entries, sizeof(*i->bat));
    memcpy(i->bat, f->bat, i->entries * sizeof(*i->bat));
}

void vhd_image_release(struct vhd_image *i)
{
    fd_close(&i->fd);
    vhd_pages_free(i->bitmaps.memory, i->bitmaps.memory_size);
    xfree(i->bitmaps.all);
    xfree(i->bat);
    xfree(i->full);
    xfree(i->path);
    *i = (struct vhd_image) { .fd = -1 };
}

/* --- bitmaps ------------------------------------------------------------------------------------ */
static void unlink_use(struct vhd_bitmaps *s, struct vhd_bitmap *b)
{
    *(b->newer != NULL ? &b->newer->older : &s->newest) = b->older;
    *(b->older != NULL ? &b->older->newer : &s->oldest) = b->newer;
}

static void link_newest(struct vhd_bitmaps *s, struct vhd_bitmap *b)
{
    b->newer = NULL;
    b->older = s->newest;
    *(s->newest != NULL ? &s->newest->newer : &s->oldest) = b;
    s->newest = b;
}

void vhd_image_make_bitmaps(struct vhd_image *i, bool writable)
{
    struct vhd_bitmaps *s = &i->bitmaps;
    size_t step = (size_t)i->bitmap_size * (writable ? 2 : 1);

    if (i->flat)
        return;
    s->all = xcalloc(VHD_BITMAPS, sizeof(*s->all));
    s->memory_size = step * VHD_BITMAPS;
    s->memory = vhd_pages_new(s->memory_size);
    for (unsigned n = 0; n < VHD_BITMAPS; n++) {
        struct vhd_bitmap *b = &s->all[n];

        b->image = i;
        b->bits = s->memory + step * n;
        b->stage = writable ? b->bits + i->bitmap_size : NULL;
        link_newest(s, b);
    }
}

static struct vhd_bitmap **bucket(struct vhd_image *i, uint32_t block)
{
    return &i->bitmaps.hash[block % VHD_BITMAPS];
}

struct vhd_bitmap *vhd_bitmap_find(struct vhd_image *i, uint32_t block)
{
    for (struct vhd_bitmap *b = *bucket(i, block); b != NULL; b = b->same_hash)
        if (b->block == block) {
            if (i->bitmaps.newest != b) {
                unlink_use(&i->bitmaps, b);
                link_newest(&i->bitmaps, b);
            }
            return b;
        }
    return NULL;
}

bool vhd_bitmap_is_free(const struct vhd_bitmap *b)
{
    return !b->loading && !b->dirty && !b->staged && b->refs == 0;
}

void vhd_bitmap_drop(struct vhd_bitmap *b)
{
    struct vhd_bitmap **p = bucket(b->image, b->block);

    CHECK(vhd_bitmap_is_free(b) && b->waiting == NULL);
    if (!b->used)
        return;
    while (*p != b)
        p = &(*p)->same_hash;
    *p = b->same_hash;
    b->used = false;
}

struct vhd_bitmap *vhd_bitmap_take(struct vhd_image *i, uint32_t block)
{
    struct vhd_bitmap *b = i->bitmaps.oldest;

    while (b != NULL && !vhd_bitmap_is_free(b))
        b = b->newer;
    if (b == NULL)
        return NULL;
    vhd_bitmap_drop(b);
    b->used = true;
    b->block = block;
    b->round = 0;
    b->same_hash = *bucket(i, block);
    *bucket(i, block) = b;
    memset(b->bits, 0, i->bitmap_size);
    unlink_use(&i->bitmaps, b);
    link_newest(&i->bitmaps, b);
    return b;
}

uint32_t vhd_bitmap_run(const uint8_t *bits, uint32_t first, uint32_t n)
{
    bool value = vhd_bit(bits, first);
    uint8_t whole = value ? 0xff : 0;
    uint32_t at = first, end = first + n;

    while (at < end) {
        if ((at & 7) == 0 && at + 8 <= end && bits[at >> 3] == whole)
            at += 8;
        else if (vhd_bit(bits, at) == value)
            at++;
        else
            break;
    }
    return at - first;
}

bool vhd_bitmap_set(uint8_t *bits, uint32_t first, uint32_t n)
{
    bool changed = false;

    for (uint32_t at = first; at < first + n;) {
        bool whole = (at & 7) == 0 && at + 8 <= first + n;
        uint8_t mask = whole ? 0xff : (uint8_t)(0x80u >> (at & 7));

        changed |= (bits[at >> 3] & mask) != mask;
        bits[at >> 3] |= mask;
        at += whole ? 8 : 1;
    }
    return changed;
}
