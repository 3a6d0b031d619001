/* OpenSSL reads the socket itself, up to 256 KiB at a time into its record buffer, where it decrypts in place.
 * What it encrypts is collected in a buffer of ours, so that a send carries many records. Small pieces of
 * plaintext (a reply's head, a block) are gathered into whole records first. */
#include "storage/tapd/tls_session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define RECORD 16384u
#define RECORD_COST 256u /* more than the longest record adds: head, content type, tag, explicit nonce */
#define READ_AHEAD (256u * 1024)
#define OUT_SIZE (16u * (RECORD + RECORD_COST) + 16384u) /* 256 KiB of plaintext, and the handshake's messages */
#define CIPHERS_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CIPHERS_12                                                                                            \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"              \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE+CHACHA20"
#define GROUPS "X25519:P-256:P-384"

struct disk_tls_context { SSL_CTX *ctx; atomic_uint refs; bool server; };

struct disk_tls {
    struct disk_tls_context *context;
    SSL *ssl;
    int fd;
    char *fingerprint; /* hex digits only, upper case; NULL: anybody */
    bool drained;      /* the last recv took all there was: ask the socket again only after a wait */
    bool starved;      /* the last read found no whole record */
    bool ended, broken;
    int error;         /* of the socket, for the caller: OpenSSL does not keep it */
    char *out;         /* ciphertext to send: [out_at, out_len) */
    size_t out_at, out_len;
    char stage[RECORD];
};

/* --- contexts ---------------------------------------------------------------------------------------- */

static struct disk_tls_context *context_new(bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    struct disk_tls_context *c = xcalloc(1, sizeof *c);

    CHECK(ctx != NULL);
    c->ctx = ctx;
    c->server = server;
    atomic_init(&c->refs, 1);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL); /* certificates are pinned, or not looked at */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    CHECK(SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 && SSL_CTX_set1_groups_list(ctx, GROUPS) == 1 &&
          SSL_CTX_set_ciphersuites(ctx, CIPHERS_13) == 1 && SSL_CTX_set_cipher_list(ctx, CIPHERS_12) == 1);
    return c;
}

