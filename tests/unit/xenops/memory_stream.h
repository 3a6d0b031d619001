/* A byte stream in memory for tests: what is written is kept, what is kept is read. */
#ifndef TESTS_UNIT_XENOPS_MEMORY_STREAM_H
#define TESTS_UNIT_XENOPS_MEMORY_STREAM_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "rpc/base/bytes.h"
#include "rpc/base/text.h"

struct memory_stream {
    struct byte_stream stream; /* first member */
    struct text kept;
    size_t at;       /* of the reader */
    size_t step;     /* at most so many bytes a read; 0: all */
    size_t fail_at;  /* writing beyond this many bytes fails with -EPIPE; 0: never */
    void (*on_write)(void *ctx); /* after every write; may be NULL */
    void *ctx;
};

static inline ssize_t memory_stream_read(struct byte_stream *s, void *to, size_t n)
{
    struct memory_stream *m = (struct memory_stream *)s;
    size_t left = m->kept.len - m->at;

    n = n < left ? n : left;
    n = m->step > 0 && m->step < n ? m->step : n;
    if (n > 0)
        memcpy(to, m->kept.bytes + m->at, n);
    m->at += n;
    return (ssize_t)n;
}

static inline int memory_stream_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    struct memory_stream *m = (struct memory_stream *)s;

    for (int i = 0; i < n; i++)
        if (parts[i].iov_len > 0)
            text_add_len(&m->kept, parts[i].iov_base, parts[i].iov_len);
    if (m->on_write != NULL)
        m->on_write(m->ctx);
    return m->fail_at > 0 && m->kept.len > m->fail_at ? -EPIPE : 0;
}

static inline int memory_stream_nothing(struct byte_stream *s) { return 0; }
static inline void memory_stream_void(struct byte_stream *s) {}
static inline int memory_stream_fd(const struct byte_stream *s) { return -1; }
static inline size_t memory_stream_pending(const struct byte_stream *s) { return 0; }

static const struct byte_stream_ops memory_stream_ops = {
    .name = "memory",
    .read = memory_stream_read,
    .writev = memory_stream_writev,
    .finish = memory_stream_nothing,
    .abort = memory_stream_void,
    .close = memory_stream_void,
    .fd = memory_stream_fd,
    .pending = memory_stream_pending,
};

static inline void memory_stream_init(struct memory_stream *m)
{
    *m = (struct memory_stream){ .stream = { .ops = &memory_stream_ops } };
}
static inline void memory_stream_release(struct memory_stream *m) { text_release(&m->kept); }

#endif
