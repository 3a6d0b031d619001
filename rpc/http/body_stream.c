/* The body of a request on a taken-over connection, with its framing undone. */
#include <errno.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "rpc/http/front.h"

#define BUFFER_SIZE (64u * 1024)
/* What Xen Orchestra sends for a body of unknown length; the end of the stream is the end of the body. */
#define LENGTH_UNKNOWN (INT64_C(1) << 50)

struct body_stream {
    struct byte_stream stream; /* first member */
    struct byte_stream *raw;
    bool to_end;
    uint64_t left;     /* of a body with a length */
    char *buffer;      /* of a chunked one: read, not decoded from 'at' on; NULL otherwise */
    size_t at, len;
    struct chunk_decoder chunks;
};

static ssize_t read_length(struct body_stream *b, void *out, size_t n)
{
    if (b->left == 0)
        return 0;
    if (n > b->left)
        n = (size_t)b->left;
    ssize_t got = bytes_read(b->raw, out, n);

    if (got > 0)
        b->left -= (uint64_t)got;
    return got == 0 ? -EPIPE : got;
}

static ssize_t read_chunked(struct body_stream *b, void *out, size_t n)
{
    while (b->chunks.state != CHUNK_DONE) {
        size_t used, size = b->len - b->at;
        const char *data;

        if (size == 0) {
            ssize_t got = bytes_read(b->raw, b->buffer, BUFFER_SIZE);

            if (got <= 0)
                return got < 0 ? got : -EPIPE;
            b->at = 0;
            b->len = (size_t)got;
            continue;
        }
        if (b->chunks.state == CHUNK_DATA && size > n)
            size = n; /* what is decoded must fit */
        if (b->chunks.state != CHUNK_DATA)
            size = 1; /* framing bytes one by one: data is never decoded with them */
        if (!chunk_decode(&b->chunks, b->buffer + b->at, size, &used, &data, &size))
            return -EPROTO;
        b->at += used;
        if (size > 0) {
            memcpy(out, data, size);
            return (ssize_t)size;
        }
    }
    return 0;
}

static ssize_t body_read(struct byte_stream *s, void *out, size_t n)
{
    struct body_stream *b = (struct body_stream *)s;

    if (b->buffer != NULL)
        return read_chunked(b, out, n);
    return b->to_end ? bytes_read(b->raw, out, n) : read_length(b, out, n);
}

static int body_writev(struct byte_stream *s, struct iovec *v, int n) { return bytes_writev(((struct body_stream *)s)->raw, v, n); }
static int body_finish(struct byte_stream *s) { return bytes_finish(((struct body_stream *)s)->raw); }
static void body_abort(struct byte_stream *s) { bytes_abort(((struct body_stream *)s)->raw); }

static void body_close(struct byte_stream *s)
{
    struct body_stream *b = (struct body_stream *)s;

    bytes_close(b->raw);
    xfree(b->buffer);
    xfree(b);
}

static int body_fd(const struct byte_stream *s)
{
    const struct byte_stream *raw = ((const struct body_stream *)s)->raw;

    return raw->ops->fd(raw);
}

static size_t body_pending(const struct byte_stream *s)
{
    const struct body_stream *b = (const struct body_stream *)s;

    if (b->buffer != NULL && b->len > b->at)
        return b->len - b->at;
    return b->raw->ops->pending(b->raw);
}

static const struct byte_stream_ops body_stream_ops = {
    .name = "body",
    .read = body_read,
    .writev = body_writev,
    .finish = body_finish,
    .abort = body_abort,
    .close = body_close,
    .fd = body_fd,
    .pending = body_pending,
};

struct byte_stream *http_body_stream(struct http_exchange *ex, struct byte_stream *raw)
{
    struct body_stream *b = xcalloc(1, sizeof *b);
    int64_t length = ex->request.content_length;

    b->stream.ops = &body_stream_ops;
    b->raw = raw;
    b->to_end = length < 0 || length >= LENGTH_UNKNOWN;
    b->left = b->to_end ? 0 : (uint64_t)length;
    if (ex->chunked)
        b->buffer = xcalloc(1, BUFFER_SIZE);
    return &b->stream;
}
