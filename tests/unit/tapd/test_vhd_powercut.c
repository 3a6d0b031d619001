/* The vhd format when the power goes: a disk_io of our own runs operations in any order, remembers what was
 * written since the last sync, and makes of that what a medium may hold afterwards: all that was synced, and any
 * sectors of the rest. From every such file the image opens, every flushed write is there, and every sector holds
 * something that was written to it, or, unflushed and over a parent, zeros. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/image/image.h"
#include "storage/tapd/block.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)
#define SIZE (6 * MIB + 512)
#define SECTORS ((uint32_t)(SIZE / 512))
#define DEPTH 8u
#define LENGTH_MAX 262144u
#define CUTS 40u

/* --- the medium ----------------------------------------------------------------------------------- */
struct entry {
    int64_t offset, length;
    uint8_t *bytes; /* NULL: a hole */
    bool stable;
    struct entry *next;
};

struct disk_io {
    struct loop *loop;
    struct loop_idle idle;
    struct disk_io_op_slot *queue;
    struct entry *log, **log_last;
    uint64_t *seed;
    const char *shadow;  /* what is synced */
    int shadow_fd;       /* -1: nothing is recorded */
    unsigned fail_one_in; /* of the operations but syncs; 0: none */
};

static uint32_t random_of(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % below);
}

static void apply(int fd, const struct entry *e, int64_t from, int64_t n)
{
    if (e->bytes != NULL)
        CHECK(fd_pwrite_all(fd, e->bytes + from, (size_t)n, e->offset + from) == 0);
    else
        CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, e->offset + from, n) == 0);
}

static void log_forget(struct disk_io *io, int apply_to)
{
    for (struct entry *e = io->log, *next; e != NULL; e = next) {
        next = e->next;
        if (apply_to >= 0)
            apply(apply_to, e, 0, e->length);
        xfree(e->bytes);
        xfree(e);
    }
    io->log = NULL;
    io->log_last = &io->log;
}

static void record(struct disk_io *io, const struct disk_io_op_slot *s)
{
    struct entry *e = xcalloc(1, sizeof(*e));
    size_t at = 0;

    e->offset = s->offset;
    e->length = s->length;
    e->stable = s->op == DISK_WRITE_FUA;
    if (s->op == DISK_WRITE || s->op == DISK_WRITE_FUA) {
        e->bytes = xcalloc(1, (size_t)s->length);
        for (unsigned i = 0; i < s->n_iov; i++) {
            memcpy(e->bytes + at, s->iov[i].iov_base, s->iov[i].iov_len);
            at += s->iov[i].iov_len;
        }
    }
    apply(s->fd, e, 0, e->length);
    *io->log_last = e;
    io->log_last = &e->next;
}

static void perform(struct disk_io *io, struct disk_io_op_slot *s)
{
    int64_t at = s->offset;

    s->result = 0;
    if (io->fail_one_in != 0 && s->op != DISK_SYNC && random_of(io->seed, io->fail_one_in) == 0) {
        s->result = -EIO;
        return;
    }
    switch (s->op) {
    case DISK_READ:
        for (unsigned i = 0; i < s->n_iov; i++) {
            ssize_t n = pread(s->fd, s->iov[i].iov_base, s->iov[i].iov_len, at);

            CHECK(n >= 0);
            memset((uint8_t *)s->iov[i].iov_base + n, 0, s->iov[i].iov_len - (size_t)n);
            at += (int64_t)s->iov[i].iov_len;
        }
        break;
    case DISK_SYNC:
        log_forget(io, io->shadow_fd);
        break;
    case DISK_WRITE:
    case DISK_WRITE_FUA:
    case DISK_PUNCH:
    case DISK_ZERO:
        record(io, s);
        break;
    }
}

