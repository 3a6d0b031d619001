/* The parts without sockets: heads, chunks, percent escapes, credentials, routes, timers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "rpc/base/arena.h"
#include "rpc/base/text.h"
#include "rpc/http/chunk.h"
#include "rpc/http/parse.h"
#include "rpc/http/route.h"
#include "rpc/http/timer.h"

static const struct head_limits limits = { .bytes = 16384, .lines = 100 };

static int parse(struct arena *a, const char *text, size_t len, struct head *h)
{
    struct head_scan scan = { 0 };
    long n = head_scan(&scan, text, len, &limits);

    if (n <= 0)
        return (int)-n;
    return head_parse_request(a, text, (size_t)n, h);
}

static void test_head_fields(void **state)
{
    AUTO_ARENA a = arena_new();
    struct head h;
    static const char text[] = "PUT /a%20b/c?x=1&y HTTP/1.1\r\nHost: h\r\nX-Long:  two words \t\r\nEmpty:\r\n"
                               "Content-Length: 12\r\nConnection: foo, Close\r\nExpect: 100-Continue\r\n\r\nrest";

    assert_int_equal(parse(a, text, strlen(text), &h), 0);
    assert_string_equal(h.method, "PUT");
    assert_string_equal(h.target, "/a%20b/c?x=1&y");
    assert_string_equal(h.path, "/a b/c");
    assert_string_equal(h.query, "x=1&y");
    assert_int_equal(h.minor, 1);
    assert_int_equal(h.n_headers, 6);
    assert_string_equal(h.headers[1].name, "x-long");
    assert_string_equal(h.headers[1].value, "two words");
    assert_string_equal(h.headers[2].value, "");
    assert_int_equal(h.content_length, 12);
    assert_false(h.keep_alive);
    assert_true(h.expect_continue);
    assert_false(h.chunked);
}

/* Whatever the pieces it arrives in, a head ends at the same place. */
static void test_head_scan_by_bytes(void **state)
{
    static const char text[] = "\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nGET";
    struct head_scan scan = { 0 };

    for (size_t n = 0; n < 28; n++) {
        long got = head_scan(&scan, text, n, &limits);

        if (n < 26)
            assert_int_equal(got, 0);
        else {
            assert_int_equal(got, 26);
            return;
        }
    }
    fail();
}

static void test_targets(void **state)
{
    static const struct { const char *line; int status; const char *path; } cases[] = {
        { "GET / HTTP/1.0", 0, "/" },
        { "GET http://host:80/p?q HTTP/1.1", 0, "/p" },
        { "GET https://host HTTP/1.1", 0, "/" },
        { "OPTIONS * HTTP/1.1", 0, "*" },
        { "CONNECT /console?ref=1 HTTP/1.0", 0, "/console" },
        { "CONNECT host:443 HTTP/1.1", 0, "host:443" },
        { "GET * HTTP/1.1", 400, NULL },
        { "GET x HTTP/1.1", 400, NULL },
        { "GET /%2 HTTP/1.1", 400, NULL },
        { "GET /%00 HTTP/1.1", 400, NULL },
        { "GET /\x01 HTTP/1.1", 400, NULL },
        { "GET /%41%c3%a4 HTTP/1.1", 0, "/A\xc3\xa4" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT text = TEXT_INIT;
        struct head h;

        text_printf(&text, "%s\r\n\r\n", cases[i].line);
        assert_int_equal(parse(a, text.bytes, text.len, &h), cases[i].status);
        if (cases[i].status == 0)
            assert_string_equal(h.path, cases[i].path);
    }
}

static void test_answers(void **state)
{
    static const struct { const char *text; int rc, status; int64_t length; } cases[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 0, 200, 3 },
        { "HTTP/1.0 302\r\n\r\n", 0, 302, -1 },
        { "HTTP/1.1 20 OK\r\n\r\n", 502, 0, 0 },
        { "HTTP/1.1 2000 OK\r\n\r\n", 502, 0, 0 },
        { "HTTP/2.0 200 OK\r\n\r\n", 502, 0, 0 },
        { "HTTP/1.1  200 OK\r\n\r\n", 502, 0, 0 },
        { "HTTP/1.1 099 OK\r\n\r\n", 502, 0, 0 },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 502, 0, 0 },
        { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 502, 0, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_ARENA a = arena_new();
        struct head h;

        assert_int_equal(head_parse_answer(a, cases[i].text, strlen(cases[i].text), &h), cases[i].rc);
        if (cases[i].rc == 0) {
            assert_int_equal(h.status, cases[i].status);
            assert_int_equal(h.content_length, cases[i].length);
        }
    }
}

