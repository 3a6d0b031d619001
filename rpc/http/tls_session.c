#include "rpc/http/tls_session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/http/tls_private.h"

#define BULK_READ (128u * 1024)

struct tls_session {
    SSL *ssl;
    int fd;
    bool server;
    bool drained; /* the last read of the socket took all there was */
    bool broken;  /* nothing may be sent any more, not even close_notify */
};

/* --- the BIO: send and recv without SIGPIPE --------------------------------------------------------- */

static int bio_write(BIO *b, const char *bytes, int n)
{
    const struct tls_session *s = BIO_get_data(b);
    ssize_t put;

    BIO_clear_retry_flags(b);
    do
        put = send(s->fd, bytes, (size_t)n, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    if (put < 0 && errno == EAGAIN)
        BIO_set_retry_write(b);
    return (int)put;
}

static int bio_read(BIO *b, char *bytes, int n)
{
    struct tls_session *s = BIO_get_data(b);
    ssize_t got;

    BIO_clear_retry_flags(b);
    do
        got = recv(s->fd, bytes, (size_t)n, 0);
    while (got < 0 && errno == EINTR);
    s->drained = got < n;
    if (got < 0 && errno == EAGAIN)
        BIO_set_retry_read(b);
    if (got == 0)
        BIO_set_flags(b, BIO_FLAGS_IN_EOF);
    return (int)got;
}

static long bio_ctrl(BIO *b, int command, long number, void *ptr)
{
    if (command == BIO_CTRL_EOF)
        return BIO_test_flags(b, BIO_FLAGS_IN_EOF) != 0;
    return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *b)
{
    BIO_set_init(b, 1);
    return 1;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    CHECK(method != NULL && BIO_meth_set_write(method, bio_write) == 1 && BIO_meth_set_read(method, bio_read) == 1 &&
          BIO_meth_set_ctrl(method, bio_ctrl) == 1 && BIO_meth_set_create(method, bio_create) == 1);
}

/* --- sessions --------------------------------------------------------------------------------------- */

static bool is_address(const char *name)
{
    struct in6_addr any;

    return inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1;
}

struct tls_session *tls_session_new(struct tls_context *c, int fd, const char *server_name)
{
    struct tls_session *s = xcalloc(1, sizeof *s);
    BIO *bio;

    pthread_once(&method_once, make_method);
    s->fd = fd;
    s->server = c->server;
    s->ssl = SSL_new(c->ctx);
    bio = s->ssl != NULL ? BIO_new(method) : NULL;
    if (bio == NULL) {
        tls_session_free(s);
        return NULL;
    }
    BIO_set_data(bio, s);
    SSL_set_bio(s->ssl, bio, bio);
    if (c->server)
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
    if (server_name != NULL && !is_address(server_name))
        SSL_set_tlsext_host_name(s->ssl, server_name);
    return s;
}

void tls_session_free(struct tls_session *s)
{
    if (s == NULL)
        return;
    SSL_free(s->ssl);
    xfree(s);
}

/* Why a call did not go through: -EAGAIN with *events_r, 0 at the end, or -errno. */
static int reason(struct tls_session *s, int rc, short *events_r)
{
    int saved = errno;

    switch (SSL_get_error(s->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        *events_r = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        *events_r = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        s->broken = true;
        return saved != 0 ? -saved : -ECONNRESET;
    default:
        s->broken = true;
        return -EPROTO;
    }
}

int tls_session_handshake(struct tls_session *s, short *events_r)
{
    ERR_clear_error();
    errno = 0;
    int rc = SSL_do_handshake(s->ssl);

    if (rc == 1)
        return 0;
    rc = reason(s, rc, events_r);
    return rc != 0 ? rc : -ECONNRESET;
}

ssize_t tls_session_read(struct tls_session *s, void *buffer, size_t n, short *events_r)
{
    size_t total = 0;

    while (total < n) {
        size_t got;

        ERR_clear_error();
        errno = 0;
        int rc = SSL_read_ex(s->ssl, (char *)buffer + total, n - total, &got);

        if (rc == 1) {
            total += got;
            if (!SSL_has_pending(s->ssl))
                break; /* the next record would need the socket */
            continue;
        }
        if (total > 0) /* an error shows again at the next call */
            break;
        return reason(s, rc, events_r);
    }
    return (ssize_t)total;
}

ssize_t tls_session_write(struct tls_session *s, const void *bytes, size_t n, short *events_r)
{
    size_t put;

    ERR_clear_error();
    errno = 0;
    int rc = SSL_write_ex(s->ssl, bytes, n, &put);

    if (rc == 1)
        return (ssize_t)put;
    rc = reason(s, rc, events_r);
    return rc != 0 ? rc : -EPIPE;
}

size_t tls_session_pending(struct tls_session *s)
{
    int n = SSL_pending(s->ssl);
    char byte;
    size_t got;

    if (n == 0 && SSL_has_pending(s->ssl)) { /* read ahead, but perhaps not a whole record */
        ERR_clear_error();
        if (SSL_peek_ex(s->ssl, &byte, 1, &got) == 1)
            n = SSL_pending(s->ssl);
    }
    return n > 0 ? (size_t)n : 0;
}

bool tls_session_drained(struct tls_session *s) { return s->drained && !SSL_has_pending(s->ssl); }

void tls_session_close_notify(struct tls_session *s)
{
    if (s->broken || !SSL_is_init_finished(s->ssl))
        return;
    ERR_clear_error();
    SSL_shutdown(s->ssl);
    ERR_clear_error();
}

void tls_session_bulk(struct tls_session *s) { SSL_set_default_read_buffer_len(s->ssl, BULK_READ); }

/* --- who the peer is -------------------------------------------------------------------------------- */

bool tls_fingerprint(const X509 *cert, char out[FINGERPRINT_SIZE])
{
    static const char digits[] = "0123456789ABCDEF";
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len;

    if (X509_digest(cert, EVP_sha256(), digest, &len) != 1 || len != 32)
        return false;
    memcpy(out, "SHA256 ", 7);
    for (unsigned i = 0; i < len; i++) {
        out[7 + 3 * i] = digits[digest[i] >> 4];
        out[8 + 3 * i] = digits[digest[i] & 15];
        out[9 + 3 * i] = i + 1 < len ? ':' : '\0';
    }
    return true;
}

static bool peer_fingerprint(struct tls_session *s, char out[FINGERPRINT_SIZE])
{
    X509 *cert = SSL_get1_peer_certificate(s->ssl);
    bool ok = cert != NULL && tls_fingerprint(cert, out);

    X509_free(cert);
    return ok;
}

bool tls_session_peer_is(struct tls_session *s, const char *fingerprint)
{
    char actual[FINGERPRINT_SIZE];

    if (!peer_fingerprint(s, actual))
        return false;
    if (strncasecmp(fingerprint, "SHA256", 6) == 0)
        fingerprint += 6 + strspn(fingerprint + 6, " :=");
    return strcasecmp(fingerprint, actual + 7) == 0;
}

const char *tls_session_peer_fingerprint(struct tls_session *s, struct arena *arena)
{
    char actual[FINGERPRINT_SIZE];

    return peer_fingerprint(s, actual) ? arena_strdup(arena, actual) : NULL;
}
