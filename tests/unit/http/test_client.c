/* The client against our own front, and against peers that misbehave. */
#include "tests/unit/http/front_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/base/work.h"
#include "rpc/http/client.h"

static char pem[] = "/tmp/test_client.XXXXXX";

static void echo(struct http_exchange *ex, void *ctx)
{
    const struct http_request *r = http_request(ex);
    struct text t = TEXT_INIT;

    text_printf(&t, "%s [%s] ", r->path, http_header(r, "x-test") != NULL ? http_header(r, "x-test") : "");
    text_add_len(&t, r->body, r->body_len);
    http_reply(ex, 200, "text/plain", NULL, &t);
}

static bool fill(void *ctx, struct text *out, size_t want)
{
    text_add(out, "0123456789");
    return false;
}
static void chunked(struct http_exchange *ex, void *ctx)
{
    http_reply_stream(ex, 200, NULL, (struct http_producer){ .fill = fill, .length = -1 });
}

static sem_t stuck;
static void hang(struct http_exchange *ex, void *ctx)
{
    struct http_exchange **kept = ctx;

    *kept = ex;
    sem_post(&stuck);
}
static struct http_exchange *hanging;

static void reflect(struct http_exchange *ex, struct byte_stream *s, void *ctx)
{
    char buffer[1000];
    ssize_t got;
    int rc = 0;

    while (rc == 0 && (got = bytes_read(s, buffer, sizeof buffer)) > 0)
        rc = bytes_write(s, buffer, (size_t)got);
    bytes_close(s);
}
static void take(struct http_exchange *ex, void *ctx) { http_takeover(ex, reflect, NULL); }

static const struct http_route routes[] = {
    { "POST", "/", HTTP_BODY_BUFFER, echo, NULL },
    { "POST", "/chunked", HTTP_BODY_BUFFER, chunked, NULL },
    { "POST", "/hang", HTTP_BODY_BUFFER, hang, &hanging },
    { "PUT", "/raw", HTTP_BODY_TAKEOVER, take, NULL },
    { 0 },
};

struct fixture {
    struct front front;
    struct tls_context *tls;
    struct http_client *client;
    struct call call;
    int tls_port;
};

static void fixture_open(struct fixture *x)
{
    int id;

    front_open(&x->front, routes, 2, NULL);
    assert_null(tls_server_context(x->front.arena, pem, &x->tls));
    assert_null(http_listen_tcp(x->front.arena, x->front.server, "127.0.0.1", 0, x->tls, &id, &x->tls_port));
    x->client = http_client_new();
    x->call = (struct call){ .arena = x->front.arena, .clock = &clock_real };
}

static void fixture_close(struct fixture *x)
{
    http_client_free(x->client);
    tls_context_free(x->tls);
    front_close(&x->front);
}

static struct http_target target(struct fixture *x, bool tls)
{
    return (struct http_target){ .address = "127.0.0.1", .port = tls ? x->tls_port : x->front.port, .tls = tls };
}

static int post(struct fixture *x, const struct http_target *t, const char *path, const char *body, struct http_answer *a)
{
    return http_client_post(&x->call, x->client, t, path, "text/xml", "X-Test: yes\r\n", body, strlen(body), 1 << 20, a);
}

static void test_keep_alive(void **state)
{
    struct fixture x;
    struct http_server_stats s;

    fixture_open(&x);
    for (int tls = 0; tls < 2; tls++) {
        struct http_target t = target(&x, tls);
        struct http_answer a;

        for (int i = 0; i < 20; i++) {
            assert_int_equal(post(&x, &t, "/p", "body", &a), 0);
            assert_int_equal(a.status, 200);
            assert_string_equal(a.body, "/p [yes] body");
            assert_int_equal(a.body_len, 13);
            assert_non_null(strstr(a.head, "Content-Type: text/plain"));
            assert_int_equal(post(&x, &t, "/chunked", "", &a), 0);
            assert_string_equal(a.body, "0123456789");
        }
        http_server_stats(x.front.server, &s);
        assert_int_equal(s.connections, 1 + tls); /* one each, reused */
    }
    fixture_close(&x);
}

static void test_pin(void **state)
{
    struct fixture x;
    struct http_answer a;

    fixture_open(&x);
    struct http_target t = target(&x, true);

    assert_null(tls_certificate_fingerprint(x.front.arena, pem, &t.fingerprint, NULL));
    assert_int_equal(post(&x, &t, "/p", "", &a), 0);
    t.fingerprint = "SHA256 00:11";
    assert_int_equal(post(&x, &t, "/p", "", &a), -EKEYREJECTED); /* not over the pooled one */
    fixture_close(&x);
}

