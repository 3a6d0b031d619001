/* Requests and replies over real sockets: what is refused and how, framing, order, limits, streams. */
#include "tests/unit/http/front_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "rpc/base/work.h"

#define GET "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"

/* --- handlers ----------------------------------------------------------------------------------- */

static void echo_text(struct http_exchange *ex, struct text *t)
{
    const struct http_request *r = http_request(ex);

    text_printf(t, "%s %s ", r->method, r->path);
    text_add_len(t, r->body, r->body_len);
}

static void echo(struct http_exchange *ex, void *ctx)
{
    struct text t = TEXT_INIT;

    echo_text(ex, &t);
    http_reply(ex, 200, "text/plain", "X-Extra: 1\r\n", &t);
}

static void *answer_elsewhere(void *arg)
{
    echo(arg, NULL);
    return NULL;
}

static atomic_uint n_threads;
static pthread_t threads[256];

/* Answers from another thread, perhaps before this returns. */
static void later(struct http_exchange *ex, void *ctx)
{
    unsigned i = atomic_fetch_add(&n_threads, 1);

    assert_true(i < 256);
    threads[i] = thread_start("later", answer_elsewhere, ex);
}

static void join_threads(void)
{
    for (unsigned i = 0; i < atomic_load(&n_threads); i++)
        pthread_join(threads[i], NULL);
    atomic_store(&n_threads, 0);
}

static atomic_int releases;
static void count_release(void *ctx) { atomic_fetch_add(&releases, 1); }

static void pieces(struct http_exchange *ex, void *ctx)
{
    static const char a[] = "one,", b[] = "two,", big[100000] = "three";
    struct http_piece p[202];

    for (int i = 0; i < 200; i += 2) {
        p[i] = (struct http_piece){ a, 4 };
        p[i + 1] = (struct http_piece){ b, 4 };
    }
    p[200] = (struct http_piece){ a, 0 };
    p[201] = (struct http_piece){ big, sizeof big };
    http_reply_pieces(ex, 200, "text/plain", p, 202, count_release, NULL);
}

/* A producer of 'total' bytes, each the low byte of its place. */
struct source { uint64_t made, total; };
static _Atomic uint64_t produced;

static bool fill(void *ctx, struct text *out, size_t want)
{
    struct source *s = ctx;
    size_t n = s->total - s->made < want ? (size_t)(s->total - s->made) : want;

    text_grow(out, n);
    for (size_t i = 0; i < n; i++)
        out->bytes[out->len + i] = (char)(s->made + i);
    out->len += n;
    s->made += n;
    atomic_fetch_add(&produced, n);
    return s->made < s->total;
}

static void stream_reply(struct http_exchange *ex, bool with_length)
{
    struct source *s = arena_alloc(http_arena(ex), sizeof *s); /* the arena stays until release */
    const char *n = http_query(http_arena(ex), http_request(ex), "n");

    s->total = strtoull(n, NULL, 10);
    http_reply_stream(ex, 200, "application/octet-stream",
                      (struct http_producer){ .fill = fill, .release = count_release, .ctx = s, .length = with_length ? (int64_t)s->total : -1 });
}

static void stream(struct http_exchange *ex, void *ctx) { stream_reply(ex, false); }
static void stream_length(struct http_exchange *ex, void *ctx) { stream_reply(ex, true); }

static bool fill_short(void *ctx, struct text *out, size_t want)
{
    text_add(out, "short");
    return false;
}

static void stream_short(struct http_exchange *ex, void *ctx)
{
    http_reply_stream(ex, 200, "text/plain", (struct http_producer){ .fill = fill_short, .length = 100 });
}

static void no_content(struct http_exchange *ex, void *ctx) { http_reply(ex, 204, NULL, NULL, NULL); }
static void refused_upload(struct http_exchange *ex, void *ctx) { http_reply(ex, 403, "text/plain", NULL, NULL); }

static const struct http_route routes[] = {
    { "GET", "/", HTTP_BODY_BUFFER, echo, NULL },
    { "POST", "/", HTTP_BODY_BUFFER, echo, NULL },
    { "POST", "/later", HTTP_BODY_BUFFER, later, NULL },
    { "GET", "/pieces", HTTP_BODY_BUFFER, pieces, NULL },
    { "GET", "/stream", HTTP_BODY_BUFFER, stream, NULL },
    { "GET", "/stream-length", HTTP_BODY_BUFFER, stream_length, NULL },
    { "GET", "/stream-short", HTTP_BODY_BUFFER, stream_short, NULL },
    { "OPTIONS", "/", HTTP_BODY_BUFFER, no_content, NULL },
    { "PUT", "/upload", HTTP_BODY_TAKEOVER, refused_upload, NULL },
    { 0 },
};

