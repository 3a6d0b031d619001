/* The names of disks on their way: what a path names, and the URI that leads there. */
#include "xapi/migrate/disk_sink.h"

#include <string.h>

#include "rpc/nbd/nbd_uri.h"
#include "tests/lib/unit.h"

static void test_paths(void **state)
{
    static const struct { const char *path, *sr, *location; } good[] = {
        { "/services/SM/nbd/vm/sr/loc/dp", "sr", "loc" },
        { "/services/SM/nbdproxy/vm/sr/loc/dp", "sr", "loc" },
        { "/services/SM/nbdproxy/import/vm/sr/loc/dp", "sr", "loc" },
        { "/services/SM/nbd/vm/sr/a/b c/dp", "sr", "a/b c" },
    };
    static const char *const bad[] = {
        "", "/", "/services/SM/nbd/", "/services/SM/nbd/vm/sr/loc", "/services/SM/nbd/vm/sr/loc/", "/services/SM/nbd/vm//loc/dp",
        "/services/SM/nbd//sr/loc/dp", "/services/SM/nbd/vm/sr//dp", "/services/SM/vm/sr/loc/dp", "services/SM/nbd/vm/sr/loc/dp",
    };
    AUTO_ARENA a = arena_new();
    struct disk_sink_path p;

    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(disk_sink_path_parse(a, good[i].path, &p));
        assert_string_equal(p.vm, "vm");
        assert_string_equal(p.sr, good[i].sr);
        assert_string_equal(p.location, good[i].location);
    }
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(disk_sink_path_parse(a, bad[i], &p));
}

/* What tapd reads out of it is what was put in. */
static void test_uri(void **state)
{
    const struct http_target v4 = { .address = "10.0.0.1", .port = 443, .tls = true, .fingerprint = "SHA256 fingerprint AB:CD:01", .cookie = "migration_key=k&l" };
    const struct http_target v6 = { .address = "fe80::1", .port = 80 };
    AUTO_ARENA a = arena_new();
    struct nbd_uri u;

    assert_true(nbd_uri_parse(a, disk_sink_uri(a, &v4, "vm", "sr", "a b/c"), &u));
    assert_string_equal(u.host, "10.0.0.1");
    assert_int_equal(u.port, 443);
    assert_true(u.tls && u.tls_first);
    assert_string_equal(u.fingerprint, "ABCD01");
    assert_string_equal(u.put, "/services/SM/nbd/vm/sr/a%20b/c/incoming");
    assert_string_equal(u.cookie, "migration_key=k&l");
    assert_true(nbd_uri_parse(a, disk_sink_uri(a, &v6, "vm", "sr", "loc"), &u));
    assert_string_equal(u.host, "fe80::1");
    assert_int_equal(u.port, 80);
    assert_true(!u.tls && !u.tls_first && u.cookie == NULL && u.fingerprint == NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_paths), cmocka_unit_test(test_uri) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
