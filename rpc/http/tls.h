/* TLS by OpenSSL 3: server and client contexts, certificates, and blocking streams.
 *
 * TLS 1.2 and 1.3; groups X25519, P-256, secp384r1 (the genuine xe insists on TLS 1.2 + RSA +
 * secp384r1); SSL_MODE_RELEASE_BUFFERS; session tickets; fastest AEAD of this CPU first. Writing to a
 * peer that has gone raises no SIGPIPE. */
#ifndef RPC_HTTP_TLS_H
#define RPC_HTTP_TLS_H

#include "rpc/base/arena.h"
#include "rpc/base/bytes.h"
#include "rpc/base/error.h"

struct tls_context;

enum tls_key { TLS_KEY_RSA2048, TLS_KEY_P256 };
/* Writes a fresh self-signed certificate and key (0600) as PEM to one file, when it does not exist.
 * names: subject alternative names (DNS or IP addresses). */
NODISCARD struct error *tls_make_certificate(struct arena *, const char *pem_path, enum tls_key, const char *common_name,
                                             const char *const *names, unsigned n_names);
NODISCARD struct error *tls_server_context(struct arena *, const char *pem_path, struct tls_context **);
/* Peers are known by their fingerprints (pool members) or not at all; see tls_connect. */
NODISCARD struct error *tls_client_context(struct arena *, struct tls_context **);
void tls_context_free(struct tls_context *); /* listeners and sessions hold references of their own */

/* "SHA256 fingerprint AA:BB:…" of the certificate in a PEM file, and the PEM of the certificate only. */
NODISCARD struct error *tls_certificate_fingerprint(struct arena *, const char *pem_path, const char **fingerprint_r, const char **cert_pem_r);

/* Client handshake over a connected socket (taken). expect_fingerprint NULL: unverified; else a
 * mismatch is -EKEYREJECTED. Blocks. Returns NULL and sets *error to -errno on failure. */
struct byte_stream *tls_connect(struct tls_context *, int fd, const char *server_name, const char *expect_fingerprint, int *error);
/* "SHA256 …" of the peer of a TLS stream, in the arena. */
const char *tls_peer_fingerprint(struct arena *, struct byte_stream *);

#endif
