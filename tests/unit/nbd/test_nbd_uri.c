/* NBD's URIs: what is understood, what is not, and back again. */
#include "tests/lib/unit.h"

#include <string.h>

#include "rpc/nbd/nbd_uri.h"

static const struct { const char *text; struct nbd_uri u; } good[] = {
    { "nbd+unix:///?socket=/run/a", { .socket = "/run/a", .port = 10809, .name = "" } },
    { "nbd+unix:///disk%201?socket=/a%25b", { .socket = "/a%b", .port = 10809, .name = "disk 1" } },
    { "nbds+unix:///x?socket=y&other=z&flag", { .socket = "y", .port = 10809, .name = "x", .tls = true } },
    { "nbd://host", { .host = "host", .port = 10809, .name = "" } },
    { "nbd://host:/", { .host = "host", .port = 10809, .name = "" } },
    { "nbd://user@host:99/a/b", { .host = "host", .port = 99, .name = "a/b" } },
    { "nbd://[::1]:443/", { .host = "::1", .port = 443, .name = "" } },
    { "nbd://[fe80::1%25eth0]/n", { .host = "fe80::1%eth0", .port = 10809, .name = "n" } },
    { "nbds://10.0.0.1:443/n?tls=first&sni=host.x&fingerprint=AA:BB",
      { .host = "10.0.0.1", .port = 443, .name = "n", .tls = true, .tls_first = true, .sni = "host.x", .fingerprint = "AA:BB" } },
    { "nbds://h:443/?tls=first&put=%2Fa%2Fb%3Fc&cookie=k%3Dv%3B%20l%3Dw",
      { .host = "h", .port = 443, .name = "", .tls = true, .tls_first = true, .put = "/a/b?c", .cookie = "k=v; l=w" } },
    { "nbd://h/?socket=/a", { .host = "h", .port = 10809, .name = "" } },
};

static void assert_same(const char *a, const char *b)
{
    if (a == NULL || b == NULL)
        assert_true(a == b);
    else
        assert_string_equal(a, b);
}

static void test_good(void **state)
{
    AUTO_ARENA a = arena_new();
    struct nbd_uri u;

    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(nbd_uri_is(good[i].text));
        assert_true(nbd_uri_parse(a, good[i].text, &u));
        assert_same(u.socket, good[i].u.socket);
        assert_same(u.host, good[i].u.host);
        assert_same(u.name, good[i].u.name);
        assert_same(u.sni, good[i].u.sni);
        assert_same(u.fingerprint, good[i].u.fingerprint);
        assert_same(u.put, good[i].u.put);
        assert_same(u.cookie, good[i].u.cookie);
        assert_int_equal(u.port, good[i].u.port);
        assert_true(u.tls == good[i].u.tls && u.tls_first == good[i].u.tls_first);
    }
}

static void test_bad(void **state)
{
    static const char *const bad[] = {
        "", "nbd:", "http://host/", "/dev/sda", "nbd+vsock://2/", "nbd://", "nbd:///n", "nbd+unix://host/?socket=/a", "nbd+unix:///n",
        "nbd+unix:///n?socket=", "nbd://host:0/", "nbd://host:65536/", "nbd://host:x/", "nbd://[::1/", "nbd://[]/", "nbd://[::1]x/",
        "nbd://h/%", "nbd://h/%4", "nbd://h/%zz", "nbd://h/%00", "nbd+unix:///?socket=/a%00b", "nbd://h/#f", "nbds://h/?tls=maybe",
        "nbd://h/?put=a", "nbd://h/?put=%2Fa%20b", "nbd://h/?put=/a%0d", "nbd://h/?put=/&cookie=a%0d%0ab", "nbd://h/?put=/&cookie=%7f",
        "nbd://h%0d%0ax/?put=/a",
    };
    AUTO_ARENA a = arena_new();
    struct nbd_uri u;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(nbd_uri_parse(a, bad[i], &u));
    assert_false(nbd_uri_is("/dev/nbd0"));
}

static void test_unix_and_back(void **state)
{
    AUTO_ARENA a = arena_new();
    char path[256];
    struct nbd_uri u;

    for (unsigned i = 1; i < 256; i++)
        path[i - 1] = (char)i;
    path[255] = '\0';
    assert_true(nbd_uri_parse(a, nbd_uri_unix(a, path), &u));
    assert_string_equal(u.socket, path);
    assert_string_equal(nbd_uri_unix(a, "/run/x y"), "nbd+unix:///?socket=/run/x%20y");
}

static void test_shown(void **state)
{
    static const char *const pairs[][2] = {
        { "nbds://h:443/?put=/a&cookie=secret", "nbds://h:443/?put=/a&cookie=" },
        { "nbds://h/?cookie=secret&put=/a&fingerprint=AB", "nbds://h/?cookie=&put=/a&fingerprint=AB" },
        { "nbds://h/?%63ookie=secret&cookie=more&x", "nbds://h/?%63ookie=&cookie=&x" },
        { "nbd+unix:///?socket=/a?cookie=b", "nbd+unix:///?socket=/a?cookie=b" },
        { "nbd://h/n", "nbd://h/n" }, { "/dev/x?cookie=a", "/dev/x?cookie=a" }, { "", "" },
    };
    AUTO_ARENA a = arena_new();

    for (unsigned i = 0; i < ARRAY_LEN(pairs); i++)
        assert_string_equal(nbd_uri_shown(a, pairs[i][0]), pairs[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_good), cmocka_unit_test(test_bad), cmocka_unit_test(test_unix_and_back),
                                        cmocka_unit_test(test_shown) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