/* One of those that wait, any. */
static void perform_one(struct loop_idle *i)
{
    struct disk_io *io = CONTAINER_OF(i, struct disk_io, idle);
    struct disk_io_op_slot **p = &io->queue, *s;
    unsigned n = 0;

    for (s = io->queue; s != NULL; s = s->next)
        n++;
    if (n == 0)
        return;
    for (n = random_of(io->seed, n); n > 0; n--)
        p = &(*p)->next;
    s = *p;
    *p = s->next;
    perform(io, s);
    if (io->queue != NULL)
        loop_later(io->loop, &io->idle);
    s->done(s);
}

struct disk_io *disk_io_new(struct loop *loop, bool allow_uring)
{
    struct disk_io *io = xcalloc(1, sizeof(*io));

    io->loop = loop;
    io->idle.run = perform_one;
    io->log_last = &io->log;
    io->shadow_fd = -1;
    return io;
}

void disk_io_free(struct disk_io *io)
{
    CHECK(io->queue == NULL);
    log_forget(io, -1);
    xfree(io);
}

const char *disk_io_name(const struct disk_io *io) { return io->shadow_fd >= 0 ? "recording" : "shuffling"; }

void disk_io_opened(struct disk_io *io, int fd) { }

void disk_io_submit(struct disk_io *io, struct disk_io_op_slot *s)
{
    s->next = io->queue;
    io->queue = s;
    loop_later(io->loop, &io->idle);
}

/* --- the disk ------------------------------------------------------------------------------------- */
/* A sector's contents: its number and the number of the write, over and over; zeros for a write of zeros. */
struct history { uint64_t flushed, acked, newest; uint64_t zeros; /* last write of zeros */ };

struct world {
    struct fakecall fake;
    struct tempdir dir;
    struct call *c;
    struct loop *loop;
    struct disk_io *io;
    struct request_pool *pool;
    struct block *block;
    struct history *history;
    uint64_t seed, clock;
    unsigned out;
    bool differencing;
};
struct flight { struct world *w; uint64_t number; };

static void stamp(uint8_t *sector, uint64_t number, uint64_t write)
{
    for (unsigned i = 0; i < 512; i += 16) {
        memcpy(sector + i, &number, 8);
        memcpy(sector + i + 8, &write, 8);
    }
}

/* The write this sector is of; 0: zeros; UINT64_MAX: none. */
static uint64_t write_of(const uint8_t *sector, uint64_t number)
{
    uint8_t wanted[512] = { 0 };
    uint64_t write;

    if (memcmp(sector, wanted, 512) == 0)
        return 0;
    memcpy(&write, sector + 8, 8);
    stamp(wanted, number, write);
    return memcmp(sector, wanted, 512) == 0 ? write : UINT64_MAX;
}

static void written(struct block_request *r)
{
    struct flight *f = r->owner;
    struct world *w = f->w;

    if (w->io->fail_one_in == 0)
        assert_int_equal(r->result, 0);
    for (uint32_t s = 0; s < r->length / 512 && r->result == 0; s++) {
        struct history *h = &w->history[r->offset / 512 + s];

        h->acked = f->number > h->acked ? f->number : h->acked;
        if ((r->flags & BLOCK_FUA) != 0)
            h->flushed = f->number > h->flushed ? f->number : h->flushed;
    }
    w->out--;
    xfree(f);
    request_give(w->pool, r);
}

struct flush { struct world *w; uint64_t acked[SECTORS]; };

static void flushed(struct block_request *r)
{
    struct flush *f = r->owner;
    struct world *w = f->w;

    assert_int_equal(r->result, 0);
    for (uint32_t s = 0; s < SECTORS; s++)
        if (f->acked[s] > w->history[s].flushed)
            w->history[s].flushed = f->acked[s];
    w->out--;
    xfree(f);
    request_give(w->pool, r);
}

static void submit_flush(struct world *w, struct block_request *r)
{
    struct flush *f = xcalloc(1, sizeof(*f));

    f->w = w;
    for (uint32_t s = 0; s < SECTORS; s++)
        f->acked[s] = w->history[s].acked;
    r->op = BLOCK_FLUSH;
    r->length = 0;
    r->done = flushed;
    r->owner = f;
    block_submit(w->block, r);
}

