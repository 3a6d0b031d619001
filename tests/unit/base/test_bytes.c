#include "rpc/base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/call.h"
#include "rpc/base/work.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

/* Two ends of a stream of each kind: in[0] reads what in[1] writes. */
enum kind { KIND_SOCKET, KIND_PIPE, KINDS };

struct ends {
    struct byte_stream *reader, *writer;
};

static struct ends ends_make(enum kind kind)
{
    int fds[2];

    if (kind == KIND_SOCKET)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    else
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    return (struct ends){ .reader = bytes_from_fd(fds[0]), .writer = bytes_from_fd(fds[1]) };
}

static void ends_close(struct ends *e)
{
    bytes_close(e->reader);
    bytes_close(e->writer);
}

static void test_bytes_roundtrip(void **state)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        char one[] = "ab", two[] = "cde", buffer[8];
        struct iovec parts[] = {
            { .iov_base = NULL, .iov_len = 0 },
            { .iov_base = one, .iov_len = 2 },
            { .iov_base = NULL, .iov_len = 0 },
            { .iov_base = two, .iov_len = 3 },
        };
        assert_int_equal(bytes_writev(e.writer, parts, 4), 0);
        assert_int_equal(bytes_write(e.writer, "", 0), 0);
        assert_int_equal(bytes_write(e.writer, "fg", 2), 0);
        assert_int_equal(bytes_read_all(e.reader, buffer, 7), 0);
        assert_memory_equal(buffer, "abcdefg", 7);
        assert_int_equal(e.reader->bytes_in, 7);
        assert_int_equal(e.writer->bytes_out, 7);
    }
}

static void test_bytes_end_of_stream(void **state)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        char buffer[8];
        assert_int_equal(bytes_write(e.writer, "ab", 2), 0);
        assert_int_equal(bytes_finish(e.writer), 0);
        if (kind == KIND_PIPE) { /* its end is closing */
            bytes_close(e.writer);
            e.writer = NULL;
        }
        assert_int_equal(bytes_read_all(e.reader, buffer, 3), -EPIPE);
        assert_int_equal(bytes_read(e.reader, buffer, 3), 0);
    }
}

static void test_bytes_write_to_closed(void **state)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        bytes_close(e.reader);
        e.reader = NULL;
        assert_int_equal(bytes_write(e.writer, "x", 1), -EPIPE);
        assert_int_equal(e.writer->bytes_out, 0);
    }
}

#define LARGE (4u << 20)

static void *write_large(void *writer)
{
    static char bytes[LARGE];
    struct iovec parts[3000]; /* more than the kernel takes at once */
    size_t step = LARGE / ARRAY_LEN(parts);

    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (char)(i * 7 + i / 1000);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++)
        parts[i] = (struct iovec){ .iov_base = bytes + i * step, .iov_len = step };
    parts[ARRAY_LEN(parts) - 1].iov_len = LARGE - step * (ARRAY_LEN(parts) - 1);
    return (void *)(intptr_t)bytes_writev(writer, parts, (int)ARRAY_LEN(parts));
}

static void test_bytes_large_waits_for_reader(void **state)
{
    static char got[LARGE];

    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        void *rc;
        pthread_t writer = thread_start("writer", write_large, e.writer);
        assert_int_equal(bytes_read_all(e.reader, got, LARGE), 0);
        pthread_join(writer, &rc);
        assert_int_equal((intptr_t)rc, 0);
        for (size_t i = 0; i < LARGE; i++)
            if (got[i] != (char)(i * 7 + i / 1000))
                fail_msg("byte %zu differs", i);
    }
}

static void *abort_it(void *stream)
{
    bytes_abort(stream);
    return NULL;
}

static void test_bytes_abort_wakes_reader(void **state)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        char byte;
        pthread_t other = thread_start("abort", abort_it, e.reader);
        assert_int_equal(bytes_read(e.reader, &byte, 1), -ECONNABORTED);
        pthread_join(other, NULL);
        assert_int_equal(bytes_read(e.reader, &byte, 1), -ECONNABORTED);
        assert_int_equal(bytes_write(e.reader, "x", 1), -ECONNABORTED);
        bytes_abort(e.reader);
    }
}

static void test_bytes_abort_wakes_writer(void **state)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        void *rc;
        char byte;
        pthread_t writer = thread_start("writer", write_large, e.writer);
        assert_int_equal(bytes_read(e.reader, &byte, 1), 1); /* it has begun, and nobody reads the rest */
        bytes_abort(e.writer);
        pthread_join(writer, &rc);
        assert_int_equal((intptr_t)rc, -ECONNABORTED);
    }
}

static void test_bytes_wait_outcomes(void **state)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        CLEANUP(ends_close) struct ends e = ends_make(kind);
        struct cancel *cancel = cancel_new();
        assert_int_equal(bytes_wait(e.reader, -1, 0), 0);
        assert_int_equal(bytes_wait(e.reader, cancel_fd(cancel), 1), 0);
        assert_int_equal(bytes_write(e.writer, "x", 1), 0);
        assert_int_equal(bytes_wait(e.reader, cancel_fd(cancel), -1), 1);
        cancel_raise(cancel);
        assert_int_equal(bytes_wait(e.reader, cancel_fd(cancel), -1), -ECANCELED);
        bytes_abort(e.reader);
        int rc = bytes_wait(e.reader, -1, -1); /* a socket turns readable, and the read says why */
        assert_true(rc == 1 || rc == -ECONNABORTED);
        cancel_unref(cancel);
    }
}

static void test_bytes_over_file(void **state)
{
    AUTO_TEMPDIR t;
    char buffer[8];

    tempdir_make(&t);
    struct byte_stream *s = bytes_from_fd(open(tempdir_file(&t, "f"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    assert_int_equal(bytes_write(s, "hello", 5), 0);
    assert_int_equal(bytes_finish(s), 0);
    assert_int_equal(bytes_read(s, buffer, 8), 0);
    assert_int_equal(lseek(s->ops->fd(s), 0, SEEK_SET), 0);
    assert_int_equal(bytes_wait(s, -1, -1), 1);
    assert_int_equal(bytes_read_all(s, buffer, 5), 0);
    assert_memory_equal(buffer, "hello", 5);
    bytes_abort(s);
    assert_int_equal(bytes_read(s, buffer, 1), -ECONNABORTED);
    bytes_close(s);
    bytes_close(NULL);
}

static int ignore_sigpipe(void **state)
{
    signal(SIGPIPE, SIG_IGN); /* as the daemon does; for the pipes */
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_roundtrip),          cmocka_unit_test(test_bytes_end_of_stream),
        cmocka_unit_test(test_bytes_write_to_closed),    cmocka_unit_test(test_bytes_large_waits_for_reader),
        cmocka_unit_test(test_bytes_abort_wakes_reader), cmocka_unit_test(test_bytes_abort_wakes_writer),
        cmocka_unit_test(test_bytes_wait_outcomes),      cmocka_unit_test(test_bytes_over_file),
    };

    return cmocka_run_group_tests(tests, ignore_sigpipe, NULL);
}
