/* TLS: certificates, pins, both versions on both sides, streams in both directions, the front over TLS. */
#include "tests/unit/http/front_fixture.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "rpc/base/bytes.h"
#include "rpc/base/fd.h"
#include "rpc/base/work.h"
#include "rpc/http/tls.h"

static char dir[] = "/tmp/test_tls.XXXXXX";
static char rsa_pem[64], ec_pem[64];

static const char *const names[] = { "localhost", "127.0.0.1", "::1", "pool.example" };

static void echo(struct http_exchange *ex, void *ctx)
{
    const struct http_request *r = http_request(ex);
    struct text t = TEXT_INIT;

    text_printf(&t, "%s tls=%d ", r->path, r->tls);
    text_add_len(&t, r->body, r->body_len);
    http_reply(ex, 200, "text/plain", NULL, &t);
}

static bool fill(void *ctx, struct text *out, size_t want)
{
    int *left = ctx;

    for (size_t i = 0; i < want; i++)
        text_add_byte(out, (char)i);
    return --*left > 0;
}

static void stream(struct http_exchange *ex, void *ctx)
{
    int *left = arena_alloc(http_arena(ex), sizeof *left);

    *left = 40;
    http_reply_stream(ex, 200, NULL, (struct http_producer){ .fill = fill, .ctx = left, .length = 40 * 128 * 1024 });
}

static void reflect(struct http_exchange *ex, struct byte_stream *s, void *ctx)
{
    static _Thread_local char buffer[100000];
    ssize_t got;
    int rc = 0;

    while (rc == 0 && (got = bytes_read(s, buffer, sizeof buffer)) > 0)
        rc = bytes_write(s, buffer, (size_t)got);
    if (rc == 0)
        rc = bytes_finish(s);
    bytes_close(s);
}
static void take(struct http_exchange *ex, void *ctx) { http_takeover(ex, reflect, NULL); }

static const struct http_route routes[] = {
    { "POST", "/", HTTP_BODY_BUFFER, echo, NULL },
    { "GET", "/stream", HTTP_BODY_BUFFER, stream, NULL },
    { "PUT", "/reflect", HTTP_BODY_TAKEOVER, take, NULL },
    { 0 },
};

struct tls_front { struct front front; struct tls_context *server, *client; int port; };

static void tls_front_open(struct tls_front *t, const char *pem)
{
    int id;

    front_open(&t->front, routes, 2, NULL);
    assert_null(tls_server_context(t->front.arena, pem, &t->server));
    assert_null(tls_client_context(t->front.arena, &t->client));
    assert_null(http_listen_tcp(t->front.arena, t->front.server, "127.0.0.1", 0, t->server, &id, &t->port));
}

static void tls_front_close(struct tls_front *t)
{
    tls_context_free(t->server); /* the listener and its sessions hold it */
    front_close(&t->front);
    tls_context_free(t->client);
}

static struct byte_stream *dial(struct tls_front *t, const char *pin)
{
    int error;
    struct byte_stream *s = tls_connect(t->client, front_dial(t->port), "localhost", pin, &error);

    assert_int_equal(error, 0);
    assert_non_null(s);
    return s;
}

/* Reads until the text has 'n' bytes. */
static void read_n(struct byte_stream *s, struct text *out, size_t n)
{
    text_grow(out, n);
    assert_int_equal(bytes_read_all(s, out->bytes + out->len, n), 0);
    out->len += n;
    out->bytes[out->len] = '\0';
}

/* A head and its Content-Length body. */
static void read_answer(struct byte_stream *s, struct text *body)
{
    struct text head = TEXT_INIT;

    while (head.len < 4 || strcmp(head.bytes + head.len - 4, "\r\n\r\n") != 0)
        read_n(s, &head, 1);
    text_clear(body);
    read_n(s, body, strtoul(strstr(head.bytes, "Content-Length: ") + 16, NULL, 10));
    text_release(&head);
}