/* Decodes in steps of 'step' bytes; false if refused or not done. */
static bool decode(const char *in, size_t len, size_t step, struct text *out)
{
    struct chunk_decoder d = { 0 };

    for (size_t at = 0; at < len && d.state != CHUNK_DONE;) {
        size_t used, n, now = len - at < step ? len - at : step;
        const char *data;

        if (!chunk_decode(&d, in + at, now, &used, &data, &n))
            return false;
        text_add_len(out, data, n);
        at += used;
    }
    return d.state == CHUNK_DONE;
}

static void test_chunks(void **state)
{
    static const struct { const char *in; bool ok; const char *out; } cases[] = {
        { "0\r\n\r\n", true, "" },
        { "5\r\nhello\r\n0\r\n\r\n", true, "hello" },
        { "3\r\nabc\r\n0002;x=\"y\"\r\nde\r\n000\r\n\r\n", true, "abcde" },
        { "A\r\n0123456789\r\n0\r\n\r\n", true, "0123456789" },
        { "\r\n\r\n", false, NULL },
        { "g\r\n", false, NULL },
        { "-1\r\n", false, NULL },
        { "0x5\r\nhello\r\n", false, NULL },
        { " 5\r\nhello\r\n", false, NULL },
        { "5 \r\nhello\r\n", false, NULL },
        { "5\nhello\r\n", false, NULL },
        { "5\rXhello\r\n", false, NULL },
        { "5\r\nhelloX\n", false, NULL },
        { "5\r\nhello\n0\r\n\r\n", false, NULL },
        { "0\r\nTrailer: x\r\n\r\n", false, NULL },
        { "0\r\n\n", false, NULL },
        { "ffffffffffffffff\r\n", false, NULL },
        { "5;\x01\r\nhello\r\n0\r\n\r\n", false, NULL },
        { "5\r\nhel", false, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t step = 1; step < 40; step += 6) {
            AUTO_TEXT out = TEXT_INIT;

            text_grow(&out, 1);
            assert_int_equal(decode(cases[i].in, strlen(cases[i].in), step, &out), cases[i].ok);
            if (cases[i].ok)
                assert_string_equal(out.bytes, cases[i].out);
        }
    }
}

static void test_pairs(void **state)
{
    AUTO_ARENA a = arena_new();
    struct http_header headers[] = {
        { "cookie", "first=1; session_id=OpaqueRef%3a42 &task_id=x" },
        { "cookie", "pool_secret=a=b" },
    };
    struct http_request r = { .query = "a=1&empty=&flag&b=x+y%26z&bad=%zz&nul=%00&aa=2", .headers = headers, .n_headers = 2 };

    assert_string_equal(http_query(a, &r, "a"), "1");
    assert_string_equal(http_query(a, &r, "empty"), "");
    assert_string_equal(http_query(a, &r, "flag"), "");
    assert_string_equal(http_query(a, &r, "b"), "x y&z");
    assert_string_equal(http_query(a, &r, "bad"), "%zz");
    assert_null(http_query(a, &r, "nul"));
    assert_string_equal(http_query(a, &r, "aa"), "2");
    assert_null(http_query(a, &r, "c"));
    assert_string_equal(http_cookie(a, &r, "first"), "1");
    assert_string_equal(http_cookie(a, &r, "session_id"), "OpaqueRef:42");
    assert_string_equal(http_cookie(a, &r, "task_id"), "x");
    assert_string_equal(http_cookie(a, &r, "pool_secret"), "a=b");
    assert_null(http_cookie(a, &r, "second"));
    assert_null(http_header(&r, "authorization"));
}

