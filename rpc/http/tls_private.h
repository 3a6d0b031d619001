/* What the tls_*.c files share. */
#ifndef RPC_HTTP_TLS_PRIVATE_H
#define RPC_HTTP_TLS_PRIVATE_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "rpc/http/tls_session.h"

struct tls_context { SSL_CTX *ctx; atomic_uint refs; bool server; };

#define FINGERPRINT_SIZE (7 + 32 * 3) /* "SHA256 " and 32 pairs, with the NUL */
bool tls_fingerprint(const X509 *, char out[FINGERPRINT_SIZE]);
/* The oldest error of OpenSSL's queue as text, and empties the queue. Static per thread. */
const char *tls_error_text(void);
/* Which AEAD this CPU does faster, AES-128-GCM or ChaCha20-Poly1305: measured once in a process (tls_speed.c). */
bool tls_aes_is_faster(void);

#endif