/* Writes of one sector never overlap in time: each slot of the pool has its own part of the disk. */
static void submit_write(struct world *w, struct block_request *r, unsigned lane)
{
    uint32_t lane_sectors = SECTORS / DEPTH, first = random_of(&w->seed, lane_sectors), n = 1 + random_of(&w->seed, random_of(&w->seed, 4) == 0 ? 512 : 16);
    struct flight *f = xcalloc(1, sizeof(*f));
    bool zero = random_of(&w->seed, 6) == 0;

    if (n > lane_sectors - first)
        n = lane_sectors - first;
    if (n * 512 > LENGTH_MAX)
        n = LENGTH_MAX / 512;
    *f = (struct flight) { .w = w, .number = ++w->clock };
    r->op = zero ? BLOCK_ZERO : BLOCK_WRITE;
    r->flags = (random_of(&w->seed, 8) == 0 ? BLOCK_FUA : 0) | (random_of(&w->seed, 2) == 0 ? BLOCK_NO_HOLE : 0);
    r->offset = ((int64_t)lane * lane_sectors + first) * 512;
    r->length = n * 512;
    r->done = written;
    r->owner = f;
    for (uint32_t s = 0; s < n; s++) {
        struct history *h = &w->history[r->offset / 512 + s];

        h->newest = f->number;
        if (zero)
            h->zeros = f->number;
        else
            stamp((uint8_t *)r->buffer + s * 512, (uint64_t)r->offset / 512 + s, f->number);
    }
    block_submit(w->block, r);
}

/* --- cuts ----------------------------------------------------------------------------------------- */
static void copy_file(const char *from, const char *to)
{
    AUTO_FD in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat st;

    CHECK(in >= 0 && out >= 0 && fstat(in, &st) == 0 && ftruncate(out, st.st_size) == 0);
    for (off_t at = 0; at < st.st_size;) {
        off64_t a = at, b = at;
        ssize_t n = copy_file_range(in, &a, out, &b, (size_t)(st.st_size - at), 0);

        CHECK(n > 0);
        at += n;
    }
}

