/* Replies on their way out: a head and segments of body, sent as the socket takes them. */
#ifndef RPC_HTTP_REPLY_H
#define RPC_HTTP_REPLY_H

#include "rpc/http/front.h"

/* One reply. Segment 0 is the head, the rest are body; a stream refills segment 1. */
struct outgoing {
    struct text head;            /* without "Connection:" and the empty line until reply_begin */
    struct text body;            /* of http_reply, or the piece of a stream being sent */
    struct http_producer producer;
    bool streaming;              /* fill() has more */
    bool chunked;
    bool close_delimited;        /* the end of the body is the end of the connection */
    bool no_body;                /* HEAD, 204, 304 */
    int64_t left;                /* of a stream with a length */
    void (*release)(void *ctx);
    void *ctx;
    unsigned segment;            /* the one being sent … */
    size_t offset;               /* … and how much of it went */
    unsigned n_segments;
    struct http_piece segments[];
};

/* What a head depends on. */
struct reply_context { const struct http_server *server; unsigned minor; bool head_only; };

/* Takes the body's bytes (body may be NULL). */
struct outgoing *reply_text(const struct reply_context *, int status, const char *content_type, const char *extra, struct text *body);
struct outgoing *reply_pieces(const struct reply_context *, int status, const char *content_type, const struct http_piece *, unsigned n,
                              void (*release)(void *ctx), void *ctx);
struct outgoing *reply_stream(const struct reply_context *, int status, const char *content_type, struct http_producer);
void outgoing_free(struct outgoing *); /* NULL is fine; calls release */

/* Completes the head. */
void reply_begin(struct outgoing *, bool keep_alive, unsigned minor);
/* Sends what the socket takes. */
enum send_result {
    SEND_DONE,
    SEND_BLOCKED, /* call again when writable */
    SEND_TURN,    /* call again at the next turn of the loop: had its share, or the producer has nothing yet */
    SEND_BROKEN,
};
enum send_result reply_send(struct connection *, struct outgoing *, bool *progress_r);

const char *status_reason(int status);

#endif
