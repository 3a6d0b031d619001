/* The HTTP/1.x front: epoll threads, strict parsing, TLS, and nothing of XenAPI.
 *
 * Design §6. Each listening socket is shared by N I/O threads (EPOLLEXCLUSIVE); a connection goes to
 * the thread that has the fewest, and stays there. A request goes to the route with the longest
 * matching path prefix for its method. Idle and parked connections cost no thread and no buffer.
 *
 * An exchange is one request and its one reply. The handler runs on the I/O thread and must not
 * block: it answers at once, posts the work elsewhere and answers later (http_reply from any thread,
 * exactly once), parks, or takes the connection over. The exchange's memory lives until the reply is
 * queued, the exchange is parked, or the client is gone AND the handler has replied.
 *
 * Refused before any handler: see specs in parse.h (smuggling, oversize, slow, malformed). */
#ifndef RPC_HTTP_SERVER_H
#define RPC_HTTP_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/base/bytes.h"
#include "rpc/base/clock.h"
#include "rpc/base/error.h"
#include "rpc/base/text.h"

struct http_server;
struct http_exchange;

struct http_header { const char *name, *value; }; /* name lower-cased */

struct http_request {
    const char *method; /* "POST" */
    const char *target;  /* as sent */
    const char *path;    /* percent-decoded, without the query */
    const char *query;   /* raw, "" if none */
    unsigned minor;      /* HTTP/1.minor */
    const struct http_header *headers;
    unsigned n_headers;
    const char *body;    /* buffered body; NULL for takeover routes */
    size_t body_len;
    int64_t content_length; /* -1: none given */
    const char *peer;    /* "127.0.1.2" or "unix" */
    bool tls, unix_socket;
    unsigned uid;        /* of the peer, unix socket only */
};
const char *http_header(const struct http_request *, const char *lower_name); /* NULL: absent */
/* The value of a query key or of a cookie, decoded, in the arena; NULL if absent. */
const char *http_query(struct arena *, const struct http_request *, const char *key);
const char *http_cookie(struct arena *, const struct http_request *, const char *key);
/* Decoded "Authorization: Basic"; false if absent or malformed. */
bool http_basic_auth(struct arena *, const struct http_request *, const char **user_r, const char **password_r);

const struct http_request *http_request(struct http_exchange *);
struct arena *http_arena(struct http_exchange *);

/* --- routes ------------------------------------------------------------------------------------- */
enum http_body { HTTP_BODY_BUFFER, HTTP_BODY_TAKEOVER }; /* takeover: handler runs after the head */
typedef void http_handler_fn(struct http_exchange *, void *ctx);
struct http_route {
    const char *method; /* "POST"; "*" any */
    const char *path;   /* prefix; a trailing '$' means exactly this path */
    enum http_body body;
    http_handler_fn *handler;
    void *ctx;
};

/* --- answering ---------------------------------------------------------------------------------- */
/* Sends status, headers and body. 'body' is taken over (its bytes are moved out). extra: "Name: v\r\n…" or NULL. */
void http_reply(struct http_exchange *, int status, const char *content_type, const char *extra, struct text *body);
/* Several immutable counted pieces sent by writev without copying; release(ctx) once sent or dropped. */
struct http_piece { const void *bytes; size_t len; };
void http_reply_pieces(struct http_exchange *, int status, const char *content_type, const struct http_piece *, unsigned n,
                       void (*release)(void *ctx), void *ctx);
/* A body made while it is sent: fill() appends about 'want' bytes and returns true while more is to
 * come; called on the I/O thread whenever the socket takes more. Sent with Content-Length when length >= 0
 * (a length not kept ends the connection), else chunked (HTTP/1.1) or until close. The exchange's arena
 * stays until release() (may be NULL). */
struct http_producer {
    bool (*fill)(void *ctx, struct text *out, size_t want);
    void (*release)(void *ctx);
    void *ctx;
    int64_t length;
};
void http_reply_stream(struct http_exchange *, int status, const char *content_type, struct http_producer);