static void test_large(void **state)
{
    enum { SIZE = 800 * 1024 };
    struct fixture x;
    struct http_answer a;
    AUTO_TEXT big = TEXT_INIT;

    fixture_open(&x);
    for (int i = 0; i < SIZE; i++)
        text_add_byte(&big, (char)('a' + i % 26));
    for (int tls = 0; tls < 2; tls++) {
        struct http_target t = target(&x, tls);

        assert_int_equal(post(&x, &t, "/", big.bytes, &a), 0);
        assert_int_equal(a.body_len, SIZE + 8);
        assert_string_equal(a.body + 8, big.bytes);
        assert_int_equal(http_client_post(&x.call, x.client, &t, "/", "x", NULL, big.bytes, SIZE, 1000, &a), -EMSGSIZE);
        assert_int_equal(post(&x, &t, "/", "small", &a), 0);
    }
    fixture_close(&x);
}

static void test_refused_and_arguments(void **state)
{
    struct fixture x;
    struct http_answer a;

    fixture_open(&x);
    struct http_target t = target(&x, false), gone = t;
    int id, port;

    assert_null(http_listen_tcp(x.front.arena, x.front.server, "127.0.0.1", 0, NULL, &id, &port));
    http_unlisten(x.front.server, id, true);
    gone.port = port;
    assert_int_equal(post(&x, &gone, "/", "", &a), -ECONNREFUSED);
    assert_int_equal(post(&x, &t, "/a b", "", &a), -EINVAL);
    assert_int_equal(post(&x, &t, "/a\r\nX: y", "", &a), -EINVAL);
    struct http_target unix_target = { .address = "/nonexistent/socket" };

    assert_int_equal(post(&x, &unix_target, "/", "", &a), -ENOENT);
    t.bind_address = "127.0.0.9";
    assert_int_equal(post(&x, &t, "/", "", &a), 0);
    fixture_close(&x);
}

static void *raise_when_stuck(void *arg)
{
    sem_wait(&stuck);
    cancel_raise(arg);
    return NULL;
}

static void *advance_when_stuck(void *arg)
{
    sem_wait(&stuck);
    clock_fake_advance_ms(arg, 10);
    return NULL;
}

static void test_cancel_and_deadline(void **state)
{
    struct fixture x;
    struct http_answer a;
    struct clock_fake clock;

    sem_init(&stuck, 0, 0);
    fixture_open(&x);
    struct http_target t = target(&x, false);

    x.call.cancel = cancel_new();
    pthread_t helper = thread_start("cancel", raise_when_stuck, x.call.cancel);

    assert_int_equal(post(&x, &t, "/hang", "", &a), -ECANCELED);
    pthread_join(helper, NULL);
    http_reply(hanging, 200, NULL, NULL, NULL); /* the client is gone */
    cancel_unref(x.call.cancel);
    x.call.cancel = NULL;
    clock_fake_init(&clock, 0);
    clock_fake_advance_ms(&clock, 1000);
    x.call.clock = &clock.clock;
    x.call.deadline_ms = 999; /* past */
    assert_int_equal(post(&x, &t, "/hang", "", &a), -ETIMEDOUT);
    x.call.deadline_ms = 1005;
    helper = thread_start("advance", advance_when_stuck, &clock);
    assert_int_equal(post(&x, &t, "/hang", "", &a), -ETIMEDOUT);
    pthread_join(helper, NULL);
    http_reply(hanging, 200, NULL, NULL, NULL);
    fixture_close(&x);
}

/* The server closes idle connections: the pooled one is noticed or retried. */
static void test_pooled_connection_died(void **state)
{
    struct fixture x;
    struct http_answer a;

    fixture_open(&x);
    for (int tls = 0; tls < 2; tls++) {
        struct http_target t = target(&x, tls);

        for (int i = 0; i < 10; i++) {
            assert_int_equal(post(&x, &t, "/p", "again", &a), 0);
            assert_string_equal(a.body, "/p [yes] again");
            front_advance(&x.front, 301 * 1000);
        }
    }
    fixture_close(&x);
}

static void test_raw(void **state)
{
    struct fixture x;
    char buffer[100];

    fixture_open(&x);
    for (int tls = 0; tls < 2; tls++) {
        struct http_target t = target(&x, tls);
        struct byte_stream *s;

        assert_int_equal(http_client_raw(&x.call, x.client, &t, "PUT", "/raw?x=1", "Cookie: a=b\r\n", &s), 0);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(bytes_write(s, "ping", 4), 0);
            assert_int_equal(bytes_read_all(s, buffer, 4), 0);
            assert_memory_equal(buffer, "ping", 4);
        }
        assert_int_equal(bytes_finish(s), 0);
        assert_int_equal(bytes_read(s, buffer, 4), 0);
        bytes_close(s);
    }
    fixture_close(&x);
}