int disk_tls_server(const char *pem_path, struct disk_tls_context **context_r)
{
    if (access(pem_path, R_OK) < 0)
        return -errno;
    struct disk_tls_context *c = context_new(true);

    if (SSL_CTX_use_certificate_chain_file(c->ctx, pem_path) != 1 ||
        SSL_CTX_use_PrivateKey_file(c->ctx, pem_path, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(c->ctx) != 1) {
        ERR_clear_error();
        disk_tls_unref(c);
        return -EINVAL;
    }
    *context_r = c;
    return 0;
}

int disk_tls_client(struct disk_tls_context **context_r)
{
    *context_r = context_new(false);
    return 0;
}

struct disk_tls_context *disk_tls_ref(struct disk_tls_context *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void disk_tls_unref(struct disk_tls_context *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    SSL_CTX_free(c->ctx);
    xfree(c);
}

/* --- the BIO: recv at one end, the out buffer at the other ---------------------------------------------- */

static int bio_write(BIO *b, const char *bytes, int n)
{
    struct disk_tls *t = BIO_get_data(b);
    size_t room = OUT_SIZE - t->out_len;

    BIO_clear_retry_flags(b);
    if (room == 0) {
        BIO_set_retry_write(b);
        return -1;
    }
    size_t put = room < (size_t)n ? room : (size_t)n;
    memcpy(t->out + t->out_len, bytes, put);
    t->out_len += put;
    return (int)put;
}

static int bio_read(BIO *b, char *bytes, int n)
{
    struct disk_tls *t = BIO_get_data(b);
    ssize_t got;

    BIO_clear_retry_flags(b);
    if (t->drained) {
        BIO_set_retry_read(b);
        return -1;
    }
    do
        got = recv(t->fd, bytes, (size_t)n, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    t->drained = got < n;
    if (got < 0 && errno == EAGAIN)
        BIO_set_retry_read(b);
    else if (got < 0)
        t->error = -errno;
    if (got == 0)
        t->ended = true;
    return (int)got;
}

static long bio_ctrl(BIO *b, int command, long number, void *ptr)
{
    const struct disk_tls *t = BIO_get_data(b);

    if (command == BIO_CTRL_EOF)
        return t->ended;
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
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bulk socket");
    CHECK(method != NULL && BIO_meth_set_write(method, bio_write) == 1 && BIO_meth_set_read(method, bio_read) == 1 &&
          BIO_meth_set_ctrl(method, bio_ctrl) == 1 && BIO_meth_set_create(method, bio_create) == 1);
}

/* --- sessions ------------------------------------------------------------------------------------------ */

static bool is_address(const char *name)
{
    struct in6_addr any;

    return inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1;
}

/* Its hex digits, without the word and the colons. */
static char *bare_fingerprint(const char *text)
{
    char *bare = xcalloc(1, strlen(text) + 1), *to = bare;

    if (strncasecmp(text, "SHA256", 6) == 0)
        text += 6;
    for (; *text != '\0'; text++)
        if (strchr(" :=", *text) == NULL)
            *to++ = *text;
    return bare;
}

struct disk_tls *disk_tls_new(struct disk_tls_context *c, int fd, const char *server_name, const char *fingerprint)
{
    struct disk_tls *t = xcalloc(1, sizeof *t);
    BIO *bio;

    pthread_once(&method_once, make_method);
    t->context = disk_tls_ref(c);
    t->fd = fd;
    t->fingerprint = fingerprint != NULL ? bare_fingerprint(fingerprint) : NULL;
    t->out = xcalloc(1, OUT_SIZE);
    t->ssl = SSL_new(c->ctx);
    bio = BIO_new(method);
    CHECK(t->ssl != NULL && bio != NULL);
    BIO_set_data(bio, t);
    SSL_set_bio(t->ssl, bio, bio);
    if (c->server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    if (!c->server && server_name != NULL && server_name[0] != '\0' && !is_address(server_name))
        SSL_set_tlsext_host_name(t->ssl, server_name);
    return t;
}

void disk_tls_free(struct disk_tls *t)
{
    if (t == NULL)
        return;
    SSL_free(t->ssl);
    disk_tls_unref(t->context);
    xfree(t->fingerprint);
    xfree(t->out);
    xfree(t);
}

int disk_tls_flush(struct disk_tls *t)
{
    while (t->out_at < t->out_len) {
        ssize_t put = send(t->fd, t->out + t->out_at, t->out_len - t->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            t->broken = errno != EAGAIN;
            return -errno;
        }
        t->out_at += (size_t)put;
    }
    t->out_at = t->out_len = 0;
    return 0;
}

size_t disk_tls_unsent(const struct disk_tls *t) { return t->out_len - t->out_at; }

unsigned disk_tls_wants(const struct disk_tls *t) { return EPOLLIN | (t->out_len > t->out_at ? EPOLLOUT : 0u); }

/* Why OpenSSL did not go on: -EAGAIN, 0 at the end, or -errno. */
static int reason(struct disk_tls *t, int rc)
{
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        t->ended = true;
        return 0;
    case SSL_ERROR_SYSCALL:
        t->broken = true;
        return t->error != 0 ? t->error : -ECONNRESET;
    default:
        t->broken = true;
        return t->error != 0 ? t->error : -EPROTO;
    }
}

static bool peer_is_right(struct disk_tls *t)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    char hex[2 * 32 + 1];

    if (t->fingerprint == NULL)
        return true;
    X509 *cert = SSL_get1_peer_certificate(t->ssl);
    bool good = cert != NULL && X509_digest(cert, EVP_sha256(), digest, &len) == 1 && len == 32;

    X509_free(cert);
    for (unsigned i = 0; good && i < len; i++) {
        hex[2 * i] = "0123456789ABCDEF"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789ABCDEF"[digest[i] & 15];
    }
    hex[2 * 32] = '\0';
    return good && strcasecmp(hex, t->fingerprint) == 0;
}

int disk_tls_handshake(struct disk_tls *t)
{
    ERR_clear_error();
    t->drained = false;
    int rc = SSL_do_handshake(t->ssl);
    int why = rc == 1 ? 0 : reason(t, rc);

    if (rc == 1 && !peer_is_right(t)) {
        t->broken = true;
        return -EKEYREJECTED;
    }
    int sent = disk_tls_flush(t); /* also an alert that says why */
    t->drained = false;
    if (rc != 1)
        return why != 0 ? why : -ECONNRESET;
    return sent == -EAGAIN ? 0 : sent;
}

/* --- data ------------------------------------------------------------------------------------------------ */

ssize_t disk_tls_readv(struct disk_tls *t, const struct iovec *iov, int n)
{
    size_t total = 0;

    ERR_clear_error();
    for (int i = 0; i < n; i++)
        for (size_t at = 0; at < iov[i].iov_len;) {
            size_t got;
            int rc = SSL_read_ex(t->ssl, (char *)iov[i].iov_base + at, iov[i].iov_len - at, &got);

            if (rc != 1) { /* an error shows again at the next call */
                t->starved = true;
                t->drained = false;
                return total > 0 ? (ssize_t)total : reason(t, rc);
            }
            at += got;
            total += got;
        }
    t->starved = false;
    if (!SSL_has_pending(t->ssl))
        t->drained = false;
    return (ssize_t)total;
}

bool disk_tls_pending(const struct disk_tls *t) { return !t->starved && SSL_has_pending(t->ssl); }

/* How much plaintext the out buffer has room for, in whole records. */
static size_t room(const struct disk_tls *t) { return (OUT_SIZE - t->out_len) / (RECORD + RECORD_COST) * RECORD; }

/* All of it, since room was looked at; or -errno. */
static int encrypt(struct disk_tls *t, const void *bytes, size_t n)
{
    const char *at = bytes;

    while (n > 0) {
        size_t put;
        int rc = SSL_write_ex(t->ssl, at, n, &put);

        if (rc != 1) {
            rc = reason(t, rc);
            t->broken = true;
            return rc == 0 || rc == -EAGAIN ? -EPIPE : rc;
        }
        at += put;
        n -= put;
    }
    return 0;
}

/* Pieces up to one record's length, from place *i, *at of the vectors on, into the stage. */
static size_t gather(struct disk_tls *t, const struct iovec *iov, int n, int *i, size_t *at)
{
    size_t staged = 0;

    while (*i < n && staged < RECORD) {
        size_t left = iov[*i].iov_len - *at, take = left < RECORD - staged ? left : RECORD - staged;

        memcpy(t->stage + staged, (const char *)iov[*i].iov_base + *at, take);
        staged += take;
        *at += take;
        if (*at == iov[*i].iov_len) {
            ++*i;
            *at = 0;
        }
    }
    return staged;
}

ssize_t disk_tls_writev(struct disk_tls *t, const struct iovec *iov, int n)
{
    size_t total = 0, at = 0;
    int i = 0, rc = 0;

    if (t->broken)
        return -EPIPE;
    ERR_clear_error();
    while (i < n && rc == 0) {
        size_t fits = room(t);

        if (fits == 0) {
            rc = disk_tls_flush(t);
            continue;
        }
        size_t put = iov[i].iov_len - at;
        if (put >= RECORD) { /* whole records straight from where they are */
            put = put < fits ? put - put % RECORD : fits;
            rc = encrypt(t, (const char *)iov[i].iov_base + at, put);
            at += put;
            if (at == iov[i].iov_len) {
                i++;
                at = 0;
            }
        } else {
            put = gather(t, iov, n, &i, &at);
            rc = put > 0 ? encrypt(t, t->stage, put) : 0;
        }
        total += put;
    }
    if (rc == 0)
        rc = disk_tls_flush(t);
    if (rc < 0 && rc != -EAGAIN)
        return rc;
    return total > 0 ? (ssize_t)total : -EAGAIN;
}

void disk_tls_close_notify(struct disk_tls *t)
{
    if (t->broken || !SSL_is_init_finished(t->ssl))
        return;
    ERR_clear_error();
    SSL_shutdown(t->ssl);
    ERR_clear_error();
    (void)!disk_tls_flush(t);
}
