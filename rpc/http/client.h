/* Blocking HTTP/1.1 client to peers: keep-alive connections pooled by address, and raw PUTs. */
#ifndef RPC_HTTP_CLIENT_H
#define RPC_HTTP_CLIENT_H

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/http/tls.h"

struct http_client;
struct http_client *http_client_new(void);
void http_client_free(struct http_client *);

struct http_target {
    const char *address; /* "127.0.1.2" or a host name; a path for unix sockets */
    int port;            /* 0: unix socket */
    bool tls;
    const char *fingerprint; /* the certificate the peer must show, or NULL */
    const char *bind_address; /* local address to use, or NULL */
    const char *cookie;      /* credential: sent as "Cookie:" with every agent call and raw PUT, or NULL */
};
struct http_answer { int status; const char *head; const char *body; size_t body_len; };

/* One request; retries once on a pooled connection that turned out dead before any byte of an answer.
 * Honours c's deadline and cancel. 0, or -errno (-ECONNREFUSED, -ETIMEDOUT, -ECANCELED, -EKEYREJECTED …). */
NODISCARD int http_client_post(struct call *c, struct http_client *, const struct http_target *, const char *path,
                               const char *content_type, const char *extra_headers, const void *body, size_t len,
                               size_t max_answer, struct http_answer *answer_r);
/* Opens a connection, writes a request head with 'method path HTTP/1.1' and extra headers and no body,
 * and hands over the raw duplex stream (no answer is read). */
NODISCARD int http_client_raw(struct call *c, struct http_client *, const struct http_target *, const char *method,
                              const char *path, const char *extra_headers, struct byte_stream **stream_r);

#endif