/* --- what is refused ----------------------------------------------------------------------------- */

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

/* --- framing and order ---------------------------------------------------------------------------- */

static void test_byte_by_byte(void **state)
{
    static const char request[] = "POST /p%41 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
                                  "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    for (size_t i = 0; i < sizeof request - 1; i++) {
        put(w.fd, request + i, 1);
        if (i % 7 == 0)
            front_sync(&f, GET); /* so that it does read in pieces */
    }
    assert_int_equal(wire_answer(&w, &head, &body, false), 200);
    assert_string_equal(body.bytes, "POST /pA hello");
    assert_int_equal(wire_answer(&w, &head, &body, false), 200);
    assert_string_equal(body.bytes, "POST / abc");
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

/* Answers come in the order of the requests, though some are made elsewhere. */
static void test_pipelining(void **state)
{
    enum { N = 100 };
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT, all = TEXT_INIT, want = TEXT_INIT;

    front_open(&f, routes, 2, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    for (int i = 0; i < N; i++)
        text_printf(&all, "POST /%s/%d HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz", i % 2 ? "later" : "now", i);
    put(w.fd, all.bytes, all.len);
    for (int i = 0; i < N; i++) {
        assert_int_equal(wire_answer(&w, &head, &body, false), 200);
        text_clear(&want);
        text_printf(&want, "POST /%s/%d xyz", i % 2 ? "later" : "now", i);
        assert_string_equal(body.bytes, want.bytes);
    }
    wire_close(&w);
    front_close(&f);
    join_threads();
    text_release(&head);
    text_release(&body);
    text_release(&all);
    text_release(&want);
}

/* A large body arrives whole, and a pipelined request behind it is kept. */
static void test_large_body(void **state)
{
    enum { SIZE = 3 * 1024 * 1024 + 17 };
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT, all = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    text_printf(&all, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", SIZE);
    for (int i = 0; i < SIZE; i++)
        text_add_byte(&all, (char)('a' + i % 26));
    text_add(&all, GET);
    put(w.fd, all.bytes, all.len);
    assert_int_equal(wire_answer(&w, &head, &body, false), 200);
    assert_int_equal(body.len, 7 + SIZE);
    for (int i = 0; i < SIZE; i++)
        if (body.bytes[7 + i] != 'a' + i % 26)
            fail_msg("byte %d", i);
    assert_int_equal(wire_answer(&w, &head, &body, false), 200);
    assert_string_equal(body.bytes, "GET /echo ");
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    text_release(&all);
    front_close(&f);
}

static void test_continue(void **state)
{
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, false), 100);
    say(w.fd, "ok");
    assert_int_equal(wire_answer(&w, &head, &body, false), 200);
    assert_string_equal(body.bytes, "POST / ok");
    /* the body came at once: no 100; too large: no 100 either */
    say(w.fd, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok");
    assert_int_equal(wire_answer(&w, &head, &body, false), 200);
    say(w.fd, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, false), 413);
    wire_expect_end(&w);
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

static void test_head_and_204(void **state)
{
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "HEAD /abc HTTP/1.1\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, true), 200);
    assert_non_null(strstr(head.bytes, "Content-Length: 10\r\n")); /* "HEAD /abc " */
    assert_non_null(strstr(head.bytes, "X-Extra: 1\r\n"));
    say(w.fd, "OPTIONS / HTTP/1.1\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, false), 204);
    assert_null(strstr(head.bytes, "Content-Length"));
    say(w.fd, "HEAD /stream?n=10 HTTP/1.1\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, true), 200);
    assert_int_equal(ask(&w, GET, &body), 200); /* nothing stood between */
    assert_string_equal(body.bytes, "GET /echo ");
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

static void test_pieces(void **state)
{
    struct front f;
    struct text body = TEXT_INIT;

    atomic_store(&releases, 0);
    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(&w, "GET /pieces HTTP/1.1\r\n\r\n", &body), 200);
        assert_int_equal(body.len, 800 + 100000);
        assert_memory_equal(body.bytes, "one,two,one,", 12);
        assert_memory_equal(body.bytes + 800, "three", 6);
    }
    struct text head = TEXT_INIT;

    say(w.fd, "HEAD /pieces HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, true), 200);
    wire_expect_end(&w);
    text_release(&head);
    wire_close(&w);
    front_close(&f);
    assert_int_equal(atomic_load(&releases), 4);
    text_release(&body);
}

/* --- streams -------------------------------------------------------------------------------------- */

static void check_bytes(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != (char)i)
            fail_msg("byte %zu", i);
}

/* Undoes the chunked coding of one body in the wire's input; reads as needed. */
static void read_chunked(struct wire *w, struct text *out)
{
    for (;;) {
        char *end;

        while (w->in.len == 0 || (end = strstr(w->in.bytes, "\r\n")) == NULL)
            assert_true(wire_more(w));
        size_t size = strtoul(w->in.bytes, NULL, 16), line = (size_t)(end + 2 - w->in.bytes);

        while (w->in.len < line + size + 2)
            assert_true(wire_more(w));
        text_add_len(out, w->in.bytes + line, size);
        assert_memory_equal(w->in.bytes + line + size, "\r\n", 2);
        wire_drop(w, line + size + 2);
        if (size == 0)
            return;
    }
}

static void test_streams(void **state)
{
    static const size_t sizes[] = { 0, 1, 1000, 128 * 1024, 128 * 1024 + 1, 5 * 1024 * 1024 };
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT, r = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct wire w = { .fd = front_dial(f.port) };

        text_clear(&r);
        text_printf(&r, "GET /stream-length?n=%zu HTTP/1.1\r\n\r\nGET /stream?n=%zu HTTP/1.1\r\n\r\n", sizes[i], sizes[i]);
        put(w.fd, r.bytes, r.len);
        assert_int_equal(wire_answer(&w, &head, &body, false), 200);
        assert_int_equal(body.len, sizes[i]);
        check_bytes(body.bytes, body.len);
        assert_int_equal(wire_answer(&w, &head, &body, false), 200);
        assert_non_null(strstr(head.bytes, "Transfer-Encoding: chunked\r\n"));
        text_clear(&body);
        read_chunked(&w, &body);
        assert_int_equal(body.len, sizes[i]);
        check_bytes(body.bytes, body.len);
        text_clear(&r);
        text_printf(&r, "GET /stream?n=%zu HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", sizes[i]);
        put(w.fd, r.bytes, r.len); /* 1.0: until the end */
        assert_int_equal(wire_answer(&w, &head, &body, false), 200);
        assert_non_null(strstr(head.bytes, "Connection: close\r\n"));
        while (wire_more(&w))
            ;
        assert_int_equal(w.in.len, sizes[i]);
        check_bytes(w.in.bytes, w.in.len);
        wire_close(&w);
    }
    text_release(&head);
    text_release(&body);
    text_release(&r);
    front_close(&f);
}

/* A producer that breaks its promise breaks the connection, so that the client notices. */
static void test_stream_short(void **state)
{
    struct front f;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "GET /stream-short HTTP/1.1\r\n\r\n");
    while (wire_more(&w))
        ;
    assert_non_null(strstr(w.in.bytes, "Content-Length: 100\r\n"));
    wire_close(&w);
    front_close(&f);
}