/* The medium after the power came back. */
static void make_cut(struct world *w, const char *path)
{
    AUTO_FD fd = -1;

    copy_file(w->io->shadow, path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    for (const struct entry *e = w->io->log; e != NULL; e = e->next) {
        unsigned how = e->stable ? 1 : random_of(&w->seed, 3); /* nothing, all, or some of it */

        for (int64_t at = 0; how > 0 && at < e->length; at += 512)
            if (how == 1 || random_of(&w->seed, 2) == 0)
                apply(fd, e, at, e->length - at < 512 ? e->length - at : 512);
    }
}

static void check_sector(struct world *w, uint32_t number, const uint8_t *bytes)
{
    const struct history *h = &w->history[number];
    uint64_t write = write_of(bytes, number);

    if (write == UINT64_MAX || write > h->newest)
        fail_msg("sector %u holds what was never written to it", number);
    if (write == 0 && (h->zeros >= h->flushed || (w->differencing && h->newest > h->flushed)))
        return;
    if (write < h->flushed)
        fail_msg("sector %u has write %llu, write %llu was flushed", number, (unsigned long long)write, (unsigned long long)h->flushed);
}

struct reading { bool done; };
static void read_done(struct block_request *r)
{
    assert_int_equal(r->result, 0);
    ((struct reading *)r->owner)->done = true;
}

static void open_block(struct world *w, struct loop *loop, struct disk_io *io, const char *path, bool read_only, struct block **b)
{
    const struct block_open o = { .loop = loop, .io = io, .format = "vhd", .path = path, .read_only = read_only, .cached = true };
    struct error *error = vhd_open(w->c->arena, &o, b);

    if (error != NULL)
        fail_msg("%s", error->params[2]);
}

/* On a loop of its own: the image that was cut must not go on meanwhile. */
static void check_cut(struct world *w, const char *path, bool read_only)
{
    struct loop *loop = loop_new(&clock_real);
    struct disk_io *io = disk_io_new(loop, false);
    struct request_pool *pool = request_pool_new(1, LENGTH_MAX);
    struct block *b;

    io->seed = &w->seed;
    open_block(w, loop, io, path, read_only, &b);
    for (int64_t at = 0; at < SIZE; at += LENGTH_MAX) {
        struct block_request *r = request_take(pool);
        struct reading reading = { false };

        r->op = BLOCK_READ;
        r->offset = at;
        r->length = (uint32_t)(SIZE - at < LENGTH_MAX ? SIZE - at : LENGTH_MAX);
        r->done = read_done;
        r->owner = &reading;
        block_submit(b, r);
        while (!reading.done)
            loop_turn(loop, 0);
        for (uint32_t s = 0; s < r->length / 512; s++)
            check_sector(w, (uint32_t)(at / 512) + s, (uint8_t *)r->buffer + s * 512);
        request_give(pool, r);
    }
    assert_int_equal(block_close(b), 0);
    request_pool_free(pool);
    disk_io_free(io);
    loop_free(loop);
}

static void run_image(struct world *w, const char *path, const char *shadow, const char *cut)
{
    copy_file(path, shadow);
    w->io->shadow = shadow;
    w->io->shadow_fd = open(shadow, O_RDWR | O_CLOEXEC);
    open_block(w, w->loop, w->io, path, false, &w->block);
    for (unsigned cuts = 0; cuts < CUTS;) {
        struct block_request *r = w->out == 0 || random_of(&w->seed, 3) == 0 ? request_take(w->pool) : NULL;

        if (r != NULL) {
            unsigned lane = (unsigned)(((uintptr_t)r->buffer / LENGTH_MAX) % DEPTH);

            w->out++;
            if (random_of(&w->seed, 12) == 0)
                submit_flush(w, r);
            else
                submit_write(w, r, lane);
        }
        loop_turn(w->loop, 0);
        if (random_of(&w->seed, 25) == 0) {
            make_cut(w, cut);
            struct error *error = image_vhd.check(w->c, cut);
            if (error != NULL)
                fail_msg("%s", error->params[2]);
            check_cut(w, cut, cuts % 2 == 0);
            cuts++;
        }
    }
    while (w->out > 0)
        loop_turn(w->loop, 0);
    assert_int_equal(block_close(w->block), 0);
    fd_close(&w->io->shadow_fd);
    log_forget(w->io, -1);
    for (uint32_t s = 0; s < SECTORS; s++)
        w->history[s].flushed = w->history[s].acked; /* closed: all is there */
    check_cut(w, path, true);
}

static void run_levels(unsigned fail_one_in)
{
    struct world *w = xcalloc(1, sizeof(*w));
    const char *paths[3];

    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
    w->c = &w->fake.call;
    w->loop = loop_new(&clock_real);
    w->io = disk_io_new(w->loop, false);
    w->io->seed = &w->seed;
    w->pool = request_pool_new(DEPTH, LENGTH_MAX);
    w->history = xcalloc(SECTORS, sizeof(*w->history));
    w->seed = 11;
    w->io->fail_one_in = fail_one_in;
    for (unsigned level = 0; level < ARRAY_LEN(paths); level++) {
        struct error *error;

        paths[level] = tempdir_file(&w->dir, arena_printf(w->c->arena, "level%u.vhd", level));
        error = image_vhd.create(w->c, paths[level], SIZE, level == 0 ? NULL : paths[level - 1], "vhd");
        assert_null(error);
        w->differencing = level > 0;
        run_image(w, paths[level], tempdir_file(&w->dir, "shadow.vhd"), tempdir_file(&w->dir, "cut.vhd"));
    }
    request_pool_free(w->pool);
    disk_io_free(w->io);
    loop_free(w->loop);
    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
    xfree(w->history);
    xfree(w);
}

static void test_power_cuts(void **state)
{
    run_levels(0);
}

/* Operations fail: the request says so, and nothing that was promised is lost. */
static void test_errors_and_power_cuts(void **state)
{
    run_levels(20);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_power_cuts), cmocka_unit_test(test_errors_and_power_cuts) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
