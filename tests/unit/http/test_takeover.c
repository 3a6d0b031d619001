/* Connections that leave the server: early bytes, duplex, 100-continue, aborting, bodies to the end. */
#include "tests/unit/http/front_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/base/bytes.h"
#include "rpc/base/work.h"

static sem_t ran;
static atomic_int result;

/* Reads to the end, then says how much it was and its sum. */
static void swallow(struct http_exchange *ex, struct byte_stream *s, void *ctx)
{
    char buffer[10000], line[128];
    uint64_t n = 0, sum = 0;
    ssize_t got;

    while ((got = bytes_read(s, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < got; i++)
            sum += (unsigned char)buffer[i];
        n += (uint64_t)got;
    }
    snprintf(line, sizeof line, "%s %llu %llu %d", http_request(ex)->path, (unsigned long long)n, (unsigned long long)sum, got == 0);
    int rc = http_write_head(s, 200, "Connection: close\r\n");

    if (rc == 0)
        rc = bytes_write(s, line, strlen(line));
    atomic_store(&result, rc);
    bytes_close(s);
    sem_post(&ran);
}

static void swallow_body(struct http_exchange *ex, struct byte_stream *s, void *ctx) { swallow(ex, http_body_stream(ex, s), ctx); }

/* Sends back what comes, upper-cased, without any head, while it comes. */
static void converse(struct http_exchange *ex, struct byte_stream *s, void *ctx)
{
    char buffer[512];
    ssize_t got;
    int rc = 0;

    while (rc == 0 && (got = bytes_read(s, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < got; i++)
            if (buffer[i] >= 'a' && buffer[i] <= 'z')
                buffer[i] = (char)(buffer[i] - 32);
        rc = bytes_write(s, buffer, (size_t)got);
    }
    atomic_store(&result, (int)got);
    bytes_close(s);
    sem_post(&ran);
}

static void take(struct http_exchange *ex, void *ctx) { http_takeover(ex, strstr(http_request(ex)->path, "talk") ? converse : swallow, NULL); }

static void *take_elsewhere(void *arg)
{
    take(arg, NULL);
    return NULL;
}
static pthread_t thread;
static void take_later(struct http_exchange *ex, void *ctx) { thread = thread_start("take", take_elsewhere, ex); }

static struct byte_stream *kept;
static void keep(struct http_exchange *ex, struct byte_stream *s, void *ctx)
{
    kept = s;
    sem_post(&ran);
}
static void take_and_keep(struct http_exchange *ex, void *ctx) { http_takeover(ex, keep, NULL); }

static void take_body(struct http_exchange *ex, void *ctx) { http_takeover(ex, swallow_body, NULL); }

static void now(struct http_exchange *ex, void *ctx) { http_reply(ex, 200, "text/plain", NULL, NULL); }

static const struct http_route routes[] = {
    { "PUT", "/", HTTP_BODY_TAKEOVER, take, NULL },
    { "POST", "/talk", HTTP_BODY_TAKEOVER, take, NULL },
    { "CONNECT", "/talk", HTTP_BODY_TAKEOVER, take, NULL },
    { "POST", "/buffered", HTTP_BODY_BUFFER, take, NULL },
    { "PUT", "/later", HTTP_BODY_TAKEOVER, take_later, NULL },
    { "PUT", "/body", HTTP_BODY_TAKEOVER, take_body, NULL },
    { "PUT", "/keep", HTTP_BODY_TAKEOVER, take_and_keep, NULL },
    { "GET", "/", HTTP_BODY_BUFFER, now, NULL },
    { 0 },
};

static int setup(void **state)
{
    atomic_store(&result, 12345);
    return sem_init(&ran, 0, 0);
}

static void read_all(struct wire *w)
{
    while (wire_more(w))
        ;
}

static void expect_body(struct wire *w, const char *want)
{
    read_all(w);
    assert_memory_equal(w->in.bytes, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 38);
    assert_string_equal(w->in.bytes + 38, want);
    sem_wait(&ran);
    assert_int_equal(atomic_load(&result), 0);
}

static void test_early_bytes_and_end(void **state)
{
    struct front f;

    front_open(&f, routes, 2, NULL);
    static const char *const requests[] = { "PUT /x HTTP/1.0\r\n\r\nabc", "PUT /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
                                            "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\n\r\nabc", "PUT /later HTTP/1.0\r\n\r\nabc",
                                            "POST /buffered HTTP/1.1\r\nContent-Length: 2\r\n\r\n\r\nabc" };

    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        struct wire w = { .fd = front_dial(f.port) };
        char want[64];

        say(w.fd, requests[i]);
        front_sync(&f, "GET / HTTP/1.1\r\n\r\n");
        say(w.fd, "def");
        shutdown(w.fd, SHUT_WR);
        snprintf(want, sizeof want, "%s 6 597 1", i == 3 ? "/later" : i == 4 ? "/buffered" : "/x");
        expect_body(&w, want);
        wire_close(&w);
        if (i == 3)
            pthread_join(thread, NULL);
    }
    front_close(&f);
}

static void test_large_put(void **state)
{
    enum { SIZE = 20 * 1024 * 1024 };
    struct front f;
    static char block[65536];
    char want[64];
    uint64_t sum = 0;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 7);
    for (size_t i = 0; i < sizeof block; i++)
        sum += (unsigned char)block[i];
    say(w.fd, "PUT /big HTTP/1.0\r\n\r\n");
    for (int i = 0; i < SIZE / 65536; i++)
        put(w.fd, block, sizeof block);
    shutdown(w.fd, SHUT_WR);
    snprintf(want, sizeof want, "/big %d %llu 1", SIZE, (unsigned long long)(sum * (SIZE / 65536)));
    expect_body(&w, want);
    wire_close(&w);
    front_close(&f);
}

