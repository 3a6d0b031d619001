/* The unix_ functions of rpc/base/fd.h. */
#include "rpc/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

static void test_unix_listen_and_connect(void **state)
{
    AUTO_TEMPDIR t;
    struct stat st;
    char buffer[3];

    tempdir_make(&t);
    const char *path = tempdir_file(&t, "socket");
    AUTO_FD first = unix_listen(path, 0600, 5);
    assert_true(first >= 0);
    AUTO_FD listener = unix_listen(path, 0660, 5); /* takes the place of what an earlier run left */
    assert_true(listener >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    AUTO_FD client = unix_connect(path);
    assert_true(client >= 0);
    AUTO_FD server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(fd_write_all(client, "abc", 3), 0);
    assert_int_equal(fd_read_all(server, buffer, 3), 0);
    assert_memory_equal(buffer, "abc", 3);
}

static void test_unix_listen_errors(void **state)
{
    AUTO_TEMPDIR t;

    tempdir_make(&t);
    assert_int_equal(unix_connect(tempdir_file(&t, "none")), -ENOENT);
    assert_int_equal(unix_listen(tempdir_write(&t, "file", "precious"), 0600, 5), -EADDRINUSE);
    assert_string_equal(tempdir_read(&t, "file"), "precious");
    const char *long_path = arena_printf(t.arena, "%s/%0120d", t.path, 0);
    assert_int_equal(unix_listen(long_path, 0600, 5), -ENAMETOOLONG);
    assert_int_equal(unix_connect(long_path), -ENAMETOOLONG);
}

static void test_unix_fds_arrive(void **state)
{
    int pair[2], ends[2], got[4];
    unsigned n = 4;
    char buffer[8];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(unix_send_fds(pair[0], "take", 4, ends, 2), 0);
    assert_int_equal(unix_recv_fds(pair[1], buffer, sizeof(buffer), got, &n), 4);
    assert_int_equal(n, 2);
    assert_int_equal(fcntl(got[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fd_write_all(got[1], "x", 1), 0);
    assert_int_equal(fd_read_all(ends[0], buffer, 1), 0);
    assert_int_equal(unix_send_fds(pair[0], "none", 4, NULL, 0), 0);
    n = 4;
    assert_int_equal(unix_recv_fds(pair[1], buffer, sizeof(buffer), &got[2], &n), 4);
    assert_int_equal(n, 0);
    close(pair[0]);
    n = 4;
    assert_int_equal(unix_recv_fds(pair[1], buffer, sizeof(buffer), &got[2], &n), 0);
    for (unsigned i = 0; i < 2; i++) {
        close(ends[i]);
        close(got[i]);
    }
    close(pair[1]);
}

static unsigned open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* A peer that sends more than was agreed on must not fill our table. */
static void test_unix_too_many_fds(void **state)
{
    for (unsigned room = 0; room <= 3; room++) {
        int pair[2], three[3] = { 0, 1, 2 }, got[3] = { -1, -1, -1 };
        unsigned n = room;
        char buffer[8];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        unsigned before = open_fds();
        assert_int_equal(unix_send_fds(pair[0], "take", 4, three, 3), 0);
        ssize_t rc = unix_recv_fds(pair[1], buffer, sizeof(buffer), got, &n);
        assert_int_equal(rc, room == 3 ? 4 : -EPROTO);
        assert_int_equal(n, room == 3 ? 3 : 0);
        assert_int_equal(open_fds(), before + n);
        while (n > 0)
            close(got[--n]);
        close(pair[0]);
        close(pair[1]);
    }
}

static void test_unix_send_to_closed(void **state)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[1]);
    assert_int_equal(unix_send_fds(pair[0], "x", 1, NULL, 0), -EPIPE);
    close(pair[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unix_listen_and_connect), cmocka_unit_test(test_unix_listen_errors),
        cmocka_unit_test(test_unix_fds_arrive),         cmocka_unit_test(test_unix_too_many_fds),
        cmocka_unit_test(test_unix_send_to_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
