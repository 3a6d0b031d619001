/* The URLs of a migration's token, both ways. */
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/unit.h"
#include "xapi/migrate/peer_pool.h"

static void test_read(void **state)
{
    static const struct { const char *url, *address; int port; bool tls; } good[] = {
        { "http://10.0.0.2/services/xenops?session_id=OpaqueRef:1", "10.0.0.2", 0, false },
        { "http://10.0.0.2:8080", "10.0.0.2", 8080, false },
        { "https://host.example:443/", "host.example", 443, true },
        { "http://[fe80::1]/x", "fe80::1", 0, false },
        { "https://[::1]:65535?a=http://b:1/", "::1", 65535, true },
    };
    static const char *const bad[] = { "",          "10.0.0.2",     "ftp://h",     "http://",     "http:///x",       "http://:80",      "http://h:",
                                       "http://h:0", "http://h:65536", "http://h:8 0", "http://[::1", "http://[]/",    "http://[::1]x",   "http://u@h/",
                                       "http://a b/", "http://[a/b]/", "HTTP://h",     "http://h:-1", "http://h:80x/x" };
    AUTO_ARENA a = arena_new();
    const char *address;
    bool tls;
    int port;

    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(migration_url_read(a, good[i].url, &tls, &address, &port));
        assert_string_equal(address, good[i].address);
        assert_int_equal(port, good[i].port);
        assert_int_equal(tls, good[i].tls);
    }
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        if (migration_url_read(a, bad[i], &tls, &address, &port))
            fail_msg("'%s' was understood as %s, %d", bad[i], address, port);
}

static void test_write(void **state)
{
    AUTO_ARENA a = arena_new();

    assert_string_equal(migration_url(a, "10.0.0.2", 80, "/services/SM"), "http://10.0.0.2/services/SM");
    assert_string_equal(migration_url(a, "10.0.0.2", 0, ""), "http://10.0.0.2");
    assert_string_equal(migration_url(a, "fe80::1", 8080, "/x"), "http://[fe80::1]:8080/x");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_read), cmocka_unit_test(test_write) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
