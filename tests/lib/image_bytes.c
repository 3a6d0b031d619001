#include "tests/lib/image_bytes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "storage/image/vhd_file.h"
#include "storage/image/vhd_parent.h"

static int file_open(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    CHECK(fd >= 0);
    return fd;
}

static void vhd_read(struct arena *a, int fd, const char *path, struct vhd_file *f)
{
    CHECK(vhd_file_read(a, fd, path, true, f) == NULL && !vhd_file_is_fixed(f));
}

static int64_t bitmap_at(const struct vhd_file *f, uint32_t block)
{
    return (int64_t)f->bat[block] * VHD_SECTOR;
}

static void allocate(struct vhd_file *f, uint32_t block)
{
    int64_t at = vhd_next_block(f->data_end, f->bitmap_size);
    uint32_t entry = __builtin_bswap32((uint32_t)(at / VHD_SECTOR));
    uint8_t footer[VHD_FOOTER_SIZE];

    vhd_footer_encode(&f->footer, footer);
    CHECK(ftruncate(f->fd, at + f->bitmap_size + f->header.block_size) == 0);
    CHECK(fd_pwrite_all(f->fd, footer, sizeof(footer), at + f->bitmap_size + f->header.block_size) == 0);
    CHECK(fd_pwrite_all(f->fd, &entry, sizeof(entry), f->header.table_offset + 4 * (int64_t)block) == 0);
    f->bat[block] = (uint32_t)(at / VHD_SECTOR);
    f->data_end = at + f->bitmap_size + f->header.block_size;
}

static void put_sector(struct vhd_file *f, int64_t offset, const uint8_t *bytes)
{
    uint32_t block = (uint32_t)(offset / f->header.block_size), sector = (uint32_t)(offset % f->header.block_size) / VHD_SECTOR;
    uint8_t bits;

    if (f->bat[block] == VHD_UNUSED)
        allocate(f, block);
    CHECK(fd_pread_all(f->fd, &bits, 1, bitmap_at(f, block) + sector / 8) == 0);
    bits |= (uint8_t)(0x80u >> (sector & 7));
    CHECK(fd_pwrite_all(f->fd, bytes, VHD_SECTOR, bitmap_at(f, block) + f->bitmap_size + (int64_t)sector * VHD_SECTOR) == 0);
    CHECK(fd_pwrite_all(f->fd, &bits, 1, bitmap_at(f, block) + sector / 8) == 0);
}

/* Where a byte of "segments:DEVICE@OFFSET+LENGTH;…" is; n must not reach over the end of a segment. */
static int raw_open(struct arena *a, const char *path, int64_t *offset)
{
    const char *at = path + strlen("segments:");

    if (strncmp(path, "segments:", strlen("segments:")) != 0)
        return file_open(path);
    for (;;) {
        const char *sign = strchr(at, '@'), *plus = strchr(at, '+');
        int64_t start = strtoll(sign + 1, NULL, 10), length = strtoll(plus + 1, NULL, 10);

        if (*offset < length) {
            *offset += start;
            return file_open(arena_strndup(a, at, (size_t)(sign - at)));
        }
        *offset -= length;
        at = strchr(at, ';') + 1;
    }
}

static void raw_get(const char *path, int64_t offset, uint8_t *bytes, size_t n)
{
    AUTO_ARENA a = arena_new();
    AUTO_FD fd = raw_open(a, path, &offset);
    ssize_t got = pread(fd, bytes, n, offset);

    CHECK(got >= 0);
}

/* --- qcow2, by qemu's own tools ----------------------------------------------------------------------- */
static void run(struct arena *a, const char *const *argv)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output;
    int status;

    spec.argv = argv;
    CHECK(child_run(a, &spec, 60000, 65536, &status, &output) == 0 && status == 0);
}

static void qcow2_put(const char *path, int64_t offset, const uint8_t *bytes, size_t n)
{
    AUTO_ARENA a = arena_new();

    for (size_t at = 0; at < n; at += VHD_SECTOR) /* all of a sector alike, that is enough */
        if (at == 0 || bytes[at] != bytes[at - 1])
            run(a, (const char *const[]) { "qemu-io", "-f", "qcow2", "-c",
                                           arena_printf(a, "write -P %u %lld %zu", bytes[at], (long long)offset + (long long)at, n - at), path, NULL });
}