/* --- parking: a long poll without thread, buffers or arena ---------------------------------------- */
/* The handler gives the exchange up: its pointer and arena are gone, only 'parked' remains. poll() is called
 * on the I/O thread when http_server_wake() met the mask, or once when deadline_ms passed (expired = true):
 * it returns false to stay parked (perhaps with a new mask or deadline), or true after http_parked_reply().
 * closed() is called instead when the client went away or the server ends. Parked from a thread that is not
 * the exchange's I/O thread, poll() is called once at once: a wake may have come too early. */
struct http_parked;
struct http_parked_ops {
    bool (*poll)(struct http_parked *, bool expired);
    void (*closed)(struct http_parked *); /* must free the object that embeds 'parked' */
};
struct http_parked {
    const struct http_parked_ops *ops;
    uint64_t mask[2];    /* woken when any bit is in the mask given to http_server_wake */
    int64_t deadline_ms; /* server clock; 0: none */
    void *connection;    /* private to the server */
};
void http_park(struct http_exchange *, struct http_parked *);
/* From poll() only. Takes the body; the parked object is the caller's again (free it after). */
void http_parked_reply(struct http_parked *, int status, const char *content_type, struct text *body);
void http_parked_reply_pieces(struct http_parked *, int status, const char *content_type, const struct http_piece *, unsigned n,
                              void (*release)(void *ctx), void *ctx);
/* Any thread; cheap (coalesced eventfd writes). An empty mask only makes the threads look at the clock again. */
void http_server_wake(struct http_server *, const uint64_t mask[2]);

/* --- taking the connection over ------------------------------------------------------------------ */
/* From the handler of a TAKEOVER route (or any other, before replying): the connection leaves the
 * server; fn runs on a thread of its own with a blocking duplex stream that first yields any bytes
 * already buffered. fn owns the stream (bytes_close). The exchange stays valid for reading the
 * request until fn returns. No response head is written unless fn does. */
void http_takeover(struct http_exchange *, void (*fn)(struct http_exchange *, struct byte_stream *, void *ctx), void *ctx);
/* Writes a response head on a taken-over stream. */
int http_write_head(struct byte_stream *, int status, const char *extra);
/* The request's body alone: by Content-Length (early end: -EPIPE), chunked (malformed: -EPROTO), or to
 * the end of the stream. Takes 'raw' (close this one only); writes go through to it. */
struct byte_stream *http_body_stream(struct http_exchange *, struct byte_stream *raw);

/* --- the server ---------------------------------------------------------------------------------- */
struct http_limits { /* 0: the default, given here */
    size_t header_bytes;      /* 16 KiB */
    unsigned header_lines;    /* 100 */
    size_t body_bytes;        /* 32 MiB for buffered bodies */
    unsigned connections;     /* 4096 */
    unsigned per_address;     /* 0: none; never for the unix socket */
    int header_ms, body_idle_ms, idle_ms; /* 10 s, 30 s, 300 s (also of a reply that is not read) */
};
struct http_server_options {
    const struct clock *clock;
    const struct http_route *routes; /* ends with { NULL } */
    unsigned threads;                /* 0: min(4, cores) */
    struct http_limits limits;
    const char *server_header;       /* value of "Server:"; NULL none */
    const char *rpc_headers;         /* "Name: v\r\n…" added to every reply: CORS lines */
};
NODISCARD struct error *http_server_new(struct arena *, const struct http_server_options *, struct http_server **);
struct tls_context;
/* Adds a listener; tls NULL: plain. *id_r for closing it. port 0: any; *port_r gets it. */
NODISCARD struct error *http_listen_tcp(struct arena *, struct http_server *, const char *address, int port,
                                        struct tls_context *tls, int *id_r, int *port_r);
NODISCARD struct error *http_listen_unix(struct arena *, struct http_server *, const char *path, int *id_r);
/* At any time, from any thread. New clients are refused at once; idle connections end, the others after
 * their current reply; with cut_open also parked, half-read and taken-over ones end at once. */
void http_unlisten(struct http_server *, int id, bool cut_open);
void http_server_start(struct http_server *);
/* Stops accepting, closes idle and parked connections, waits for handlers and takeovers, joins, frees. */
void http_server_free(struct http_server *);
struct http_server_stats { unsigned connections, parked; uint64_t requests, refused; };
void http_server_stats(struct http_server *, struct http_server_stats *);

#endif
