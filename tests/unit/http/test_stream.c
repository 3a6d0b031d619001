/* Replies in pieces and streams: their bytes, their framing, and readers that do not read. */
#include "tests/unit/http/front_fixture.h"

#include <stdatomic.h>

#define GET "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"

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

static const struct http_route routes[] = {
    { "GET", "/", HTTP_BODY_BUFFER, front_echo, NULL },
    { "GET", "/pieces", HTTP_BODY_BUFFER, pieces, NULL },
    { "GET", "/stream", HTTP_BODY_BUFFER, stream, NULL },
    { "GET", "/stream-length", HTTP_BODY_BUFFER, stream_length, NULL },
    { "GET", "/stream-short", HTTP_BODY_BUFFER, stream_short, NULL },
    { 0 },
};

static void test_head_of_stream(void **state)
{
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_of_stream), cmocka_unit_test(test_pieces),        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_stream_short),   cmocka_unit_test(test_back_pressure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