static void qcow2_get(const char *path, int64_t offset, uint8_t *bytes, size_t n)
{
    AUTO_ARENA a = arena_new();
    const char *whole = arena_printf(a, "%s.whole", path);

    run(a, (const char *const[]) { "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, whole, NULL });
    raw_get(whole, offset, bytes, n);
    unlink(whole);
}

void image_put(const char *format, const char *path, int64_t offset, const void *bytes, size_t n)
{
    AUTO_ARENA a = arena_new();
    AUTO_FD fd = strcmp(format, "raw") == 0 ? raw_open(a, path, &offset) : file_open(path);
    struct vhd_file f;

    if (strcmp(format, "qcow2") == 0) {
        qcow2_put(path, offset, bytes, n);
        return;
    }
    if (strcmp(format, "raw") == 0) {
        CHECK(fd_pwrite_all(fd, bytes, n, offset) == 0 && fsync(fd) == 0);
        return;
    }
    vhd_read(a, fd, path, &f);
    for (size_t at = 0; at < n; at += VHD_SECTOR)
        put_sector(&f, offset + (int64_t)at, (const uint8_t *)bytes + at);
}

/* One sector; false where neither this image nor a parent has it. */
static bool own_sector(const struct vhd_file *f, int64_t offset, uint8_t *bytes)
{
    uint32_t block = (uint32_t)(offset / f->header.block_size), sector = (uint32_t)(offset % f->header.block_size) / VHD_SECTOR;
    uint8_t bits;

    if (offset >= f->size || f->bat[block] == VHD_UNUSED)
        return false;
    CHECK(fd_pread_all(f->fd, &bits, 1, bitmap_at(f, block) + sector / 8) == 0);
    if ((bits & (0x80u >> (sector & 7))) == 0)
        return false;
    CHECK(fd_pread_all(f->fd, bytes, VHD_SECTOR, bitmap_at(f, block) + f->bitmap_size + (int64_t)sector * VHD_SECTOR) == 0);
    return true;
}

void image_get(const char *format, const char *path, int64_t offset, void *bytes, size_t n)
{
    AUTO_ARENA a = arena_new();
    AUTO_FD fd = -1;
    struct vhd_file f;
    struct vhd_parent parent = { .path = "", .format = "" };
    uint8_t *out = bytes;

    memset(out, 0, n);
    if (strcmp(format, "raw") == 0) {
        raw_get(path, offset, out, n);
        return;
    }
    if (strcmp(format, "qcow2") == 0) {
        qcow2_get(path, offset, out, n);
        return;
    }
    fd = file_open(path);
    vhd_read(a, fd, path, &f);
    if (f.footer.type == VHD_DIFFERENCING) {
        CHECK(vhd_parent_find(&f, &parent) == NULL && parent.found);
        image_get(parent.format, parent.path, offset, out, n);
    }
    for (size_t at = 0; at < n; at += VHD_SECTOR)
        (void)own_sector(&f, offset + (int64_t)at, out + at);
}

void image_merge(const char *from, const char *to, unsigned max_blocks)
{
    AUTO_ARENA a = arena_new();
    AUTO_FD in = file_open(from), out = file_open(to);
    struct vhd_file source, target;
    uint8_t sector[VHD_SECTOR];

    vhd_read(a, in, from, &source);
    vhd_read(a, out, to, &target);
    for (uint32_t block = 0; block < source.n_blocks && max_blocks > 0; block++) {
        int64_t start = (int64_t)block * source.header.block_size;

        if (source.bat[block] == VHD_UNUSED)
            continue;
        max_blocks--;
        for (uint32_t at = 0; at < source.header.block_size; at += VHD_SECTOR)
            if (own_sector(&source, start + at, sector))
                put_sector(&target, start + at, sector);
    }
    CHECK(fsync(out) == 0);
}