static int dial_slow(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct timeval patience = { .tv_sec = 60 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small); /* before connect: no large window */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Nothing is made for clients that do not read, beyond a piece and what the kernel takes. */
static void test_back_pressure(void **state)
{
    enum { READERS = 8, TOTAL = 64 * 1024 * 1024 };
    struct front f;
    struct wire w[READERS];
    struct text body = TEXT_INIT, r = TEXT_INIT;

    atomic_store(&produced, 0);
    atomic_store(&releases, 0);
    front_open(&f, routes, 1, NULL);
    text_printf(&r, "GET /stream-length?n=%d HTTP/1.1\r\n\r\n", TOTAL);
    for (int i = 0; i < READERS; i++) {
        w[i] = (struct wire){ .fd = dial_slow(f.port) };
        put(w[i].fd, r.bytes, r.len);
    }
    for (int i = 0; i < 50; i++)
        front_sync(&f, GET); /* the loop lives, and had its chance to make too much */
    assert_true(atomic_load(&produced) < (uint64_t)READERS * 8 * 1024 * 1024);
    for (int i = 0; i < READERS; i++) { /* half of them read to the end, the others leave */
        uint64_t got = 0;

        while (i % 2 == 0 && wire_more(&w[i])) {
            if (got == 0) {
                size_t head = (size_t)(strstr(w[i].in.bytes, "\r\n\r\n") + 4 - w[i].in.bytes);

                wire_drop(&w[i], head);
            }
            for (size_t k = 0; k < w[i].in.len; k += 997)
                assert_int_equal(w[i].in.bytes[k], (char)(got + k));
            got += w[i].in.len;
            text_clear(&w[i].in);
            if (got == TOTAL)
                break;
        }
        wire_close(&w[i]);
    }
    front_close(&f);
    assert_int_equal(atomic_load(&releases), READERS);
    text_release(&body);
    text_release(&r);
}

/* --- deadlines, limits, closing --------------------------------------------------------------------- */

static void test_slow_head_and_body(void **state)
{
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire idle = { .fd = front_dial(f.port) }, h = { .fd = front_dial(f.port) }, b = { .fd = front_dial(f.port) };

    say(h.fd, "GET / HT");
    say(b.fd, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n");
    front_sync(&f, GET);
    front_advance(&f, 9000);
    say(h.fd, "TP/1.1\r\n"); /* does not help */
    say(b.fd, "a");          /* does */
    front_sync(&f, GET);
    front_advance(&f, 1500);
    assert_int_equal(wire_answer(&h, &head, &body, false), 408);
    wire_expect_end(&h);
    front_advance(&f, 28000);
    say(b.fd, "b");
    front_sync(&f, GET);
    front_advance(&f, 29000);
    say(b.fd, "c");
    front_sync(&f, GET);
    front_advance(&f, 30500);
    assert_int_equal(wire_answer(&b, &head, &body, false), 408);
    wire_expect_end(&b);
    front_advance(&f, 300 * 1000);
    wire_expect_end(&idle); /* silently */
    wire_close(&idle);
    wire_close(&h);
    wire_close(&b);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

static void test_connection_limit(void **state)
{
    struct http_limits limits = { .connections = 3 };
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, &limits);
    struct wire w[3], extra;

    for (int i = 0; i < 3; i++) {
        w[i] = (struct wire){ .fd = front_dial(f.port) };
        assert_int_equal(ask(&w[i], GET, &body), 200);
    }
    for (int i = 0; i < 5; i++) {
        extra = (struct wire){ .fd = front_dial(f.port) };
        say(extra.fd, GET);
        assert_int_equal(wire_answer(&extra, &head, &body, false), 503);
        wire_expect_end(&extra);
        wire_close(&extra);
    }
    shutdown(w[0].fd, SHUT_WR);
    wire_expect_end(&w[0]);
    extra = (struct wire){ .fd = front_dial(f.port) };
    assert_int_equal(ask(&extra, GET, &body), 200); /* there is room again */
    wire_close(&extra);
    for (int i = 0; i < 3; i++)
        wire_close(&w[i]);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

static void test_address_limit(void **state)
{
    struct http_limits limits = { .per_address = 2 };
    struct front f;
    struct text body = TEXT_INIT;

    front_open(&f, routes, 2, &limits);
    struct wire a = { .fd = front_dial(f.port) }, b = { .fd = front_dial(f.port) };

    assert_int_equal(ask(&a, GET, &body), 200);
    assert_int_equal(ask(&b, GET, &body), 200);
    struct wire c = { .fd = front_dial(f.port) };

    assert_int_equal(ask(&c, GET, &body), 503);
    wire_close(&a);
    wire_close(&b);
    wire_close(&c);
    text_release(&body);
    front_close(&f);
}

static void test_unlisten(void **state)
{
    struct front f;
    struct text body = TEXT_INIT, head = TEXT_INIT;
    int second, port;

    front_open(&f, routes, 2, NULL);
    assert_null(http_listen_tcp(f.arena, f.server, "127.0.0.1", 0, NULL, &second, &port));
    struct wire kept = { .fd = front_dial(f.port) }, cut = { .fd = front_dial(port) }, busy = { .fd = front_dial(f.port) };

    assert_int_equal(ask(&kept, GET, &body), 200);
    assert_int_equal(ask(&cut, GET, &body), 200);
    say(busy.fd, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_int_equal(wire_answer(&busy, &head, &body, false), 100);
    http_unlisten(f.server, second, true);
    wire_expect_end(&cut);
    assert_int_equal(ask(&kept, GET, &body), 200);
    http_unlisten(f.server, f.id, false); /* idle ones end, one in the middle is served, and then ends */
    wire_expect_end(&kept);
    say(busy.fd, "ok");
    assert_int_equal(wire_answer(&busy, &head, &body, false), 200);
    assert_non_null(strstr(head.bytes, "Connection: close\r\n"));
    wire_expect_end(&busy);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)f.port) };

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    int again;

    assert_null(http_listen_tcp(f.arena, f.server, "127.0.0.1", f.port, NULL, &again, NULL)); /* at once */
    struct wire fresh = { .fd = front_dial(f.port) };

    assert_int_equal(ask(&fresh, GET, &body), 200);
    wire_close(&fresh);
    wire_close(&kept);
    wire_close(&cut);
    wire_close(&busy);
    text_release(&body);
    text_release(&head);
    front_close(&f);
}

static void who(struct http_exchange *ex, void *ctx)
{
    const struct http_request *r = http_request(ex);
    struct text t = TEXT_INIT;

    text_printf(&t, "%s %d %u", r->peer, r->unix_socket, r->uid);
    http_reply(ex, 200, NULL, NULL, &t);
}

static void test_unix_socket(void **state)
{
    static const struct http_route who_routes[] = { { "GET", "/", HTTP_BODY_BUFFER, who, NULL }, { 0 } };
    struct front f;
    char dir[] = "/tmp/test_front.XXXXXX", path[64], want[64];
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct text body = TEXT_INIT;
    struct stat st;
    int id;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/sock", dir);
    front_open(&f, who_routes, 1, NULL);
    assert_null(http_listen_unix(f.arena, f.server, path, &id));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    memcpy(a.sun_path, path, strlen(path));
    struct wire w = { .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };

    assert_int_equal(connect(w.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(ask(&w, GET, &body), 200);
    snprintf(want, sizeof want, "unix 1 %u", (unsigned)getuid());
    assert_string_equal(body.bytes, want);
    struct wire tcp = { .fd = front_dial(f.port) };

    assert_int_equal(ask(&tcp, GET, &body), 200);
    assert_string_equal(body.bytes, "127.0.0.1 0 0");
    wire_close(&tcp);
    wire_close(&w);
    text_release(&body);
    front_close(&f);
    assert_int_equal(stat(path, &st), -1); /* removed */
    rmdir(dir);
}

static void test_listen_errors(void **state)
{
    struct front f;
    int id, port;

    front_open(&f, routes, 1, NULL);
    assert_non_null(http_listen_tcp(f.arena, f.server, "127.0.0.1", f.port, NULL, &id, &port)); /* taken */
    assert_non_null(http_listen_tcp(f.arena, f.server, "no address", 0, NULL, &id, &port));
    assert_non_null(http_listen_unix(f.arena, f.server, "/nonexistent/dir/sock", &id));
    assert_null(http_listen_tcp(f.arena, f.server, "127.0.1.7", 0, NULL, &id, &port));
    assert_null(http_listen_tcp(f.arena, f.server, "[::1]", 0, NULL, &id, &port));
    front_close(&f);
}

/* Stopping with idle, half-sent, streaming and working connections. */
static void test_stop_with_open_connections(void **state)
{
    struct front f;
    struct wire w[40];

    front_open(&f, routes, 2, NULL);
    for (int i = 0; i < 40; i++) {
        static const char *const starts[] = { "", "GET / HT", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
                                              "GET /stream-length?n=99999999 HTTP/1.1\r\n\r\n", "POST /later HTTP/1.1\r\n\r\n" };

        w[i] = (struct wire){ .fd = front_dial(f.port) };
        say(w[i].fd, starts[i % 5]);
    }
    front_sync(&f, GET);
    front_close(&f);
    join_threads();
    for (int i = 0; i < 40; i++) {
        while (wire_more(&w[i]))
            ;
        wire_close(&w[i]);
    }
}

/* Clients that leave while a handler works: the reply is dropped. */
static void test_client_gone_before_reply(void **state)
{
    struct front f;

    front_open(&f, routes, 2, NULL);
    for (int i = 0; i < 60; i++) {
        struct linger reset = { .l_onoff = 1 };
        int fd = front_dial(f.port);

        say(fd, "POST /later HTTP/1.1\r\nContent-Length: 1\r\n\r\nx");
        if (i % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    front_sync(&f, GET);
    front_close(&f);
    join_threads();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_nothing_after_refusal),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_head_and_204),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_stream_short),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_slow_head_and_body),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_address_limit),
        cmocka_unit_test(test_unlisten),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_listen_errors),
        cmocka_unit_test(test_stop_with_open_connections),
        cmocka_unit_test(test_client_gone_before_reply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
