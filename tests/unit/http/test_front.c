/* Requests and replies over real sockets: framing, order, deadlines, quotas, listeners, closing. */
#include "tests/unit/http/front_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "rpc/base/work.h"

#define GET "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"

/* --- handlers ----------------------------------------------------------------------------------- */

static void *answer_elsewhere(void *arg)
{
    front_echo(arg, NULL);
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

static bool fill_zeros(void *ctx, struct text *out, size_t want)
{
    text_grow(out, want);
    memset(out->bytes + out->len, 0, want);
    out->len += want;
    return true;
}

static void endless(struct http_exchange *ex, void *ctx)
{
    http_reply_stream(ex, 200, NULL, (struct http_producer){ .fill = fill_zeros, .length = -1 });
}

static void no_content(struct http_exchange *ex, void *ctx) { http_reply(ex, 204, NULL, NULL, NULL); }

static const struct http_route routes[] = {
    { "GET", "/", HTTP_BODY_BUFFER, front_echo, NULL },
    { "POST", "/", HTTP_BODY_BUFFER, front_echo, NULL },
    { "POST", "/later", HTTP_BODY_BUFFER, later, NULL },
    { "GET", "/endless", HTTP_BODY_BUFFER, endless, NULL },
    { "OPTIONS", "/", HTTP_BODY_BUFFER, no_content, NULL },
    { 0 },
};

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
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    front_close(&f);
}

/* --- deadlines, limits, closing --------------------------------------------------------------------- */

/* A front on a unix socket, whose bytes arrive while send() runs (TCP over loopback may be late). With one
 * thread, what was sent before a request on an old connection has been read when the request after it
 * is answered: the first may come before others of the same turn. */
struct prompt { struct front front; char dir[32], path[48]; struct wire control; };

static int prompt_dial(struct prompt *p)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct timeval patience = { .tv_sec = 60 };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, p->path, strlen(p->path));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void prompt_open(struct prompt *p)
{
    int id;

    front_open(&p->front, routes, 1, NULL);
    snprintf(p->dir, sizeof p->dir, "/tmp/test_front.XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof p->path, "%s/sock", p->dir);
    assert_null(http_listen_unix(p->front.arena, p->front.server, p->path, &id));
    p->control = (struct wire){ .fd = prompt_dial(p) };
}

static void prompt_close(struct prompt *p)
{
    wire_close(&p->control);
    front_close(&p->front);
    rmdir(p->dir);
}

/* What was sent so far has been read; then the time passes. */
static void prompt_advance(struct prompt *p, int64_t ms)
{
    struct text body = TEXT_INIT;

    assert_int_equal(ask(&p->control, GET, &body), 200);
    assert_int_equal(ask(&p->control, GET, &body), 200);
    text_release(&body);
    front_advance(&p->front, ms);
}

static void test_slow_head(void **state)
{
    struct prompt p;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    prompt_open(&p);
    struct wire idle = { .fd = prompt_dial(&p) }, w = { .fd = prompt_dial(&p) };

    say(w.fd, "GET / HT");
    prompt_advance(&p, 9000);
    say(w.fd, "TP/1.1\r\n"); /* does not help */
    prompt_advance(&p, 1500);
    assert_int_equal(wire_answer(&w, &head, &body, false), 408);
    wire_expect_end(&w);
    prompt_advance(&p, 300 * 1000);
    wire_expect_end(&idle); /* silently */
    wire_close(&idle);
    wire_close(&w);
    text_release(&head);
    text_release(&body);
    prompt_close(&p);
}

static void test_slow_body(void **state)
{
    struct prompt p;
    struct text head = TEXT_INIT, body = TEXT_INIT;

    prompt_open(&p);
    struct wire w = { .fd = prompt_dial(&p) }, done = { .fd = prompt_dial(&p) };

    say(w.fd, "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n");
    say(done.fd, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n");
    for (int i = 0; i < 5; i++) { /* each byte gives it 30 s more */
        prompt_advance(&p, 29000);
        say(w.fd, "x");
        say(done.fd, "x");
    }
    prompt_advance(&p, 30500);
    assert_int_equal(wire_answer(&w, &head, &body, false), 408);
    wire_expect_end(&w);
    assert_int_equal(wire_answer(&done, &head, &body, false), 200);
    wire_close(&w);
    wire_close(&done);
    text_release(&head);
    text_release(&body);
    prompt_close(&p);
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

    front_open(&f, routes, 1, NULL); /* one thread: what one connection saw holds for the others */
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

static void test_unlisten_cuts_all(void **state)
{
    struct front f;
    struct wire w[30];
    struct text body = TEXT_INIT;

    front_open(&f, routes, 3, NULL);
    for (int i = 0; i < 30; i++) {
        w[i] = (struct wire){ .fd = front_dial(f.port) };
        assert_int_equal(ask(&w[i], GET, &body), 200);
        if (i % 2)
            say(w[i].fd, "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc");
    }
    http_unlisten(f.server, f.id, true);
    for (int i = 0; i < 30; i++) {
        wire_expect_end(&w[i]);
        wire_close(&w[i]);
    }
    text_release(&body);
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
                                              "GET /endless HTTP/1.1\r\n\r\n", "POST /later HTTP/1.1\r\n\r\n" };

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
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_pipelining),
        cmocka_unit_test(test_large_body),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_head_and_204),
        cmocka_unit_test(test_slow_head),
        cmocka_unit_test(test_slow_body),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_address_limit),
        cmocka_unit_test(test_unlisten),
        cmocka_unit_test(test_unlisten_cuts_all),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_listen_errors),
        cmocka_unit_test(test_stop_with_open_connections),
        cmocka_unit_test(test_client_gone_before_reply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
