/* What is refused, with which status, and that the connection ends: api-perf §1.4 and more. */
#include "tests/unit/http/front_fixture.h"

#define GET "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"

static void refused_upload(struct http_exchange *ex, void *ctx) { http_reply(ex, 403, "text/plain", NULL, NULL); }

static const struct http_route routes[] = {
    { "GET", "/", HTTP_BODY_BUFFER, front_echo, NULL },
    { "POST", "/", HTTP_BODY_BUFFER, front_echo, NULL },
    { "PUT", "/upload", HTTP_BODY_TAKEOVER, refused_upload, NULL },
    { 0 },
};

struct case_ { const char *name, *request; size_t len; int status; bool closes; };
#define CASE(name, text, status, closes) { name, text, sizeof(text) - 1, status, closes }
#define POST "POST / HTTP/1.1\r\nHost: x\r\n"

static const struct case_ cases[] = {
    CASE("plain get", GET, 200, false),
    CASE("no host", "GET / HTTP/1.1\r\n\r\n", 200, false),
    CASE("one empty line first", "\r\n" GET, 200, false),
    CASE("two empty lines first", "\r\n\r\n" GET, 400, true),
    CASE("absolute form", "GET http://x/p HTTP/1.1\r\nHost: x\r\n\r\n", 200, false),
    CASE("1.0 closes", "GET / HTTP/1.0\r\n\r\n", 200, true),
    CASE("1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200, false),
    CASE("1.1 close", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 200, true),
    CASE("chunked", POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, false),
    CASE("Chunked, extension", POST "Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", 200, false),
    CASE("cl and te", POST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true),
    CASE("te and cl", POST "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400, true),
    CASE("two equal cl", POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400, true),
    CASE("two different cl", POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\naa", 400, true),
    CASE("cl list", POST "Content-Length: 1, 1\r\n\r\na", 400, true),
    CASE("cl plus", POST "Content-Length: +104\r\n\r\n", 400, true),
    CASE("cl minus", POST "Content-Length: -1\r\n\r\n", 400, true),
    CASE("cl hex", POST "Content-Length: 0x1\r\n\r\na", 400, true),
    CASE("cl exponent", POST "Content-Length: 1e2\r\n\r\na", 400, true),
    CASE("cl empty", POST "Content-Length:\r\n\r\n", 400, true),
    CASE("cl inner space", POST "Content-Length: 1 1\r\n\r\n", 400, true),
    CASE("cl 1e12", POST "Content-Length: 1000000000000\r\n\r\n", 413, true),
    CASE("cl 2^64+4", POST "Content-Length: 18446744073709551620\r\n\r\nabcd", 400, true),
    CASE("cl 2^63", POST "Content-Length: 9223372036854775808\r\n\r\n", 400, true),
    CASE("space before colon", POST "Content-Length : 1\r\n\r\na", 400, true),
    CASE("tab before colon", POST "X\t: 1\r\n\r\n", 400, true),
    CASE("no colon", POST "Nonsense\r\n\r\n", 400, true),
    CASE("empty name", POST ": x\r\n\r\n", 400, true),
    CASE("name with space", POST "A B: x\r\n\r\n", 400, true),
    CASE("nul in value", POST "A: x\0y\r\n\r\n", 400, true),
    CASE("nul in name", POST "A\0B: x\r\n\r\n", 400, true),
    CASE("nul in target", "GET /\0 HTTP/1.1\r\n\r\n", 400, true),
    CASE("nul in method", "GE\0T / HTTP/1.1\r\n\r\n", 400, true),
    CASE("control in value", POST "A: x\x01\r\n\r\n", 400, true),
    CASE("obs-fold space", POST "A: x\r\n y\r\n\r\n", 400, true),
    CASE("obs-fold tab", POST "A: x\r\n\ty\r\n\r\n", 400, true),
    CASE("bare lf lines", "GET / HTTP/1.1\nHost: x\n\n", 400, true),
    CASE("bare lf in headers", "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, true),
    CASE("bare lf at end", "GET / HTTP/1.1\r\nHost: x\r\n\n", 400, true),
    CASE("bare cr in value", "GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400, true),
    CASE("bare cr in request line", "GET /\r HTTP/1.1\r\n\r\n", 400, true),
    CASE("cr cr lf", "GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", 400, true),
    CASE("bad method", "GE(T / HTTP/1.1\r\n\r\n", 400, true),
    CASE("leading space", " GET / HTTP/1.1\r\n\r\n", 400, true),
    CASE("two spaces", "GET  / HTTP/1.1\r\n\r\n", 400, true),
    CASE("space in target", "GET /a b HTTP/1.1\r\n\r\n", 400, true),
    CASE("tab separators", "GET\t/\tHTTP/1.1\r\n\r\n", 400, true),
    CASE("0.9", "GET /\r\n\r\n", 400, true),
    CASE("trailing space", "GET / HTTP/1.1 \r\n\r\n", 400, true),
    CASE("lower http", "GET / http/1.1\r\n\r\n", 400, true),
    CASE("version 1.10", "GET / HTTP/1.10\r\n\r\n", 400, true),
    CASE("version 1.2", "GET / HTTP/1.2\r\n\r\n", 505, true),
    CASE("version 2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, true),
    CASE("relative target", "GET x HTTP/1.1\r\n\r\n", 400, true),
    CASE("bad escape", "GET /%zz HTTP/1.1\r\n\r\n", 400, true),
    CASE("nul escape", "GET /%00 HTTP/1.1\r\n\r\n", 400, true),
    CASE("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, true),
    CASE("te gzip", POST "Transfer-Encoding: gzip\r\n\r\n", 501, true),
    CASE("te gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, true),
    CASE("te obscured", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, true),
    CASE("te twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true),
    CASE("te in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true),
    CASE("chunk size", POST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, true),
    CASE("chunk minus", POST "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, true),
    CASE("chunk lf", POST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400, true),
    CASE("chunk overlong", POST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400, true),
    CASE("chunk 2^64", POST "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", 400, true),
    CASE("trailer", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", 400, true),
    CASE("unknown expectation", POST "Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417, true),
    CASE("unknown method", "BREW / HTTP/1.1\r\n\r\n", 501, true),
    CASE("lower-case method", "get / HTTP/1.1\r\n\r\n", 501, true),
    CASE("no route", "DELETE / HTTP/1.1\r\n\r\n", 404, true),
    CASE("tls hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, true),
    CASE("upload refused", "PUT /upload HTTP/1.1\r\nContent-Length: 10\r\n\r\n01234", 403, true),
    CASE("upload without length refused", "PUT /upload HTTP/1.0\r\n\r\n01234", 403, true),
};

static void test_malformed(void **state)
{
    struct front f;

    front_open(&f, routes, 1, NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wire w = { .fd = front_dial(f.port) };
        struct text head = TEXT_INIT, body = TEXT_INIT;

        put(w.fd, cases[i].request, cases[i].len);
        int status = wire_answer(&w, &head, &body, strncmp(cases[i].request, "HEAD", 4) == 0);
        bool says_close = strstr(head.bytes, "Connection: close") != NULL;

        if (status != cases[i].status || says_close != cases[i].closes)
            fail_msg("%s: %d, close %d", cases[i].name, status, says_close);
        if (cases[i].closes) /* and nothing that stood behind it is answered */
            wire_expect_end(&w);
        else
            assert_int_equal(ask(&w, GET, &body), 200);
        wire_close(&w);
        text_release(&head);
        text_release(&body);
    }
    front_close(&f);
}

/* A request smuggled behind a refused one is never answered. */
static void test_nothing_after_refusal(void **state)
{
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, POST "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GET GET);
    assert_int_equal(wire_answer(&w, &head, &body, false), 400);
    wire_expect_end(&w);
    wire_close(&w);
    struct http_server_stats stats;

    http_server_stats(f.server, &stats);
    assert_int_equal(stats.requests, 0);
    assert_int_equal(stats.refused, 1);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

static int status_of(struct front *f, const struct text *request)
{
    struct wire w = { .fd = front_dial(f->port) };
    struct text head = TEXT_INIT, body = TEXT_INIT;

    put(w.fd, request->bytes, request->len);
    int status = wire_answer(&w, &head, &body, false);

    if (status >= 400)
        wire_expect_end(&w);
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    return status;
}

static void test_limits(void **state)
{
    struct http_limits limits = { .body_bytes = 1000 };
    struct front f;
    AUTO_TEXT r = TEXT_INIT;

    front_open(&f, routes, 1, &limits);
    for (int lines = 98; lines <= 102; lines++) {
        text_clear(&r);
        text_add(&r, "GET / HTTP/1.1\r\n");
        for (int i = 1; i < lines; i++)
            text_printf(&r, "X-%d: y\r\n", i);
        text_add(&r, "\r\n");
        assert_int_equal(status_of(&f, &r), lines <= 100 ? 200 : 431);
    }
    for (size_t size = 16 * 1024 - 2; size <= 1024 * 1024; size = size < 16 * 1024 + 2 ? size + 1 : size * 8) {
        text_clear(&r);
        text_add(&r, "GET / HTTP/1.1\r\nX: ");
        while (r.len < size - 4)
            text_add_byte(&r, 'x');
        text_add(&r, "\r\n\r\n");
        assert_int_equal(status_of(&f, &r), size <= 16 * 1024 ? 200 : 431);
    }
    for (size_t size = 999; size <= 1001; size++) {
        text_clear(&r);
        text_printf(&r, POST "Content-Length: %zu\r\n\r\n", size);
        for (size_t i = 0; i < size; i++)
            text_add_byte(&r, 'b');
        assert_int_equal(status_of(&f, &r), size <= 1000 ? 200 : 413);
        text_clear(&r);
        text_printf(&r, POST "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", size);
        for (size_t i = 0; i < size; i++)
            text_add_byte(&r, 'b');
        text_add(&r, "\r\n0\r\n\r\n");
        assert_int_equal(status_of(&f, &r), size <= 1000 ? 200 : 413);
    }
    front_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_nothing_after_refusal),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
