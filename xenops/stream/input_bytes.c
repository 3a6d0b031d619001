#include "xenops/stream/input_bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "rpc/base/check.h"

#define DIRECT_MIN (64u << 10) /* from here on not through the buffer */
#define WAIT_MS 1000           /* between two looks at the deadline */

struct error *input_bad_at(struct call *c, const struct input *in, int line, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    const char *text = arena_vprintf(c->arena, fmt, args);
    va_end(args);
    uint64_t at = in->result->bytes - (in->held - in->at);
    return error_internal_at(c->arena, __FILE__, line, "image: at byte %llu: %s", (unsigned long long)at, text);
}

static struct error *cancelled(struct call *c) { return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0); }

static struct error *wait_readable(struct call *c, struct input *in)
{
    const struct byte_stream_ops *ops = in->stream->ops;

    if (call_cancelled(c))
        return cancelled(c);
    if (ops->fd == NULL || ops->fd(in->stream) < 0)
        return NULL;
    for (;;) {
        int rc = bytes_wait(in->stream, c->cancel != NULL ? cancel_fd(c->cancel) : -1, WAIT_MS);
        if (rc > 0)
            return NULL;
        if (rc == -ECANCELED || call_cancelled(c))
            return cancelled(c);
        if (rc < 0)
            return input_bad(c, in, "cannot read: %s", strerror(-rc));
    }
}

static struct error *read_some(struct call *c, struct input *in, void *to, size_t max, size_t *got_r)
{
    TRY(wait_readable(c, in));
    ssize_t got = bytes_read(in->stream, to, max);
    if (got == 0)
        return input_bad(c, in, "the stream ends too early");
    if (got < 0)
        return input_bad(c, in, "cannot read: %s", strerror((int)-got));
    *got_r = (size_t)got;
    in->result->bytes += (uint64_t)got;
    return NULL;
}

struct error *input_exact(struct call *c, struct input *in, void *to, size_t n)
{
    size_t got;

    CHECK(in->at == in->held);
    for (char *p = to; n > 0; p += got, n -= got)
        TRY(read_some(c, in, p, n, &got));
    return NULL;
}

static struct error *fill(struct call *c, struct input *in)
{
    uint64_t max = in->left < INPUT_BUFFER ? in->left : INPUT_BUFFER; /* held is empty: left is all unread */
    size_t got;

    TRY(read_some(c, in, in->buffer, (size_t)max, &got));
    in->at = 0;
    in->held = (uint32_t)got;
    return NULL;
}

struct error *input_body(struct call *c, struct input *in, void *to, size_t n)
{
    char *p = to;

    if (n > in->left)
        return input_bad(c, in, "the record's body is too short");
    while (n > 0) {
        if (in->at == in->held && n >= DIRECT_MIN) {
            TRY(input_exact(c, in, p, n));
            in->left -= n;
            return NULL;
        }
        if (in->at == in->held)
            TRY(fill(c, in));
        size_t part = in->held - in->at < n ? in->held - in->at : n;
        memcpy(p, in->buffer + in->at, part);
        in->at += (uint32_t)part;
        in->left -= part;
        p += part;
        n -= part;
    }
    return NULL;
}

/* Whole units in the buffer: what is held is moved to its front, then the units are completed. */
static struct error *fill_units(struct call *c, struct input *in)
{
    uint32_t held = in->held - in->at;
    uint64_t max = in->left < INPUT_BUFFER ? in->left : INPUT_BUFFER;
    size_t got;

    memmove(in->buffer, in->buffer + in->at, held);
    in->at = 0;
    in->held = held;
    while (in->held < INPUT_UNIT || in->held % INPUT_UNIT != 0) {
        TRY(read_some(c, in, in->buffer + in->held, (size_t)max - in->held, &got));
        in->held += (uint32_t)got;
    }
    return NULL;
}

struct error *input_borrow(struct call *c, struct input *in, size_t n, const uint8_t **bytes_r, size_t *n_r)
{
    if (n > in->left)
        return input_bad(c, in, "the record's body is too short");
    if (in->held - in->at < INPUT_UNIT)
        TRY(fill_units(c, in));
    size_t held = (in->held - in->at) / INPUT_UNIT * INPUT_UNIT;
    *n_r = held < n ? held : n;
    *bytes_r = in->buffer + in->at;
    in->at += (uint32_t)*n_r;
    in->left -= *n_r;
    return NULL;
}

struct error *input_skip(struct call *c, struct input *in, uint64_t n)
{
    char scratch[4096];

    while (n > 0) {
        size_t part = n < sizeof(scratch) ? (size_t)n : sizeof(scratch);
        TRY(input_body(c, in, scratch, part));
        n -= part;
    }
    return NULL;
}
