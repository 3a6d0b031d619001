/* Copies by the kernel or by hand: equal, sparse, proven. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/sparse_copy.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

struct world { struct fakecall fake; struct tempdir dir; };

static void world_init(struct world *w)
{
    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
}

static void world_release(struct world *w)
{
    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
}

static const char *file(struct world *w, const char *name, int64_t size)
{
    const char *path = tempdir_write(&w->dir, name, "");

    assert_int_equal(truncate(path, size), 0);
    return path;
}

static void put(const char *path, int64_t at, char byte, size_t n)
{
    char bytes[8192];
    AUTO_FD fd = open(path, O_WRONLY | O_CLOEXEC);

    memset(bytes, byte, sizeof(bytes));
    assert_int_equal(fd_pwrite_all(fd, bytes, n, at), 0);
}

static char byte_at(const char *path, int64_t at)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    char byte = '?';

    assert_int_equal(fd_pread_all(fd, &byte, 1, at), 0);
    return byte;
}

static void test_equal_and_sparse(void **state)
{
    struct world w;
    struct stat st;

    world_init(&w);
    const char *from = file(&w, "from", 64 * MIB), *to = file(&w, "to", 65 * MIB);
    put(from, 0, 'a', 10);
    put(from, 9 * MIB - 100, 'b', 200); /* over a piece's end */
    put(from, 64 * MIB - 1, 'c', 1);
    assert_null(sparse_copy_path(&w.fake.call, from, to, 64 * MIB));
    assert_int_equal(byte_at(to, 9), 'a');
    assert_int_equal(byte_at(to, 9 * MIB - 100), 'b');
    assert_int_equal(byte_at(to, 9 * MIB + 99), 'b');
    assert_int_equal(byte_at(to, 64 * MIB - 1), 'c');
    assert_int_equal(byte_at(to, 30 * MIB), 0);
    assert_int_equal(stat(to, &st), 0);
    assert_true((int64_t)st.st_blocks * 512 < MIB);
    assert_true(w.fake.progress > 0.99);
    world_release(&w);
}

/* A target that does not read as zeros where the source has a hole is found out. */
static void test_difference_is_found(void **state)
{
    struct world w;

    world_init(&w);
    const char *from = file(&w, "from", 32 * MIB), *to = file(&w, "to", 33 * MIB);
    put(from, 0, 'a', 4096);
    put(from, 20 * MIB, 'b', 4096);
    put(to, 10 * MIB, 'x', 1);
    struct error *error = sparse_copy_path(&w.fake.call, from, to, 32 * MIB);
    assert_true(error_is(error, "SR_BACKEND_FAILURE"));
    assert_non_null(strstr(error->params[2], "differs"));
    world_release(&w);
}

static void test_cancelled(void **state)
{
    struct world w;

    world_init(&w);
    const char *from = file(&w, "from", 8 * MIB), *to = file(&w, "to", 9 * MIB);
    put(from, 0, 'a', 4096);
    cancel_raise(w.fake.call.cancel);
    assert_true(error_is(sparse_copy_path(&w.fake.call, from, to, 8 * MIB), "TASK_CANCELLED"));
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_and_sparse),
        cmocka_unit_test(test_difference_is_found),
        cmocka_unit_test(test_cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
