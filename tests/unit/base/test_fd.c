#include "rpc/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

static void test_fd_close_keeps_errno(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), none = -1;

    errno = EXDEV;
    fd_close(&fd);
    fd_close(&none);
    assert_int_equal(fd, -1);
    assert_int_equal(errno, EXDEV);
}

static void test_fd_steal(void **state)
{
    int fd = 77;

    assert_int_equal(fd_steal(&fd), 77);
    assert_int_equal(fd, -1);
}

#define LARGE 300000

static void *write_large(void *arg)
{
    AUTO_FREE char *bytes = xcalloc(1, LARGE);
    int fd = (int)(intptr_t)arg, rc = fd_write_all(fd, bytes, LARGE);

    close(fd);
    return (void *)(intptr_t)rc;
}

/* More than a pipe holds, with both ends not blocking. */
static void test_fd_write_all_waits(void **state)
{
    static char buffer[LARGE];
    int ends[2];
    void *rc;

    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    pthread_t writer = thread_start("writer", write_large, (void *)(intptr_t)ends[1]);
    assert_int_equal(fd_read_all(ends[0], buffer, LARGE), 0);
    assert_int_equal(fd_read_all(ends[0], buffer, 1), -EPIPE);
    pthread_join(writer, &rc);
    assert_int_equal((intptr_t)rc, 0);
    close(ends[0]);
}

static void test_fd_errors(void **state)
{
    char byte;

    assert_int_equal(fd_read_all(-1, &byte, 1), -EBADF);
    assert_int_equal(fd_write_all(-1, &byte, 1), -EBADF);
    assert_int_equal(fd_pread_all(-1, &byte, 1, 0), -EBADF);
    assert_int_equal(fd_pwrite_all(-1, "x", 1, 0), -EBADF);
    assert_int_equal(fd_set_nonblock(-1, true), -EBADF);
    assert_int_equal(fd_read_all(-1, NULL, 0), 0);
}

static void test_fd_pread_pwrite(void **state)
{
    AUTO_TEMPDIR t;
    char buffer[4];

    tempdir_make(&t);
    AUTO_FD fd = open(tempdir_file(&t, "f"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(fd_pwrite_all(fd, "abcd", 4, 10), 0);
    assert_int_equal(fd_pread_all(fd, buffer, 4, 10), 0);
    assert_memory_equal(buffer, "abcd", 4);
    assert_int_equal(fd_pread_all(fd, buffer, 4, 0), 0);
    assert_memory_equal(buffer, "\0\0\0\0", 4);
    assert_int_equal(fd_pread_all(fd, buffer, 4, 11), -EPIPE);
}

static void test_fd_set_nonblock(void **state)
{
    int ends[2];
    char byte;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fd_set_nonblock(ends[0], true), 0);
    assert_int_equal(read(ends[0], &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(fd_set_nonblock(ends[0], false), 0);
    assert_int_equal(fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fd_close_keeps_errno), cmocka_unit_test(test_fd_steal),
        cmocka_unit_test(test_fd_write_all_waits),   cmocka_unit_test(test_fd_errors),
        cmocka_unit_test(test_fd_pread_pwrite),      cmocka_unit_test(test_fd_set_nonblock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
