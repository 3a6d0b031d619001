#include "xenops/stream/confirm.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "rpc/base/memory.h"
#include "xenops/stream/fan_private.h"

#define PIECE (512u << 10) /* a write is no more than this, so that progress is seen */
#define PARTS 64
#define LOOK_MS 1000

/* --- the writer's side --- */

struct confirm_out {
    struct byte_stream stream; /* first member */
    struct byte_stream *under;
    _Atomic uint64_t written, confirmed;
    atomic_bool writing;
    uint8_t held[8];
    unsigned n_held;
};

/* As many parts as make a piece; the last may be cut, and then *parts begins with its rest. */
static int take_piece(struct iovec **parts, int *n, struct iovec out[PARTS], size_t *len_r)
{
    int n_out = 0;

    for (*len_r = 0; *n > 0 && n_out < PARTS && *len_r < PIECE;) {
        size_t room = PIECE - *len_r, len = (*parts)->iov_len < room ? (*parts)->iov_len : room;
        out[n_out++] = (struct iovec){ .iov_base = (*parts)->iov_base, .iov_len = len };
        *len_r += len;
        (*parts)->iov_base = (char *)(*parts)->iov_base + len;
        (*parts)->iov_len -= len;
        if ((*parts)->iov_len > 0)
            break;
        ++*parts;
        --*n;
    }
    return n_out;
}

static int out_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    struct confirm_out *o = (struct confirm_out *)s;
    struct iovec piece[PARTS];
    size_t len;
    int rc = 0;

    atomic_store(&o->writing, true);
    while (n > 0 && rc == 0) {
        int n_piece = take_piece(&parts, &n, piece, &len);
        rc = bytes_writev(o->under, piece, n_piece);
        if (rc == 0)
            atomic_fetch_add(&o->written, len);
    }
    atomic_store(&o->writing, false);
    return rc;
}

static int read_confirmation(struct confirm_out *o)
{
    uint64_t total;
    ssize_t got = bytes_read(o->under, o->held + o->n_held, sizeof(o->held) - o->n_held);

    if (got <= 0)
        return got < 0 ? (int)got : -EPIPE;
    o->n_held += (unsigned)got;
    if (o->n_held < sizeof(o->held))
        return 0;
    o->n_held = 0;
    memcpy(&total, o->held, sizeof(total));
    total = le64toh(total);
    if (total < atomic_load(&o->confirmed) || total > atomic_load(&o->written) + PIECE) /* a write may be read before it is counted */
        return -EPROTO;
    atomic_store(&o->confirmed, total);
    return 0;
}

static uint64_t out_unread(const struct confirm_out *o)
{
    uint64_t written = atomic_load(&o->written), confirmed = atomic_load(&o->confirmed);

    return written > confirmed ? written - confirmed : 0;
}

/* What lies there, without waiting. A broken stream says nothing more: the next write tells. */
static void out_poll(struct confirm_out *o)
{
    while (out_unread(o) > 0 && bytes_wait(o->under, -1, 0) > 0)
        if (read_confirmation(o) != 0)
            return;
}

