/* Where a message ends on a connection of the load generator: HTTP replies, or bare JSON objects.
 *
 * Bodies are counted, not kept, but for their beginning. JSON is cut by its brackets alone: the texts
 * of the benchmark hold none. */
#ifndef TESTS_BENCH_FRAME_H
#define TESTS_BENCH_FRAME_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

enum frame_kind { FRAME_HTTP, FRAME_JSON };
enum frame_state { FRAME_HEAD, FRAME_LENGTH, FRAME_CHUNK_SIZE, FRAME_CHUNK, FRAME_CHUNK_END, FRAME_TRAILER, FRAME_CLOSE };

struct frame {
    enum frame_kind kind;
    enum frame_state state;
    bool closes;      /* HTTP: the end of the connection ends this reply, or follows it */
    int64_t left;     /* of the body or the chunk; JSON: open brackets */
    unsigned line_len, head_len, kept_len;
    char line[32];    /* a chunk's size */
    char head[2048];
    char kept[1024];  /* how the body begins */
};

static inline void frame_reset(struct frame *f)
{
    f->state = FRAME_HEAD;
    f->left = 0;
    f->line_len = f->head_len = f->kept_len = 0;
}

static inline void frame_keep(struct frame *f, const char *bytes, size_t n)
{
    size_t room = sizeof(f->kept) - 1 - f->kept_len;

    n = n < room ? n : room;
    memcpy(f->kept + f->kept_len, bytes, n);
    f->kept_len += (unsigned)n;
    f->kept[f->kept_len] = '\0';
}

static inline const char *frame_header(const struct frame *f, const char *name)
{
    const char *at = strcasestr(f->head, name);

    return at != NULL ? at + strlen(name) : NULL;
}

static inline void frame_head_done(struct frame *f)
{
    const char *length = frame_header(f, "\r\ncontent-length:");
    const char *coding = frame_header(f, "\r\ntransfer-encoding: chunked");
    bool http10 = strncmp(f->head, "HTTP/1.0", 8) == 0;

    f->closes = http10 || frame_header(f, "\r\nconnection: close") != NULL;
    f->state = coding != NULL ? FRAME_CHUNK_SIZE : length != NULL ? FRAME_LENGTH : FRAME_CLOSE;
    f->left = length != NULL ? strtoll(length, NULL, 10) : 0;
}

/* One byte of the head; false when it is too long. */
static inline bool frame_head_byte(struct frame *f, char byte)
{
    if (f->head_len + 1 >= sizeof(f->head))
        return false;
    f->head[f->head_len++] = byte;
    f->head[f->head_len] = '\0';
    if (byte == '\n' && f->head_len >= 4 && memcmp(f->head + f->head_len - 4, "\r\n\r\n", 4) == 0)
        frame_head_done(f);
    return true;
}

/* One byte of a chunk's size line, the line end after a chunk, or a trailer. */
static inline void frame_line_byte(struct frame *f, char byte, bool *done_r)
{
    if (byte != '\n') {
        if (byte != '\r' && f->line_len + 1 < sizeof(f->line))
            f->line[f->line_len++] = byte;
        return;
    }
    f->line[f->line_len] = '\0';
    if (f->state == FRAME_CHUNK_SIZE) {
        f->left = strtoll(f->line, NULL, 16);
        f->state = f->left > 0 ? FRAME_CHUNK : FRAME_TRAILER;
    } else if (f->state == FRAME_CHUNK_END)
        f->state = FRAME_CHUNK_SIZE;
    else if (f->line_len == 0)
        *done_r = true;
    f->line_len = 0;
}

static inline size_t frame_body(struct frame *f, const char *bytes, size_t n, bool *done_r)
{
    size_t take = f->state == FRAME_CLOSE || (int64_t)n < f->left ? n : (size_t)f->left;

    frame_keep(f, bytes, take);
    if (f->state == FRAME_CLOSE)
        return take;
    f->left -= (int64_t)take;
    if (f->left == 0 && f->state == FRAME_CHUNK)
        f->state = FRAME_CHUNK_END;
    else if (f->left == 0)
        *done_r = true;
    return take;
}

static inline ssize_t frame_feed_http(struct frame *f, const char *bytes, size_t n, bool *done_r)
{
    size_t at = 0;

    while (at < n && !*done_r) {
        if (f->state == FRAME_HEAD) {
            if (!frame_head_byte(f, bytes[at++]))
                return -1;
            *done_r = f->state == FRAME_LENGTH && f->left == 0;
        } else if (f->state == FRAME_LENGTH || f->state == FRAME_CHUNK || f->state == FRAME_CLOSE)
            at += frame_body(f, bytes + at, n - at, done_r);
        else
            frame_line_byte(f, bytes[at++], done_r);
    }
    return (ssize_t)at;
}

static inline ssize_t frame_feed_json(struct frame *f, const char *bytes, size_t n, bool *done_r)
{
    size_t at = 0;

    while (at < n && !*done_r) {
        char byte = bytes[at++];
        f->left += (byte == '{') - (byte == '}');
        *done_r = byte == '}' && f->left == 0;
    }
    frame_keep(f, bytes, at);
    return (ssize_t)at;
}

/* Takes bytes up to the end of one message: how many, or -1 for nonsense. */
static inline ssize_t frame_feed(struct frame *f, const char *bytes, size_t n, bool *done_r)
{
    *done_r = false;
    return f->kind == FRAME_HTTP ? frame_feed_http(f, bytes, n, done_r) : frame_feed_json(f, bytes, n, done_r);
}

#endif
