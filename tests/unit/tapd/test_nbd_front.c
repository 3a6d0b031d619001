/* What stands before NBD behind an HTTP front: the request, and the strict reader of the answer's head. */
#include "storage/tapd/nbd_front.h"

#include <errno.h>
#include <string.h>

#include "tests/lib/unit.h"

/* The verdict on a whole text, and how many bytes it took. */
static int hear(const char *text, size_t len, size_t *took_r, char line[64])
{
    static struct nbd_front f;
    size_t i = 0;
    int rc = 0;

    f.len = 0;
    while (i < len && rc == 0)
        rc = nbd_front_byte(&f, text[i++]);
    *took_r = i;
    nbd_front_line(&f, line, 64);
    return rc;
}

static void test_answers(void **state)
{
    static const struct { const char *text; int rc; const char *line; } cases[] = {
        { "HTTP/1.1 200 OK\r\nTransfer-encoding: nbd\r\n\r\n", 1, "HTTP/1.1 200 OK" },
        { "HTTP/1.0 200\r\n\r\n", 1, "HTTP/1.0 200" },
        { "HTTP/1.1 200 OK\r\nX:\r\nY: a: b\tc\r\n\r\n", 1, "HTTP/1.1 200 OK" },
        { "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", -EACCES, "HTTP/1.1 401 Unauthorized" },
        { "HTTP/1.1 403 Forbidden\r\n\r\n", -EACCES, "HTTP/1.1 403 Forbidden" },
        { "HTTP/1.1 404 Not Found\r\n\r\n", -ENOENT, "HTTP/1.1 404 Not Found" },
        { "HTTP/1.1 503 Busy\r\n\r\n", -ECONNREFUSED, "HTTP/1.1 503 Busy" },
        { "HTTP/1.1 201 Created\r\n\r\n", -ECONNREFUSED, "HTTP/1.1 201 Created" },
        { "HTTP/1.1 200 OK\r\n X: folded\r\n\r\n", -EPROTO, "HTTP/1.1 200 OK" },
        { "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", -EPROTO, "HTTP/1.1 200 OK" },
        { "HTTP/1.1 200 OK\r\nX : y\r\n\r\n", -EPROTO, "HTTP/1.1 200 OK" },
        { "HTTP/1.1 200OK\r\n\r\n", -EPROTO, "HTTP/1.1 200OK" },
        { "HTTP/1.1 20\r\n\r\n", -EPROTO, "HTTP/1.1 20" },
        { "HTTP/2.0 200 OK\r\n\r\n", -EPROTO, "HTTP/2.0 200 OK" },
        { "HTTP/1.1 200 OK\n\n", -EPROTO, "HTTP/1.1 200 OK" },
        { "HTTP/1.1 200 OK\r\r\n\r\n", -EPROTO, "HTTP/1.1 200 OK" },
        { "HTTP/1.1 200 O\x01K\r\n\r\n", -EPROTO, "HTTP/1.1 200 O" },
        { "NBDMAGICIHAVEOPT", -EPROTO, "N" },
        { "\r\n\r\n", -EPROTO, "" },
        { "HTTP/1.1 200 OK\r\nX: y\r\n", 0, "HTTP/1.1 200 OK" },
        { "", 0, "" },
    };
    size_t took;
    char line[64];

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(hear(cases[i].text, strlen(cases[i].text), &took, line), cases[i].rc);
        assert_string_equal(line, cases[i].line);
    }
}

/* What follows the head is not taken. */
static void test_nothing_behind(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nTransfer-encoding: nbd\r\n\r\nNBDMAGIC";
    size_t took;
    char line[64];

    assert_int_equal(hear(text, sizeof text - 1, &took, line), 1);
    assert_string_equal(text + took, "NBDMAGIC");
}

static void test_huge(void **state)
{
    static char text[2 * NBD_FRONT_HEAD_MAX];
    static const char start[] = "HTTP/1.1 200 OK\r\nX: ", end[] = "\r\n\r\n";
    size_t took;
    char line[64];

    for (size_t len = NBD_FRONT_HEAD_MAX - 1; len <= NBD_FRONT_HEAD_MAX + 1; len++) {
        memset(text, 'y', len);
        memcpy(text, start, sizeof start - 1);
        memcpy(text + len - 4, end, 4);
        assert_int_equal(hear(text, len, &took, line), len <= NBD_FRONT_HEAD_MAX ? 1 : -EPROTO);
    }
    memset(text, 'y', sizeof text);
    memcpy(text, start, sizeof start - 1);
    assert_int_equal(hear(text, sizeof text, &took, line), -EPROTO);
    assert_int_equal(took, NBD_FRONT_HEAD_MAX + 1);
}

static void test_request(void **state)
{
    AUTO_ARENA a = arena_new();
    struct nbd_uri u;

    assert_true(nbd_uri_parse(a, "nbds://[::1]:443/?tls=first&put=%2Fservices%2FSM%2Fnbd%2Fv%2Fs%2Fa%252Fb%2Fd&cookie=migration_key%3Dk%26%3B", &u));
    assert_string_equal(nbd_front_request(a, &u),
                        "PUT /services/SM/nbd/v/s/a%2Fb/d HTTP/1.1\r\nHost: [::1]:443\r\nCookie: migration_key=k&;\r\n\r\n");
    assert_true(nbd_uri_parse(a, "nbd://10.0.0.1:80/?put=/x", &u));
    assert_string_equal(nbd_front_request(a, &u), "PUT /x HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_answers), cmocka_unit_test(test_nothing_behind), cmocka_unit_test(test_huge),
                                        cmocka_unit_test(test_request) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