static int out_wait(struct confirm_out *o, uint64_t at_most, int cancel_fd, int timeout_ms)
{
    while (out_unread(o) > at_most) {
        int step = timeout_ms < 0 || timeout_ms > LOOK_MS ? LOOK_MS : timeout_ms;
        int rc = bytes_wait(o->under, cancel_fd, step);
        if (rc > 0)
            rc = read_confirmation(o);
        else if (rc == 0 && timeout_ms >= 0 && (timeout_ms -= step) <= 0)
            return -ETIMEDOUT;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static ssize_t out_read(struct byte_stream *s, void *to, size_t n) { return -ENOTSUP; }
static int out_finish(struct byte_stream *s) { return bytes_finish(((struct confirm_out *)s)->under); }
static void out_abort(struct byte_stream *s) { bytes_abort(((struct confirm_out *)s)->under); }
static void out_close(struct byte_stream *s) { xfree(s); }
static int no_fd(const struct byte_stream *s) { return -1; }
static size_t nothing_pending(const struct byte_stream *s) { return 0; }

static const struct byte_stream_ops confirm_out_ops = {
    .name = "confirm-out",
    .read = out_read,
    .writev = out_writev,
    .finish = out_finish,
    .abort = out_abort,
    .close = out_close,
    .fd = no_fd,
    .pending = nothing_pending,
};

struct byte_stream *confirm_out_new(struct byte_stream *under)
{
    struct confirm_out *o = xcalloc(1, sizeof(*o));

    o->stream.ops = &confirm_out_ops;
    o->under = under;
    return &o->stream;
}

void confirm_look(const struct byte_stream *s, struct confirm_state *state_r)
{
    const struct confirm_out *o = (const struct confirm_out *)s;

    *state_r = (struct confirm_state){ .written = 0 };
    if (s == NULL || s->ops != &confirm_out_ops)
        return;
    state_r->confirmed = atomic_load(&o->confirmed);
    state_r->written = atomic_load(&o->written);
    state_r->writing = atomic_load(&o->writing);
}

bool confirm_unread(struct byte_stream *s, uint64_t *unread_r)
{
    *unread_r = 0;
    if (s->ops == &fan_out_ops)
        return fan_out_unread(s, unread_r);
    if (s->ops != &confirm_out_ops)
        return false;
    out_poll((struct confirm_out *)s);
    *unread_r = out_unread((struct confirm_out *)s);
    return true;
}

int confirm_wait(struct byte_stream *s, uint64_t at_most, int cancel_fd, int timeout_ms)
{
    if (s->ops == &fan_out_ops)
        return fan_out_wait(s, at_most, cancel_fd, timeout_ms);
    return s->ops == &confirm_out_ops ? out_wait((struct confirm_out *)s, at_most, cancel_fd, timeout_ms) : 0;
}

/* --- the reader's side --- */

struct confirm_in {
    struct byte_stream stream; /* first member */
    struct byte_stream *under;
    uint64_t total, said;
    atomic_bool waiting;
};

int confirm_send(struct byte_stream *s, uint64_t total)
{
    uint64_t word = htole64(total);

    return bytes_write(s, &word, sizeof(word));
}

static ssize_t in_read(struct byte_stream *s, void *to, size_t n)
{
    struct confirm_in *i = (struct confirm_in *)s;

    atomic_store(&i->waiting, true);
    ssize_t got = bytes_read(i->under, to, n);
    atomic_store(&i->waiting, false);
    if (got <= 0)
        return got;
    i->total += (uint64_t)got;
    if (i->total - i->said >= CONFIRM_EVERY || bytes_wait(i->under, -1, 0) == 0) {
        int rc = confirm_send(i->under, i->total);
        if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET) /* a writer that is done and gone need not hear it */
            return rc;
        i->said = i->total;
    }
    return got;
}

static int in_writev(struct byte_stream *s, struct iovec *parts, int n) { return -ENOTSUP; }
static int in_finish(struct byte_stream *s) { return bytes_finish(((struct confirm_in *)s)->under); }
static void in_abort(struct byte_stream *s) { bytes_abort(((struct confirm_in *)s)->under); }

static const struct byte_stream_ops confirm_in_ops = {
    .name = "confirm-in",
    .read = in_read,
    .writev = in_writev,
    .finish = in_finish,
    .abort = in_abort,
    .close = out_close,
    .fd = no_fd,
    .pending = nothing_pending,
};

struct byte_stream *confirm_in_new(struct byte_stream *under)
{
    struct confirm_in *i = xcalloc(1, sizeof(*i));

    i->stream.ops = &confirm_in_ops;
    i->under = under;
    return &i->stream;
}

bool confirm_waits(const struct byte_stream *s)
{
    if (s->ops == &confirm_in_ops)
        return atomic_load(&((const struct confirm_in *)s)->waiting);
    return s->ops == &fan_in_ops ? fan_in_waits(s) : true;
}
