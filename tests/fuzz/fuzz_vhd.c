/* Files that say they are VHDs: info, check, opening, reading, writing. No crash, no write to a file opened for
 * reading or found damaged, and an image that was good is good after we wrote to it.
 *
 * Input: a byte of flags, a byte of length (64 KiB holes appended), then the file's beginning. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/image/image.h"
#include "storage/image/vhd_format.h"
#include "storage/tapd/block.h"

#define FIX_CHECKSUMS 1u
#define WRITE 2u
#define FOOTER_AT_END 4u
#define FILE_MAX 65536u
#define LENGTH 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    char dir[64], path[96];
    struct loop *loop;
    struct disk_io *io;
    struct request_pool *pool;
} world;

static void world_remove(void)
{
    static const char *const names[] = { "image.vhd", "parent.raw", "parent.vhd" };
    char path[128];

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", world.dir, names[i]);
        unlink(path);
    }
    rmdir(world.dir);
}

static void world_make(struct call *c)
{
    char path[128];

    /* syncs are free in memory */
    snprintf(world.dir, sizeof(world.dir), "%s/fuzz-vhd-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(world.dir) != NULL);
    atexit(world_remove);
    snprintf(world.path, sizeof(world.path), "%s/image.vhd", world.dir);
    log_set_level(NULL, LOG_ERR);
    world.loop = loop_new(&clock_real);
    world.io = disk_io_new(world.loop, true);
    world.pool = request_pool_new(1, LENGTH);
    snprintf(path, sizeof(path), "%s/parent.raw", world.dir);
    CHECK(image_raw.create(c, path, 65536, NULL, NULL) == NULL);
    snprintf(path, sizeof(path), "%s/parent.vhd", world.dir);
    CHECK(image_vhd.create(c, path, 65536, NULL, NULL) == NULL);
}

static void put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* So that the fuzzer gets past them. */
static void fix_checksums(uint8_t *bytes, size_t n)
{
    if (n >= VHD_FOOTER_SIZE)
        put32(bytes + 64, vhd_checksum(bytes, VHD_FOOTER_SIZE, 64));
    for (size_t at = 0; at + VHD_HEADER_SIZE <= n; at += VHD_SECTOR)
        if (memcmp(bytes + at, "cxsparse", 8) == 0)
            put32(bytes + at + 36, vhd_checksum(bytes + at, VHD_HEADER_SIZE, 36));
}

static void make_file(const uint8_t *data, size_t n, unsigned flags, unsigned holes)
{
    static uint8_t bytes[FILE_MAX];
    AUTO_FD fd = open(world.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int64_t end;

    n = n > FILE_MAX ? FILE_MAX : n;
    if (n > 0)
        memcpy(bytes, data, n);
    if ((flags & FIX_CHECKSUMS) != 0)
        fix_checksums(bytes, n);
    end = (int64_t)n + (int64_t)holes * 65536;
    CHECK(fd >= 0 && fd_pwrite_all(fd, bytes, n, 0) == 0 && ftruncate(fd, end) == 0);
    if ((flags & FOOTER_AT_END) != 0 && n >= VHD_FOOTER_SIZE)
        CHECK(fd_pwrite_all(fd, bytes, VHD_FOOTER_SIZE, end / 512 * 512) == 0);
}

/* Changes with any write, and any change of the size. */
static uint64_t state_of_file(void)
{
    struct stat st;
    AUTO_FD fd = open(world.path, O_RDONLY | O_CLOEXEC);
    static uint8_t bytes[FILE_MAX];
    uint64_t hash = 14695981039346656037u;
    ssize_t n;

    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    n = read(fd, bytes, sizeof(bytes));
    CHECK(n >= 0);
    for (ssize_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash ^ (uint64_t)st.st_size << 32 ^ (uint64_t)st.st_mtim.tv_nsec ^ (uint64_t)st.st_mtim.tv_sec << 30;
}

static void finished(struct block_request *r) { *(bool *)r->owner = true; }

static void run(struct block *b, enum block_op op, int64_t offset, uint32_t length)
{
    struct block_request *r = request_take(world.pool);
    bool done = false;

    r->op = op;
    r->offset = offset;
    r->length = length;
    r->done = finished;
    r->owner = &done;
    block_submit(b, r);
    while (!done)
        loop_turn(world.loop, -1);
    request_give(world.pool, r);
}

static bool count_extent(void *ctx, const struct block_extent *e)
{
    CHECK(e->length > 0 && (e->length & 511) == 0);
    return ++*(unsigned *)ctx < 100;
}

static void use(struct block *b, bool writing)
{
    int64_t last = b->size > LENGTH ? (b->size - LENGTH) & ~(int64_t)511 : 0;
    const int64_t places[] = { 0, b->size / 3 & ~(int64_t)511, last };
    uint32_t length = b->size < LENGTH ? (uint32_t)b->size : LENGTH;
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(places) && places[i] <= last; i++) {
        run(b, BLOCK_READ, places[i], length);
        if (writing) {
            run(b, BLOCK_WRITE, places[i], length);
            run(b, BLOCK_ZERO, places[i], 512);
            run(b, BLOCK_FLUSH, 0, 0);
        }
    }
    (void)block_extents(b, 0, b->size < ((int64_t)64 << 20) ? b->size : (int64_t)64 << 20, false, count_extent, &n);
}

static void open_and_use(struct call *c, bool writing, bool good)
{
    const struct block_open o = { .loop = world.loop, .io = world.io, .format = "vhd", .path = world.path, .read_only = !writing, .cached = true };
    uint64_t before = state_of_file();
    struct block *b;

    if (vhd_open(c->arena, &o, &b) == NULL) {
        use(b, writing);
        CHECK(block_close(b) == 0 || writing);
    } else
        writing = false;
    CHECK(writing || state_of_file() == before);
    if (writing && good)
        CHECK(image_vhd.check(c, world.path) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_ARENA arena = arena_new();
    struct call c = { .arena = arena, .clock = &clock_real, .id = "fuzz" };
    struct image_info info;
    uint64_t before;
    bool good;

    if (world.loop == NULL)
        world_make(&c);
    if (size < 2)
        return 0;
    make_file(data + 2, size - 2, data[0], data[1]);
    before = state_of_file();
    if (image_vhd.info(&c, world.path, &info) == NULL)
        CHECK(info.virtual_size > 0 && info.virtual_size <= VHD_SIZE_MAX && info.virtual_size % 512 == 0);
    good = image_vhd.check(&c, world.path) == NULL;
    CHECK(state_of_file() == before);
    open_and_use(&c, false, good);
    if ((data[0] & WRITE) != 0)
        open_and_use(&c, true, good);
    if (good) {
        (void)image_vhd.set_hidden(&c, world.path, true);
        if (info.virtual_size < (int64_t)1 << 32)
            (void)image_vhd.resize(&c, world.path, info.virtual_size + ((int64_t)64 << 20));
        CHECK(image_vhd.check(&c, world.path) == NULL);
    }
    return 0;
}