/* --- a peer that answers with whatever it is told ---------------------------------------------------- */

struct script { int listener; const char *answers[4]; };

/* For each answer: takes a connection (or goes on with the old one after "+"), reads a head, answers, closes. */
static void *act(void *arg)
{
    struct script *s = arg;
    int fd = -1;

    for (int i = 0; i < 4 && s->answers[i] != NULL; i++) {
        struct wire w = { 0 };
        const char *answer = s->answers[i];

        if (fd < 0)
            fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        w.fd = fd;
        while (w.in.len == 0 || strstr(w.in.bytes, "\r\n\r\n") == NULL)
            if (!wire_more(&w))
                break;
        text_release(&w.in);
        say(fd, answer[0] == '+' ? answer + 1 : answer);
        if (answer[0] != '+') {
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

static int listen_on(int *port_r)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    *port_r = ntohs(a.sin_port);
    return fd;
}

static void test_strange_answers(void **state)
{
    static const struct { const char *answer; int rc, status; const char *body; } cases[] = {
        { "HTTP/1.1 200 OK\r\n\r\nuntil the end", 0, 200, "until the end" },
        { "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 0, 200, "hi" },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 0, 200, "hi" },
        { "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 0, 302, "" },
        { "HTTP/1.1 204 No Content\r\n\r\n", 0, 204, "" },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nhi\r\n0\r\n\r\n", 0, 200, "hi" },
        { "", -ECONNRESET, 0, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", -ECONNRESET, 0, NULL },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", -ECONNRESET, 0, NULL },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", -EPROTO, 0, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", -EPROTO, 0, NULL },
        { "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", -EPROTO, 0, NULL },
        { "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", -EMSGSIZE, 0, NULL },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", -ECONNRESET, 0, NULL },
        { "SSH-2.0-OpenSSH\r\n", -ECONNRESET, 0, NULL },
        { "\x15\x03\x01", -EPROTO, 0, NULL },
    };
    struct fixture x;
    struct http_answer a;
    struct script s = { 0 };
    struct http_target t = { .address = "127.0.0.1" };

    fixture_open(&x);
    s.listener = listen_on(&t.port);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        s.answers[0] = cases[i].answer;
        pthread_t peer = thread_start("peer", act, &s);
        int rc = post(&x, &t, "/", "", &a);

        pthread_join(peer, NULL);
        if (rc != cases[i].rc)
            fail_msg("%zu: %d", i, rc);
        if (rc == 0) {
            assert_int_equal(a.status, cases[i].status);
            assert_string_equal(a.body, cases[i].body);
        }
    }
    close(s.listener);
    fixture_close(&x);
}

#define OK2 "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

/* A kept connection that ends without a byte of answer is tried once more on a fresh one; a fresh one
 * that fails is not, and an answer that began is not. */
static void test_retry(void **state)
{
    struct fixture x;
    struct http_answer a;
    struct script s = { .answers = { "+" OK2 "ab", "", OK2 "cd" } };
    struct http_target t = { .address = "127.0.0.1" };

    fixture_open(&x);
    s.listener = listen_on(&t.port);
    pthread_t peer = thread_start("peer", act, &s);

    assert_int_equal(post(&x, &t, "/", "", &a), 0);
    assert_string_equal(a.body, "ab");
    assert_int_equal(post(&x, &t, "/", "", &a), 0);
    assert_string_equal(a.body, "cd");
    pthread_join(peer, NULL);
    s = (struct script){ .listener = s.listener, .answers = { "+" OK2 "ab", OK2 "c", OK2 "ef" } };
    peer = thread_start("peer", act, &s);
    assert_int_equal(post(&x, &t, "/", "", &a), 0);
    assert_int_equal(post(&x, &t, "/", "", &a), -ECONNRESET);
    assert_int_equal(post(&x, &t, "/", "", &a), 0);
    assert_string_equal(a.body, "ef");
    pthread_join(peer, NULL);
    close(s.listener);
    fixture_close(&x);
}

static int make_certificate(void **state)
{
    AUTO_ARENA a = arena_new();
    static const char *const names[] = { "localhost" };
    int fd = mkstemp(pem);

    if (fd < 0)
        return -1;
    close(fd);
    unlink(pem);
    return tls_make_certificate(a, pem, TLS_KEY_P256, "host", names, 1) != NULL;
}

static int remove_certificate(void **state) { return unlink(pem); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_pin),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_refused_and_arguments),
        cmocka_unit_test(test_cancel_and_deadline),
        cmocka_unit_test(test_pooled_connection_died),
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_strange_answers),
        cmocka_unit_test(test_retry),
    };

    return cmocka_run_group_tests(tests, make_certificate, remove_certificate);
}
