/* Contexts: versions, groups and ciphers of both sides. */
#include <openssl/err.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "rpc/http/tls_private.h"

#define GROUPS "X25519:P-256:P-384"
#define AES_FIRST_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CHACHA_FIRST_13 "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
#define AES_FIRST_12                                                                                                       \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
    "ECDHE+CHACHA20"
#define CHACHA_FIRST_12 "ECDHE+CHACHA20:ECDHE+AESGCM"

const char *tls_error_text(void)
{
    static _Thread_local char text[256];
    unsigned long code = ERR_get_error();

    if (code == 0)
        return "unknown";
    ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return text;
}

static struct tls_context *context_new(bool server)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

    if (ctx == NULL)
        return NULL;
    bool fast = tls_aes_is_faster();
    struct tls_context *c = xcalloc(1, sizeof *c);

    c->ctx = ctx;
    c->server = server;
    atomic_init(&c->refs, 1);
    /* Peers end without close_notify all the time (stunnel, sockets handed to children): an end is an end.
     * Our messages have lengths or end marks of their own. */
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL); /* certificates are pinned, or not looked at */
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 || SSL_CTX_set1_groups_list(ctx, GROUPS) != 1 ||
        SSL_CTX_set_ciphersuites(ctx, fast ? AES_FIRST_13 : CHACHA_FIRST_13) != 1 ||
        SSL_CTX_set_cipher_list(ctx, fast ? AES_FIRST_12 : CHACHA_FIRST_12) != 1) {
        tls_context_free(c);
        return NULL;
    }
    return c;
}

struct error *tls_server_context(struct arena *arena, const char *pem_path, struct tls_context **context_r)
{
    struct tls_context *c = context_new(true);

    if (c == NULL)
        return err_internal(arena, "cannot make a TLS context: %s", tls_error_text());
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF); /* tickets hold the sessions */
    SSL_CTX_set_num_tickets(c->ctx, 1);
    if (SSL_CTX_use_certificate_chain_file(c->ctx, pem_path) != 1 ||
        SSL_CTX_use_PrivateKey_file(c->ctx, pem_path, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(c->ctx) != 1) {
        tls_context_free(c);
        return err_internal(arena, "cannot use the certificate and key in %s: %s", pem_path, tls_error_text());
    }
    *context_r = c;
    return NULL;
}

struct error *tls_client_context(struct arena *arena, struct tls_context **context_r)
{
    struct tls_context *c = context_new(false);

    if (c == NULL)
        return err_internal(arena, "cannot make a TLS context: %s", tls_error_text());
    *context_r = c;
    return NULL;
}

struct tls_context *tls_context_ref(struct tls_context *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void tls_context_free(struct tls_context *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    SSL_CTX_free(c->ctx);
    xfree(c);
}