static void test_basic_auth(void **state)
{
    static const struct { const char *value, *user, *password; } cases[] = {
        { "Basic cm9vdDpzZWNyZXQ=", "root", "secret" },
        { "basic cm9vdDo=", "root", "" },
        { "Basic cm9vdDphOmI=", "root", "a:b" },
        { "Basic OnB3", "", "pw" },
        { "Basic cm9vdA==", NULL, NULL },   /* no colon */
        { "Basic cm9vdDpz*A==", NULL, NULL },
        { "Basic cm9vdDp", NULL, NULL },
        { "Basic AG9vdDpz", NULL, NULL },   /* NUL */
        { "Basic ====", NULL, NULL },
        { "Basic ", NULL, NULL },
        { "Bearer x", NULL, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_ARENA a = arena_new();
        struct http_header h = { "authorization", cases[i].value };
        struct http_request r = { .headers = &h, .n_headers = 1 };
        const char *user = NULL, *password = NULL;

        assert_int_equal(http_basic_auth(a, &r, &user, &password), cases[i].user != NULL);
        if (cases[i].user != NULL) {
            assert_string_equal(user, cases[i].user);
            assert_string_equal(password, cases[i].password);
        }
    }
}

static void test_routes(void **state)
{
    static const struct http_route routes[] = {
        { "POST", "/", HTTP_BODY_BUFFER, NULL, NULL },          { "POST", "/jsonrpc$", HTTP_BODY_BUFFER, NULL, NULL },
        { "GET", "/import", HTTP_BODY_BUFFER, NULL, NULL },     { "GET", "/import_metadata", HTTP_BODY_BUFFER, NULL, NULL },
        { "GET", "/export", HTTP_BODY_TAKEOVER, NULL, NULL },   { "*", "/services/", HTTP_BODY_BUFFER, NULL, NULL },
        { "GET", "/services/x", HTTP_BODY_BUFFER, NULL, NULL }, { 0 },
    };
    static const struct { const char *method, *path; int route, status; } cases[] = {
        { "POST", "/", 0, 0 },           { "POST", "/RPC2", 0, 0 },        { "POST", "/jsonrpc", 1, 0 },
        { "POST", "/jsonrpc2", 0, 0 },   { "GET", "/import/", 2, 0 },      { "GET", "/import_metadata", 3, 0 },
        { "GET", "/nothing", -1, 404 },  { "GET", "/impor", -1, 404 },     { "HEAD", "/import", 2, 0 },
        { "HEAD", "/export", -1, 405 },  { "PUT", "/services/a", 5, 0 },   { "GET", "/services/xy", 6, 0 },
        { "DELETE", "/", -1, 404 },      { "BREW", "/", -1, 501 },         { "BREW", "/services/x", 5, 0 },
    };
    struct route_table t;

    route_table_init(&t, routes);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int status = 0;
        const struct http_route *r = route_find(&t, cases[i].method, cases[i].path, &status);

        assert_ptr_equal(r, cases[i].route < 0 ? NULL : &routes[cases[i].route]);
        assert_int_equal(status, cases[i].status);
    }
    route_table_release(&t);
}

/* Expiries come in order, moved and removed ones included. */
static void test_timers(void **state)
{
    enum { N = 3000 };
    struct timer_heap h = { 0 };
    static struct timer timers[N];
    unsigned seed = 1, expired = 0;
    int64_t now = 0;

    memset(timers, 0, sizeof timers);
    for (int i = 0; i < N; i++) {
        seed = seed * 1103515245u + 12345u;
        timer_set(&h, &timers[i], 1 + seed / 65536 % 1000);
    }
    for (int i = 0; i < N; i += 3)
        timer_set(&h, &timers[i], timers[i].at + 500); /* later: lazy */
    for (int i = 1; i < N; i += 3)
        timer_set(&h, &timers[i], timers[i].at / 2);
    for (int i = 2; i < N; i += 6)
        timer_remove(&h, &timers[i]);
    for (int i = 5; i < N; i += 6)
        timer_set(&h, &timers[i], TIMER_NEVER);
    for (now = 0; now <= 2000; now++) {
        struct timer *t;

        while ((t = timer_expired(&h, now)) != NULL) {
            assert_int_not_equal((t - timers) % 3, 2);
            expired++;
        }
    }
    assert_int_equal(expired, 2 * N / 3);
    assert_int_equal(h.n, 0);
    assert_true(timer_next(&h) == TIMER_NEVER);
    timer_heap_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_fields), cmocka_unit_test(test_head_scan_by_bytes), cmocka_unit_test(test_targets),
        cmocka_unit_test(test_answers),     cmocka_unit_test(test_chunks),             cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_basic_auth),  cmocka_unit_test(test_routes),             cmocka_unit_test(test_timers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
