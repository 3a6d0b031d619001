#include "storage/tapd/disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/attributes.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

/* Every case runs over io_uring (where the kernel has it) and over threads. */
static bool by_uring;

struct bench {
    struct tempdir dir;
    struct loop *loop;
    struct disk_io *io;
    int fd;
    unsigned done;
};

static void bench_make(struct bench *b)
{
    *b = (struct bench){ 0 };
    tempdir_make(&b->dir);
    b->loop = loop_new(&clock_real);
    b->io = disk_io_new(b->loop, by_uring);
    b->fd = open(tempdir_file(&b->dir, "file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(b->fd >= 0);
}

static void bench_end(struct bench *b)
{
    close(b->fd);
    disk_io_free(b->io);
    loop_free(b->loop);
    tempdir_remove(&b->dir);
}

struct job {
    struct disk_io_op_slot slot;
    struct iovec iov[3];
    struct bench *bench;
    bool again; /* hands itself in once more from its own 'done' */
};

static void job_done(struct disk_io_op_slot *s)
{
    struct job *j = CONTAINER_OF(s, struct job, slot);

    if (j->again) {
        j->again = false;
        disk_io_submit(j->bench->io, s);
        return;
    }
    j->bench->done++;
}

static int run(struct bench *b, struct job *j)
{
    unsigned before = b->done;

    j->bench = b;
    j->slot.fd = b->fd;
    j->slot.done = job_done;
    j->slot.iov = j->iov;
    disk_io_submit(b->io, &j->slot);
    assert_int_equal(b->done, before); /* never inside */
    while (b->done == before)
        loop_turn(b->loop, -1);
    return j->slot.result;
}

static int transfer(struct bench *b, enum disk_io_op op, void *bytes, size_t n, int64_t offset)
{
    struct job j = { .slot = { .op = op, .offset = offset, .length = (int64_t)n, .n_iov = 1 }, .iov = { { bytes, n } } };

    return run(b, &j);
}

static int plain(struct bench *b, enum disk_io_op op, int64_t offset, int64_t length)
{
    struct job j = { .slot = { .op = op, .offset = offset, .length = length } };

    return run(b, &j);
}

static void test_write_sync_read(void **state)
{
    struct bench b;
    char wrote[4096], got[4096];

    bench_make(&b);
    memset(wrote, 'w', sizeof(wrote));
    assert_int_equal(transfer(&b, DISK_WRITE, wrote, sizeof(wrote), 8192), 0);
    assert_int_equal(plain(&b, DISK_SYNC, 0, 0), 0);
    assert_int_equal(transfer(&b, DISK_WRITE_FUA, wrote, 512, 0), 0);
    assert_int_equal(transfer(&b, DISK_READ, got, sizeof(got), 8192), 0);
    assert_memory_equal(wrote, got, sizeof(got));
    assert_int_equal(transfer(&b, DISK_READ, got, 1024, 0), 0);
    assert_memory_equal(wrote, got, 512);
    assert_int_equal(got[512], 0);
    bench_end(&b);
}

static void test_vectors(void **state)
{
    struct bench b;
    char text[] = "onetwothree", got[11] = { 0 };

    bench_make(&b);
    struct job put = { .slot = { .op = DISK_WRITE, .length = 11, .n_iov = 3 }, .iov = { { text, 3 }, { text + 3, 3 }, { text + 6, 5 } } };
    assert_int_equal(run(&b, &put), 0);
    struct job take = { .slot = { .op = DISK_READ, .length = 11, .n_iov = 3 }, .iov = { { got, 5 }, { got + 5, 1 }, { got + 6, 5 } } };
    assert_int_equal(run(&b, &take), 0);
    assert_memory_equal(text, got, 11);
    bench_end(&b);
}

static void test_beyond_the_end_are_zeros(void **state)
{
    struct bench b;
    char got[4096];

    bench_make(&b);
    assert_int_equal(fd_pwrite_all(b.fd, "tail", 4, 1000), 0);
    memset(got, 'x', sizeof(got));
    struct job j = { .slot = { .op = DISK_READ, .length = 4096, .n_iov = 2 }, .iov = { { got, 1002 }, { got + 1002, 3094 } } };
    assert_int_equal(run(&b, &j), 0);
    assert_memory_equal(got + 1000, "tail", 4);
    for (unsigned i = 1004; i < sizeof(got); i++)
        assert_int_equal(got[i], 0);
    memset(got, 'x', sizeof(got));
    assert_int_equal(transfer(&b, DISK_READ, got, sizeof(got), 1 << 20), 0);
    for (unsigned i = 0; i < sizeof(got); i++)
        assert_int_equal(got[i], 0);
    bench_end(&b);
}

static void test_errors_are_told(void **state)
{
    struct bench b;
    char bytes[512];

    bench_make(&b);
    int good = b.fd;
    b.fd = open(tempdir_file(&b.dir, "file"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(transfer(&b, DISK_WRITE, bytes, 512, 0), -EBADF);
    assert_int_equal(plain(&b, DISK_PUNCH, 0, 512), -EBADF);
    close(b.fd);
    b.fd = good;
    bench_end(&b);
}

static int64_t blocks_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_blocks;
}

static void test_holes_and_zeros(void **state)
{
    struct bench b;
    static char bytes[1 << 20], got[1 << 20];

    bench_make(&b);
    memset(bytes, 'd', sizeof(bytes));
    assert_int_equal(transfer(&b, DISK_WRITE, bytes, sizeof(bytes), 0), 0);
    assert_int_equal(plain(&b, DISK_SYNC, 0, 0), 0);
    int64_t before = blocks_of(b.fd);
    assert_int_equal(plain(&b, DISK_PUNCH, 65536, 524288), 0);
    assert_true(blocks_of(b.fd) < before);
    assert_int_equal(plain(&b, DISK_ZERO, 786432, 4096 + 512), 0);
    assert_int_equal(transfer(&b, DISK_READ, got, sizeof(got), 0), 0);
    memset(bytes + 65536, 0, 524288);
    memset(bytes + 786432, 0, 4096 + 512);
    assert_memory_equal(bytes, got, sizeof(got));
    bench_end(&b);
}

static void test_zeros_grow_the_file(void **state)
{
    struct bench b;
    struct stat st;

    bench_make(&b);
    assert_int_equal(plain(&b, DISK_ZERO, 0, 3 << 20), 0);
    assert_int_equal(fstat(b.fd, &st), 0);
    assert_int_equal(st.st_size, 3 << 20);
    assert_true(st.st_blocks >= (3 << 20) / 512);
    bench_end(&b);
}

/* tmpfs knows holes but no zero ranges: they are written, also more than one buffer of zeros at once. */
static void test_zeros_are_written_where_there_is_no_other_way(void **state)
{
    struct bench b;
    static char bytes[3 << 20];

    bench_make(&b);
    close(b.fd);
    b.fd = open("/dev/shm", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (b.fd < 0) {
        bench_end(&b);
        skip();
    }
    memset(bytes, 'd', sizeof(bytes));
    assert_int_equal(transfer(&b, DISK_WRITE, bytes, sizeof(bytes), 0), 0);
    assert_int_equal(plain(&b, DISK_ZERO, 512, (5 << 19) + 512), 0);
    assert_int_equal(transfer(&b, DISK_READ, bytes, sizeof(bytes), 0), 0);
    for (size_t i = 0; i < sizeof(bytes); i++)
        assert_int_equal(bytes[i], i < 512 || i >= 1024 + (5 << 19) ? 'd' : 0);
    bench_end(&b);
}

/* More than the ring and its results hold, and some that come again. */
static void test_many_at_once(void **state)
{
    enum { JOBS = 3000 };
    struct bench b;
    struct job *jobs = xcalloc(JOBS, sizeof(*jobs));
    static uint32_t numbers[JOBS], got[JOBS];

    bench_make(&b);
    for (enum disk_io_op op = DISK_WRITE;; op = DISK_READ) {
        b.done = 0;
        for (uint32_t i = 0; i < JOBS; i++) {
            numbers[i] = i * 2654435761u;
            jobs[i] = (struct job){ .bench = &b, .slot = { .op = op, .fd = b.fd, .offset = (int64_t)i * 4, .length = 4, .n_iov = 1, .done = job_done } };
            jobs[i].iov[0] = (struct iovec){ op == DISK_WRITE ? &numbers[i] : &got[i], 4 };
            jobs[i].slot.iov = jobs[i].iov;
            disk_io_submit(b.io, &jobs[i].slot);
        }
        while (b.done < JOBS)
            loop_turn(b.loop, -1);
        for (uint32_t i = 0; i < JOBS; i++)
            assert_int_equal(jobs[i].slot.result, 0);
        if (op == DISK_READ)
            break;
    }
    assert_memory_equal(numbers, got, sizeof(got));
    xfree(jobs);
    bench_end(&b);
}

static void test_may_be_handed_in_again_when_done(void **state)
{
    struct bench b;
    struct job j = { .slot = { .op = DISK_SYNC }, .again = true };

    bench_make(&b);
    assert_int_equal(run(&b, &j), 0);
    assert_false(j.again);
    bench_end(&b);
}

/* Files in memory are done by plain calls, as well from inside 'done', and never inside submit. */
static void test_in_memory(void **state)
{
    struct bench b;
    char to[100] = "what is written", back[100] = "";

    bench_make(&b);
    close(b.fd);
    b.fd = memfd_create("disk", MFD_CLOEXEC);
    assert_true(b.fd >= 0);
    disk_io_opened(b.io, b.fd);
    assert_int_equal(transfer(&b, DISK_WRITE, to, sizeof to, 4096), 0);
    assert_int_equal(transfer(&b, DISK_READ, back, sizeof back, 4096), 0);
    assert_string_equal(back, to);
    assert_int_equal(transfer(&b, DISK_READ, back, sizeof back, 8192), 0); /* beyond the end */
    assert_int_equal(back[0], 0);
    struct job j = { .slot = { .op = DISK_SYNC }, .again = true };
    assert_int_equal(run(&b, &j), 0);
    disk_io_opened(b.io, -1);
    bench_end(&b);
}

static void test_name(void **state)
{
    struct bench b;

    bench_make(&b);
    if (!by_uring)
        assert_string_equal(disk_io_name(b.io), "threads");
    else
        print_message("io: %s\n", disk_io_name(b.io));
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_name),
        cmocka_unit_test(test_in_memory),
        cmocka_unit_test(test_write_sync_read),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_beyond_the_end_are_zeros),
        cmocka_unit_test(test_errors_are_told),
        cmocka_unit_test(test_holes_and_zeros),
        cmocka_unit_test(test_zeros_grow_the_file),
        cmocka_unit_test(test_zeros_are_written_where_there_is_no_other_way),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_may_be_handed_in_again_when_done),
    };
    int failed = cmocka_run_group_tests_name("threads", tests, NULL, NULL);

    by_uring = true;
    return failed + cmocka_run_group_tests_name("io_uring", tests, NULL, NULL);
}
