/* Sending replies: vectors for plain sockets, gathered records for TLS, refilling of streams. */
#include "rpc/http/reply.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#include "rpc/base/log.h"
#include "rpc/http/connection.h"
#include "rpc/http/loop.h"

LOG_MODULE(http);

#define PIECE_WANTED (128u * 1024)
#define TURN_BYTES (1024u * 1024) /* a fast reader gives way to others after this much */
#define VECTORS 64
#define CHUNK_HEAD 10 /* "0001f400\r\n", filled in afterwards */

/* The rest of the reply as vectors; returns how many. */
static int vectors_of(const struct outgoing *o, struct iovec *v, int max)
{
    int n = 0;
    size_t offset = o->offset;

    for (unsigned i = o->segment; i < o->n_segments && n < max; i++) {
        if (o->segments[i].len > offset)
            v[n++] = (struct iovec){ .iov_base = (char *)o->segments[i].bytes + offset, .iov_len = o->segments[i].len - offset };
        offset = 0;
    }
    return n;
}

static void went(struct outgoing *o, size_t n)
{
    while (o->segment < o->n_segments && n >= o->segments[o->segment].len - o->offset) {
        n -= o->segments[o->segment].len - o->offset;
        o->offset = 0;
        o->segment++;
    }
    o->offset += n;
}

/* Small vectors together in one TLS record. The first may stay as it is. */
static struct iovec gathered(struct loop *loop, const struct iovec *v, int n)
{
    size_t len = 0;

    if (n == 1 || v[0].iov_len >= GATHER_SIZE)
        return v[0];
    for (int i = 0; i < n && len < GATHER_SIZE; i++) {
        size_t part = v[i].iov_len < GATHER_SIZE - len ? v[i].iov_len : GATHER_SIZE - len;

        memcpy(loop->gather + len, v[i].iov_base, part);
        len += part;
    }
    return (struct iovec){ .iov_base = loop->gather, .iov_len = len };
}

static ssize_t send_some(struct connection *c, struct iovec *v, int n)
{
    if (c->tls == NULL)
        return connection_writev(c, v, n);
    struct iovec one = gathered(c->loop, v, n);

    return connection_writev(c, &one, 1);
}

/* Cuts what a producer gave beyond its length, and says so; false if it gave too little. */
static bool length_kept(struct outgoing *o, size_t before)
{
    int64_t got = (int64_t)(o->body.len - before);

    if (o->producer.length < 0)
        return true;
    if (got > o->left) {
        log_warn_rl("a streamed body is longer than its declared %lld bytes", (long long)o->producer.length);
        o->body.len = before + (size_t)o->left;
        o->streaming = false;
        got = o->left;
    }
    o->left -= got;
    if (!o->streaming && o->left > 0) {
        log_warn_rl("a streamed body ends %lld bytes before its declared length", (long long)o->left);
        return false;
    }
    if (o->left == 0)
        o->streaming = false;
    return true;
}

/* The next piece of a stream as segment 1. */
static bool refill(struct outgoing *o)
{
    size_t before = o->chunked ? CHUNK_HEAD : 0;

    text_clear(&o->body);
    if (o->chunked)
        text_add_len(&o->body, "00000000\r\n", CHUNK_HEAD);
    o->streaming = o->producer.fill(o->producer.ctx, &o->body, PIECE_WANTED);
    if (!length_kept(o, before))
        return false;
    if (o->chunked) {
        size_t len = o->body.len - before;
        char digits[CHUNK_HEAD];

        if (len > 0) {
            snprintf(digits, sizeof digits, "%08x", (unsigned)len);
            memcpy(o->body.bytes, digits, 8);
            text_add_len(&o->body, "\r\n", 2);
        } else {
            text_clear(&o->body);
        }
        if (!o->streaming)
            text_add_len(&o->body, "0\r\n\r\n", 5);
    }
    o->segment = 1;
    o->offset = 0;
    o->segments[1] = (struct http_piece){ .bytes = o->body.bytes, .len = o->body.len };
    return true;
}

enum send_result reply_send(struct connection *c, struct outgoing *o, bool *progress_r)
{
    size_t sent = 0;

    *progress_r = false;
    for (;;) {
        struct iovec v[VECTORS];
        int n = vectors_of(o, v, VECTORS);

        if (n == 0) {
            if (!o->streaming)
                return SEND_DONE;
            if (sent >= TURN_BYTES)
                return SEND_TURN;
            if (!refill(o))
                return SEND_BROKEN;
            if (o->body.len == 0 && o->streaming)
                return SEND_TURN;
            continue;
        }
        ssize_t put = send_some(c, v, n);

        if (put < 0)
            return put == -EAGAIN ? SEND_BLOCKED : SEND_BROKEN;
        went(o, (size_t)put);
        sent += (size_t)put;
        *progress_r = true;
    }
}