static void post(struct byte_stream *s, const char *bytes, struct text *body)
{
    struct text r = TEXT_INIT;

    text_printf(&r, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(bytes), bytes);
    assert_int_equal(bytes_write(s, r.bytes, r.len), 0);
    read_answer(s, body);
    text_release(&r);
}

static void test_certificate(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *fingerprint, *again, *pem;
    char path[80];
    struct stat st;

    assert_int_equal(stat(rsa_pem, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_null(tls_certificate_fingerprint(a, rsa_pem, &fingerprint, &pem));
    assert_int_equal(strlen(fingerprint), 7 + 32 * 3 - 1);
    assert_memory_equal(fingerprint, "SHA256 ", 7);
    assert_memory_equal(pem, "-----BEGIN CERTIFICATE-----", 27);
    assert_null(strstr(pem, "PRIVATE"));
    assert_null(tls_make_certificate(a, rsa_pem, TLS_KEY_RSA2048, "other", NULL, 0)); /* exists: kept */
    assert_null(tls_certificate_fingerprint(a, rsa_pem, &again, NULL));
    assert_string_equal(fingerprint, again);
    static const char *const bad[] = { "evil,DNS:other" };

    snprintf(path, sizeof path, "%s/bad.pem", dir);
    assert_non_null(tls_make_certificate(a, path, TLS_KEY_P256, "x", bad, 1));
    assert_int_equal(stat(path, &st), -1);
    assert_non_null(tls_certificate_fingerprint(a, path, &fingerprint, &pem));
    struct tls_context *c;

    assert_non_null(tls_server_context(a, path, &c));
}

/* Our server against a plain OpenSSL client with given versions, groups and ciphers. */
static void handshake_with(int port, int version, const char *groups, const char *ciphers, const char *want_cipher)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    int fd = front_dial(port);

    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set1_groups_list(ctx, groups), 1);
    if (ciphers != NULL)
        assert_int_equal(SSL_CTX_set_cipher_list(ctx, ciphers), 1);
    SSL *ssl = SSL_new(ctx);

    SSL_set_fd(ssl, fd);
    assert_int_equal(SSL_connect(ssl), 1);
    assert_int_equal(SSL_version(ssl), version);
    if (want_cipher != NULL)
        assert_string_equal(SSL_get_cipher(ssl), want_cipher);
    static const char request[] = "POST /q HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    char answer[1000];
    int n = 0, got;

    assert_int_equal(SSL_write(ssl, request, sizeof request - 1), sizeof request - 1);
    while ((got = SSL_read(ssl, answer + n, (int)sizeof answer - 1 - n)) > 0)
        n += got;
    assert_int_equal(SSL_get_error(ssl, got), SSL_ERROR_ZERO_RETURN); /* a clean end */
    answer[n] = '\0';
    assert_non_null(strstr(answer, "/q tls=1 hi"));
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
}

static void test_versions(void **state)
{
    struct tls_front t;

    tls_front_open(&t, rsa_pem);
    /* the genuine xe: TLS 1.2, RSA, secp384r1 */
    handshake_with(t.port, TLS1_2_VERSION, "P-384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384");
    handshake_with(t.port, TLS1_2_VERSION, "P-256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256");
    handshake_with(t.port, TLS1_2_VERSION, "X25519", NULL, NULL);
    handshake_with(t.port, TLS1_3_VERSION, "P-384", NULL, NULL);
    handshake_with(t.port, TLS1_3_VERSION, "X25519", NULL, NULL);
    tls_front_close(&t);
    tls_front_open(&t, ec_pem);
    handshake_with(t.port, TLS1_2_VERSION, "P-256", NULL, NULL);
    handshake_with(t.port, TLS1_3_VERSION, "X25519", NULL, NULL);
    tls_front_close(&t);
}