/* http_body_stream gives the body alone, whatever its framing; the client need not end the stream. */
static void test_body_stream(void **state)
{
    static const struct { const char *head, *body; bool ends; const char *want; } cases[] = {
        { "Content-Length: 6\r\n", "abcdefGARBAGE", false, "/body 6 597 1" },
        { "Content-Length: 0\r\n", "", false, "/body 0 0 1" },
        { "Content-Length: 6\r\n", "abc", true, "/body 3 294 0" },
        { "Content-Length: 1125899906842624\r\n", "abcdef", true, "/body 6 597 1" },
        { "", "abcdef", true, "/body 6 597 1" },
        { "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n3;x\r\ndef\r\n0\r\n\r\nGARBAGE", false, "/body 6 597 1" },
        { "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\nzz\r\n", false, "/body 3 294 0" },
        { "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n3\r\n", true, "/body 3 294 0" },
    };
    struct front f;

    front_open(&f, routes, 1, NULL);
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        struct wire w = { .fd = front_dial(f.port) };
        struct text r = TEXT_INIT;

        text_printf(&r, "PUT /body HTTP/1.1\r\n%s\r\n", cases[i / 2].head);
        put(w.fd, r.bytes, r.len);
        if (i % 2) /* the body apart from the head */
            front_sync(&f, "GET / HTTP/1.1\r\n\r\n");
        say(w.fd, cases[i / 2].body);
        if (cases[i / 2].ends)
            shutdown(w.fd, SHUT_WR);
        expect_body(&w, cases[i / 2].want);
        wire_close(&w);
        text_release(&r);
    }
    front_close(&f);
}

/* Both directions at once; no head; POST for the xe protocol, CONNECT for consoles. */
static void test_duplex(void **state)
{
    struct front f;

    front_open(&f, routes, 1, NULL);
    for (int i = 0; i < 2; i++) {
        struct wire w = { .fd = front_dial(f.port) };

        say(w.fd, i == 0 ? "POST /talk HTTP/1.0\r\n\r\nfirst" : "CONNECT /talk?ref=1 HTTP/1.0\r\n\r\nfirst");
        while (w.in.len < 5)
            assert_true(wire_more(&w));
        assert_string_equal(w.in.bytes, "FIRST");
        wire_drop(&w, 5);
        for (int k = 0; k < 100; k++) {
            say(w.fd, "line\n");
            while (w.in.len < 5)
                assert_true(wire_more(&w));
            assert_string_equal(w.in.bytes, "LINE\n");
            wire_drop(&w, 5);
        }
        shutdown(w.fd, SHUT_WR);
        wire_expect_end(&w);
        sem_wait(&ran);
        wire_close(&w);
    }
    front_close(&f);
}

static void test_continue(void **state)
{
    struct front f;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_int_equal(wire_answer(&w, &head, &body, false), 100);
    say(w.fd, "abc");
    shutdown(w.fd, SHUT_WR);
    expect_body(&w, "/x 3 294 1");
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

/* Freeing the server aborts streams that wait for their clients, and waits for their threads. */
static void test_stop_aborts(void **state)
{
    enum { N = 20 };
    struct front f;
    struct wire w[N];

    front_open(&f, routes, 2, NULL);
    for (int i = 0; i < N; i++) {
        w[i] = (struct wire){ .fd = front_dial(f.port) };
        say(w[i].fd, "POST /talk HTTP/1.0\r\n\r\nhi");
        while (w[i].in.len < 2)
            assert_true(wire_more(&w[i]));
    }
    struct http_server_stats s;

    http_server_stats(f.server, &s);
    assert_int_equal(s.connections, N); /* they still count */
    front_close(&f);
    assert_int_equal(atomic_load(&result), -ECONNABORTED);
    for (int i = 0; i < N; i++) {
        read_all(&w[i]);
        wire_close(&w[i]);
    }
}

static void test_unlisten_cuts(void **state)
{
    struct front f;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "POST /talk HTTP/1.0\r\n\r\nhi");
    while (w.in.len < 2)
        assert_true(wire_more(&w));
    http_unlisten(f.server, f.id, true);
    sem_wait(&ran);
    assert_int_equal(atomic_load(&result), -ECONNABORTED);
    read_all(&w);
    wire_close(&w);
    front_close(&f);
}

/* A stream may outlive its thread and even the server. */
static void test_stream_outlives(void **state)
{
    struct front f;
    char byte;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "PUT /keep HTTP/1.0\r\n\r\nx");
    sem_wait(&ran);
    assert_int_equal(bytes_read(kept, &byte, 1), 1);
    front_close(&f);
    assert_int_equal(bytes_read(kept, &byte, 1), -ECONNABORTED);
    bytes_close(kept);
    read_all(&w);
    wire_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_early_bytes_and_end, setup),
        cmocka_unit_test_setup(test_large_put, setup),
        cmocka_unit_test_setup(test_body_stream, setup),
        cmocka_unit_test_setup(test_duplex, setup),
        cmocka_unit_test_setup(test_continue, setup),
        cmocka_unit_test_setup(test_stop_aborts, setup),
        cmocka_unit_test_setup(test_unlisten_cuts, setup),
        cmocka_unit_test_setup(test_stream_outlives, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
