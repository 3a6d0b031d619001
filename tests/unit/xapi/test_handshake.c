/* Handshake messages of the migration streams: both directions, errors, and what hostile peers send. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "tests/lib/unit.h"
#include "xapi/migrate/wire.h"

struct pair { struct arena *arena; struct byte_stream *a, *b; int raw; };

static int setup(void **state)
{
    static struct pair p;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p.arena = arena_new();
    p.raw = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
    p.a = bytes_from_fd(fds[0]);
    p.b = bytes_from_fd(fds[1]);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    close(p->raw);
    bytes_close(p->a);
    bytes_close(p->b);
    arena_free(p->arena);
    return 0;
}

static void test_success_is_two_zero_bytes(void **state)
{
    struct pair *p = *state;
    struct error *e = (void *)1;
    assert_int_equal(handshake_send(p->a, NULL), 0);
    assert_int_equal(handshake_receive(p->arena, p->b, -1, 1000, &e), 0);
    assert_null(e);
}

static void test_error_keeps_code_and_parameters(void **state)
{
    struct pair *p = *state;
    struct error *e = NULL;
    const char *params[] = { "1048576", "with \"quotes\" and <tags>" };
    assert_int_equal(handshake_send(p->a, error_from_strings(p->arena, "HOST_NOT_ENOUGH_FREE_MEMORY", 2, params)), 0);
    assert_int_equal(handshake_receive(p->arena, p->b, -1, 1000, &e), 0);
    assert_true(error_is(e, "HOST_NOT_ENOUGH_FREE_MEMORY"));
    assert_int_equal(e->n_params, 2);
    assert_string_equal(e->params[1], params[1]);
}

static void test_too_long_error_is_replaced(void **state)
{
    struct pair *p = *state;
    struct error *e = NULL;
    char *huge = arena_alloc(p->arena, 100001);
    memset(huge, 'x', 100000);
    const char *params[] = { huge };
    assert_int_equal(handshake_send(p->a, error_from_strings(p->arena, "INTERNAL_ERROR", 1, params)), 0);
    assert_int_equal(handshake_receive(p->arena, p->b, -1, 1000, &e), 0);
    assert_true(error_is(e, "INTERNAL_ERROR"));
}

static void test_foreign_text_becomes_internal_error(void **state)
{
    struct pair *p = *state;
    static const struct { const char *text; } cases[] = { { "HTTP/1.1 404 Not Found" }, { "{\"code\":5}" }, { "[]" }, { "{" } };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct error *e = NULL;
        size_t len = strlen(cases[i].text);
        char head[2] = { 0, (char)len };
        assert_int_equal(fd_write_all(p->raw, head, 2), 0);
        assert_int_equal(fd_write_all(p->raw, cases[i].text, len), 0);
        assert_int_equal(handshake_receive(p->arena, p->b, -1, 1000, &e), 0);
        assert_true(error_is(e, "INTERNAL_ERROR"));
    }
}

static void test_end_of_stream_and_silence(void **state)
{
    struct pair *p = *state;
    struct error *e = NULL;
    assert_int_equal(handshake_receive(p->arena, p->b, -1, 0, &e), -ETIMEDOUT);
    char head[2] = { 0, 20 };
    assert_int_equal(fd_write_all(p->raw, head, 2), 0);
    assert_int_equal(shutdown(p->raw, SHUT_WR), 0);
    assert_int_equal(handshake_receive(p->arena, p->b, -1, 1000, &e), -EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_success_is_two_zero_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_keeps_code_and_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_long_error_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_text_becomes_internal_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_of_stream_and_silence, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