static void test_old_version_refused(void **state)
{
    struct tls_front t;

    tls_front_open(&t, rsa_pem);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    int fd = front_dial(t.port);

    SSL_CTX_set_security_level(ctx, 0);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION), 1);
    SSL *ssl = SSL_new(ctx);

    SSL_set_fd(ssl, fd);
    assert_int_not_equal(SSL_connect(ssl), 1);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    tls_front_close(&t);
}

static void test_pin(void **state)
{
    struct tls_front t;
    const char *fingerprint, *other;
    struct text body = TEXT_INIT;
    int error = 0;

    tls_front_open(&t, rsa_pem);
    assert_null(tls_certificate_fingerprint(t.front.arena, rsa_pem, &fingerprint, NULL));
    assert_null(tls_certificate_fingerprint(t.front.arena, ec_pem, &other, NULL));
    struct byte_stream *s = dial(&t, fingerprint);

    assert_string_equal(tls_peer_fingerprint(t.front.arena, s), fingerprint);
    post(s, "pinned", &body);
    assert_string_equal(body.bytes, "/p tls=1 pinned");
    bytes_close(s);
    s = dial(&t, fingerprint + 7); /* without the prefix */
    bytes_close(s);
    assert_null(tls_connect(t.client, front_dial(t.port), NULL, other, &error));
    assert_int_equal(error, -EKEYREJECTED);
    assert_null(tls_connect(t.client, front_dial(t.port), NULL, "SHA256", &error));
    assert_int_equal(error, -EKEYREJECTED);
    assert_null(tls_connect(t.client, front_dial(t.front.port), NULL, NULL, &error)); /* a plain port */
    assert_true(error < 0);
    text_release(&body);
    tls_front_close(&t);
}

static void test_keep_alive_and_pipelining(void **state)
{
    struct tls_front t;
    struct text body = TEXT_INIT;

    tls_front_open(&t, rsa_pem);
    struct byte_stream *s = dial(&t, NULL);

    for (int i = 0; i < 50; i++) {
        post(s, "again", &body);
        assert_string_equal(body.bytes, "/p tls=1 again");
    }
    static const char two[] = "POST /1 HTTP/1.1\r\nContent-Length: 1\r\n\r\naPOST /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nb";

    for (size_t i = 0; i < sizeof two - 1; i++) /* a record for each byte */
        assert_int_equal(bytes_write(s, two + i, 1), 0);
    read_answer(s, &body);
    assert_string_equal(body.bytes, "/1 tls=1 a");
    read_answer(s, &body);
    assert_string_equal(body.bytes, "/2 tls=1 b");
    bytes_close(s);
    text_release(&body);
    tls_front_close(&t);
}

static void test_large(void **state)
{
    enum { SIZE = 2 * 1024 * 1024 };
    struct tls_front t;
    struct text body = TEXT_INIT, big = TEXT_INIT;

    tls_front_open(&t, rsa_pem);
    struct byte_stream *s = dial(&t, NULL);

    for (int i = 0; i < SIZE; i++)
        text_add_byte(&big, (char)('a' + i % 26));
    post(s, big.bytes, &body);
    assert_int_equal(body.len, SIZE + 9);
    assert_memory_equal(body.bytes + 9, big.bytes, SIZE);
    static const char get[] = "GET /stream HTTP/1.1\r\n\r\n";

    assert_int_equal(bytes_write(s, get, sizeof get - 1), 0);
    read_answer(s, &body);
    assert_int_equal(body.len, 40 * 128 * 1024);
    for (size_t i = 0; i < body.len; i++)
        if (body.bytes[i] != (char)(i % (128 * 1024)))
            fail_msg("byte %zu", i);
    bytes_close(s);
    text_release(&body);
    text_release(&big);
    tls_front_close(&t);
}

#define REFLECTED (16 * 1024 * 1024)

static void *write_pattern(void *arg)
{
    static char block[256 * 1024];
    struct byte_stream *s = arg;

    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 31);
    for (size_t done = 0; done < REFLECTED; done += sizeof block)
        assert_int_equal(bytes_write(s, block, sizeof block), 0);
    assert_int_equal(bytes_finish(s), 0);
    return NULL;
}

