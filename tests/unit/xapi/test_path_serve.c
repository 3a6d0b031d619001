/* What a host answers on its sample route (xapi/migrate/path_probe.h): exactly what it is asked, and no more than it allows. */
#include "tests/lib/unit.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "xapi/migrate/path_probe.h"

#define BUFFER (256u << 10) /* less than a socket holds */

struct talk { uint8_t asked[4096], *answered; size_t n, got; };

static void ask(struct talk *t, char letter, uint64_t n)
{
    t->asked[t->n++] = (uint8_t)letter;
    path_put64(t->asked + t->n, n);
    t->n += 8;
}

/* Everything at once, then the end; what comes back. */
static int serve(struct talk *t, int64_t bytes)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(fd_write_all(pair[1], t->asked, t->n), 0);
    assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
    struct byte_stream *stream = bytes_from_fd(pair[0]);
    int r = path_serve(stream, bytes);
    bytes_close(stream);
    t->answered = xcalloc(1, BUFFER);
    for (ssize_t n; t->got < BUFFER && (n = recv(pair[1], t->answered + t->got, BUFFER - t->got, 0)) > 0;)
        t->got += (size_t)n;
    fd_close(&pair[1]);
    return r;
}

static void test_echo(void **state)
{
    struct talk t = { .n = 0 };
    int64_t before = path_wall_us();
    ask(&t, 'E', 0x0123456789abcdefu);
    ask(&t, 'E', 7);
    assert_int_equal(serve(&t, 0), -EPIPE);
    assert_int_equal(t.got, 2 * PATH_ANSWER);
    assert_true(path_get64(t.answered) == 0x0123456789abcdefu);
    assert_true(path_get64(t.answered + PATH_ANSWER) == 7);
    assert_true((int64_t)path_get64(t.answered + 8) >= before);
    xfree(t.answered);
}

static void test_both_ways(void **state)
{
    struct talk t = { .n = 0 };
    ask(&t, 'U', 1000);
    t.n += 1000;
    ask(&t, 'D', 4096);
    ask(&t, 'E', 1);
    assert_int_equal(serve(&t, 4096), -EPIPE);
    assert_int_equal(t.got, 4096 + PATH_ANSWER);
    xfree(t.answered);
}

static void test_refused(void **state)
{
    static const struct { char letter; uint64_t n; } bad[] = {
        { 'D', 4097 }, { 'U', 4097 }, { 'D', PATH_CHUNK_MAX + 1 }, { 'D', UINT64_MAX }, { 'U', UINT64_MAX }, { 'X', 0 }, { 0, 0 },
    };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct talk t = { .n = 0 };
        ask(&t, bad[i].letter, bad[i].n);
        ask(&t, 'E', 1);
        assert_int_equal(serve(&t, 4096), -EPROTO);
        assert_int_equal(t.got, 0);
        xfree(t.answered);
    }
}

/* The sum counts, each way for itself. */
static void test_sum(void **state)
{
    struct talk t = { .n = 0 };
    ask(&t, 'D', 4000);
    ask(&t, 'U', 96);
    t.n += 96;
    ask(&t, 'D', 96);
    ask(&t, 'D', 1);
    assert_int_equal(serve(&t, 4096), -EPROTO);
    assert_int_equal(t.got, 4096);
    xfree(t.answered);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo), cmocka_unit_test(test_both_ways), cmocka_unit_test(test_refused), cmocka_unit_test(test_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