/* One thread writes while another reads, on both ends of the connection's life as a stream. */
static void test_takeover_duplex(void **state)
{
    static const char head[] = "PUT /reflect HTTP/1.0\r\n\r\nearly";
    struct tls_front t;
    static char buffer[50000];
    size_t total = 0;

    tls_front_open(&t, rsa_pem);
    struct byte_stream *s = dial(&t, NULL);

    assert_int_equal(bytes_write(s, head, sizeof head - 1), 0);
    assert_int_equal(bytes_read_all(s, buffer, 5), 0);
    assert_memory_equal(buffer, "early", 5);
    pthread_t writer = thread_start("writer", write_pattern, s);

    for (;;) {
        assert_int_equal(bytes_wait(s, -1, 60000), 1);
        ssize_t got = bytes_read(s, buffer, sizeof buffer);

        assert_true(got >= 0);
        if (got == 0)
            break;
        for (ssize_t i = 0; i < got; i++)
            if (buffer[i] != (char)(((total + (size_t)i) % (256 * 1024)) * 31))
                fail_msg("byte %zu", total + (size_t)i);
        total += (size_t)got;
    }
    assert_int_equal(total, REFLECTED);
    pthread_join(writer, NULL);
    bytes_close(s);
    tls_front_close(&t);
}

static void *read_blocked(void *arg)
{
    char byte;
    ssize_t rc = bytes_read(arg, &byte, 1);

    return (void *)(intptr_t)rc;
}

static void test_abort(void **state)
{
    struct tls_front t;
    void *rc;

    tls_front_open(&t, rsa_pem);
    struct byte_stream *s = dial(&t, NULL);
    pthread_t reader = thread_start("reader", read_blocked, s);

    bytes_abort(s);
    pthread_join(reader, &rc);
    assert_int_equal((intptr_t)rc, -ECONNABORTED);
    assert_int_equal(bytes_write(s, "x", 1), -ECONNABORTED);
    bytes_close(s);
    tls_front_close(&t);
}

/* Garbage, and peers that leave in the handshake. */
static void test_broken_handshakes(void **state)
{
    struct tls_front t;
    struct text body = TEXT_INIT;

    tls_front_open(&t, rsa_pem);
    for (int i = 0; i < 20; i++) {
        struct wire w = { .fd = front_dial(t.port) };

        say(w.fd, i % 2 ? "GET / HTTP/1.1\r\n\r\n" : "\x16\x03\x01");
        if (i % 2)
            while (wire_more(&w))
                ;
        wire_close(&w);
    }
    struct wire slow = { .fd = front_dial(t.port) };
    struct byte_stream *s = dial(&t, NULL);

    char byte;

    do { /* no handshake within the time for a head, counted from when the front saw it */
        front_advance(&t.front, 10 * 1000 + 1);
        post(s, "alive", &body);
    } while (recv(slow.fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    assert_string_equal(body.bytes, "/p tls=1 alive");
    wire_close(&slow);
    bytes_close(s);
    text_release(&body);
    tls_front_close(&t);
}

static int make_certificates(void **state)
{
    AUTO_ARENA a = arena_new();

    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(rsa_pem, sizeof rsa_pem, "%s/rsa.pem", dir);
    snprintf(ec_pem, sizeof ec_pem, "%s/ec.pem", dir);
    return tls_make_certificate(a, rsa_pem, TLS_KEY_RSA2048, "host", names, 4) != NULL ||
           tls_make_certificate(a, ec_pem, TLS_KEY_P256, "host", names, 4) != NULL;
}

static int remove_certificates(void **state)
{
    unlink(rsa_pem);
    unlink(ec_pem);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_old_version_refused),
        cmocka_unit_test(test_pin),
        cmocka_unit_test(test_keep_alive_and_pipelining),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_takeover_duplex),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_broken_handshakes),
    };

    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
