/* The reading side of a fan. Each connection has a thread that reads, unpacks and checks blocks, two of them ahead; the reader
 * takes them as they come while no barrier stands, and connection 0's while one does.
 *
 * What is read is not trusted: every length is checked against its limit before anything is allocated or read, every pfn
 * against its connection. Whatever is wrong ends the whole fan, with a text that says what. */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xenops/stream/confirm.h"
#include "xenops/stream/fan_private.h"
#include "xenops/stream/pack.h"

#define AHEAD 2u
#define FAULT_TEXT 200

struct block { struct fan_head head; uint8_t *bytes; size_t room; }; /* plain bytes */

struct fan_source {
    struct fan_in *fan;
    struct byte_stream *from;
    unsigned index;
    pthread_t thread;
    struct unpacker *unpacker; /* its thread's */
    uint8_t *packed;
    uint64_t total;            /* bytes of all blocks read: its thread's */
    struct block ring[AHEAD];  /* at 'first' and following: 'held' of them are the reader's */
    uint64_t ends[AHEAD];      /* 'total' behind each */
    unsigned first, held;      /* lock */
    bool at_barrier;           /* the reader's */
};

struct fan_in {
    struct byte_stream stream; /* first member */
    unsigned n;
    bool confirm;
    struct fan_source source[FAN_MAX];
    struct lock lock;
    struct cond changed;
    int failed;                /* lock: -errno */
    char fault[FAULT_TEXT];    /* lock: set once */
    bool ending;               /* lock */
    atomic_bool waiting;
    /* the reader's */
    bool barrier, ended;
    uint32_t number;
    unsigned next;             /* where it looks first */
    struct fan_source *current; /* its first block is being read */
    size_t at;
};

/* --- failing --- */

static int fail(struct fan_in *f, int rc, const char *fmt, ...) PRINTF(3, 4);
static int fail(struct fan_in *f, int rc, const char *fmt, ...)
{
    va_list args;

    LOCK_SCOPE(&f->lock);
    if (f->failed == 0) {
        f->failed = rc;
        va_start(args, fmt);
        vsnprintf(f->fault, sizeof(f->fault), fmt, args);
        va_end(args);
    }
    cond_broadcast(&f->changed);
    return rc;
}

static int bad(struct fan_source *s, const char *what, unsigned long long number)
{
    return fail(s->fan, -EPROTO, "connection %u: %s (%llu)", s->index, what, number);
}

/* --- one connection's thread --- */

static int read_exact(struct fan_source *s, void *to, size_t n)
{
    int rc = bytes_read_all(s->from, to, n);

    s->total += n;
    return rc == 0 ? 0 : fail(s->fan, rc, "connection %u ended: %s", s->index, strerror(-rc));
}

static int check_head(struct fan_source *s, const struct fan_head *h)
{
    if (h->zero != 0)
        return bad(s, "reserved bits in a block's head", h->zero);
    switch ((enum fan_kind)h->kind) {
    case FAN_PAGES:
        return h->length == h->plain && h->length <= FAN_RECORD_MAX ? 0 : bad(s, "a block of pages of a wrong length", h->length);
    case FAN_ZSTD:
        return h->length > 0 && h->length < h->plain && h->plain <= FAN_RECORD_MAX ? 0 : bad(s, "a compressed block of a wrong length", h->plain);
    case FAN_RAW:
        if (s->index != 0)
            return bad(s, "a block of other bytes", h->length);
        return h->length > 0 && h->length == h->plain && h->length <= FAN_RAW_MAX ? 0 : bad(s, "other bytes of a wrong length", h->length);
    case FAN_RELEASE:
        return s->index == 0 && h->length == 0 && h->plain == 0 ? 0 : bad(s, "a release out of place", h->length);
    case FAN_BARRIER:
        return h->length == 0 ? 0 : bad(s, "a barrier with a body", h->length);
    case FAN_END:
        return h->length == 0 && h->plain == 0 ? 0 : bad(s, "an end with a body", h->length);
    }
    return bad(s, "a block of unknown kind", h->kind);
}

/* Pages are for the memory of this connection's stripes, whole, and nothing else. */
static int check_pages(struct fan_source *s, const struct block *b)
{
    struct { struct libxc_record_head record; struct libxc_page_head page; } head;
    uint64_t data = 0, word;

    if (b->head.plain < sizeof(head))
        return bad(s, "a block of pages that is cut", b->head.plain);
    memcpy(&head, b->bytes, sizeof(head));
    if (head.record.type != LIBXC_PAGE_DATA || head.record.length != b->head.plain - sizeof(head.record))
        return bad(s, "a block of pages that is no PAGE_DATA record", head.record.type);
    if (head.page.count == 0 || head.page.count > FAN_PFNS_MAX || head.page.reserved != 0 || sizeof(head) + head.page.count * 8ull > b->head.plain)
        return bad(s, "a PAGE_DATA record with a wrong count", head.page.count);
    for (uint32_t i = 0; i < head.page.count; i++) {
        memcpy(&word, b->bytes + sizeof(head) + i * 8ull, sizeof(word));
        if (fan_stripe(word & LIBXC_PFN_MASK, s->fan->n) != s->index)
            return bad(s, "a page of another connection's stripe", word & LIBXC_PFN_MASK);
        data += LIBXC_PFN_TYPE(word) < LIBXC_PFN_BROKEN;
    }
    if (b->head.plain != sizeof(head) + head.page.count * 8ull + data * LIBXC_PAGE)
        return bad(s, "a PAGE_DATA record of a wrong length", b->head.plain);
    return 0;
}

static int read_packed(struct fan_source *s, struct block *b)
{
    int rc;

    if (s->unpacker == NULL) {
        s->unpacker = unpacker_new();
        s->packed = xcalloc(1, FAN_RECORD_MAX);
    }
    rc = read_exact(s, s->packed, b->head.length);
    if (rc != 0)
        return rc;
    return unpack(s->unpacker, b->bytes, b->head.plain, s->packed, b->head.length) == 0 ? 0 : bad(s, "a block that cannot be unpacked", b->head.length);
}

static int read_block(struct fan_source *s, struct block *b)
{
    int rc = read_exact(s, &b->head, sizeof(b->head));

    if (rc == 0)
        rc = check_head(s, &b->head);
    if (rc != 0 || b->head.length == 0)
        return rc;
    if (b->room < b->head.plain) {
        xfree(b->bytes);
        b->room = b->head.plain;
        b->bytes = xcalloc(1, b->room);
    }
    rc = b->head.kind == FAN_ZSTD ? read_packed(s, b) : read_exact(s, b->bytes, b->head.length);
    return rc == 0 && b->head.kind != FAN_RAW ? check_pages(s, b) : rc;
}

/* A free place of the ring; NULL when the fan ends. */
static struct block *free_block(struct fan_source *s, unsigned *at_r)
{
    struct fan_in *f = s->fan;

    LOCK_SCOPE(&f->lock);
    while (s->held == AHEAD && !f->ending && f->failed == 0)
        cond_wait(&f->changed, &f->lock);
    if (f->ending || f->failed != 0)
        return NULL;
    *at_r = (s->first + s->held) % AHEAD;
    return &s->ring[*at_r];
}

static void *source_run(void *arg)
{
    struct fan_source *s = arg;
    struct fan_in *f = s->fan;
    struct block *b;
    unsigned at;

    while ((b = free_block(s, &at)) != NULL && read_block(s, b) == 0) {
        bool end = b->head.kind == FAN_END; /* what follows is not ours to read */
        s->ends[at] = s->total;
        lock_take(&f->lock);
        s->held++;
        cond_broadcast(&f->changed);
        lock_drop(&f->lock);
        if (end)
            break;
    }
    return NULL;
}

/* --- the reader --- */

/* Gives the first block of a connection back. The writer hears what was taken. */
static int drop_block(struct fan_in *f, struct fan_source *s)
{
    uint64_t total = s->ends[s->first];

    lock_take(&f->lock);
    s->first = (s->first + 1) % AHEAD;
    s->held--;
    cond_broadcast(&f->changed);
    lock_drop(&f->lock);
    if (!f->confirm)
        return 0;
    int rc = confirm_send(s->from, total);
    return rc == -EPIPE || rc == -ECONNRESET ? 0 : rc; /* the next read tells */
}

/* The connection whose block is next: any that is not at the barrier; while it stands connection 0, or, at the end, all. */
static struct fan_source *next_source(struct fan_in *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        struct fan_source *s = &f->source[(f->next + i) % f->n];
        bool may = f->barrier ? s->index == 0 : !s->at_barrier;
        if (may && s->held > 0) {
            f->next = (s->index + 1) % f->n;
            return s;
        }
    }
    return NULL;
}

static int wait_block(struct fan_in *f, struct fan_source **s_r)
{
    LOCK_SCOPE(&f->lock);
    atomic_store(&f->waiting, true);
    while (f->failed == 0 && (*s_r = next_source(f)) == NULL)
        cond_wait(&f->changed, &f->lock);
    atomic_store(&f->waiting, false);
    return f->failed;
}

static void set_barrier(struct fan_in *f, bool on)
{
    f->barrier = on;
    f->next = 0;
    for (unsigned i = 0; i < f->n; i++)
        f->source[i].at_barrier = on;
}

static int come_to_barrier(struct fan_in *f, struct fan_source *s, uint32_t number)
{
    bool all = true;

    if (number != f->number + 1)
        return bad(s, "a barrier of a wrong number", number);
    s->at_barrier = true;
    for (unsigned i = 0; i < f->n; i++)
        all = all && f->source[i].at_barrier;
    if (all) {
        f->number = number;
        set_barrier(f, true);
    }
    return 0;
}

/* The others must end too, and with nothing before it. */
static int come_to_end(struct fan_in *f)
{
    for (unsigned i = 1; i < f->n; i++) {
        struct fan_source *s = &f->source[i];
        lock_take(&f->lock);
        atomic_store(&f->waiting, true);
        while (f->failed == 0 && s->held == 0)
            cond_wait(&f->changed, &f->lock);
        atomic_store(&f->waiting, false);
        int rc = f->failed;
        uint32_t kind = s->ring[s->first].head.kind;
        lock_drop(&f->lock);
        if (rc == 0 && kind != FAN_END)
            rc = bad(s, "a block behind the image's end", kind);
        if (rc == 0)
            rc = drop_block(f, s);
        if (rc != 0)
            return rc;
    }
    f->ended = true;
    return 0;
}

/* A block without bytes, or one out of place. */
static int handle(struct fan_in *f, struct fan_source *s, const struct fan_head *h)
{
    switch ((enum fan_kind)h->kind) {
    case FAN_BARRIER:
        return f->barrier ? bad(s, "a barrier at a barrier", h->plain) : come_to_barrier(f, s, h->plain);
    case FAN_RELEASE:
        if (!f->barrier)
            return bad(s, "a release without a barrier", 0);
        set_barrier(f, false);
        return 0;
    case FAN_END:
        return f->barrier ? come_to_end(f) : bad(s, "an end without a barrier", 0);
    case FAN_PAGES:
    case FAN_ZSTD:
        return bad(s, "pages at a barrier", h->plain);
    case FAN_RAW:
        break;
    }
    return bad(s, "other bytes without a barrier", h->plain);
}

/* Until there is a block with bytes, or the end. */
static int advance(struct fan_in *f)
{
    while (f->current == NULL && !f->ended) {
        struct fan_source *s = NULL;
        int rc = wait_block(f, &s);
        if (rc != 0)
            return rc;
        const struct fan_head h = s->ring[s->first].head;
        bool pages = h.kind == FAN_PAGES || h.kind == FAN_ZSTD;
        if (f->barrier ? h.kind == FAN_RAW : pages) {
            f->current = s;
            f->at = 0;
            return 0;
        }
        rc = handle(f, s, &h);
        if (rc == 0)
            rc = drop_block(f, s);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static ssize_t in_read(struct byte_stream *b, void *to, size_t n)
{
    struct fan_in *f = (struct fan_in *)b;
    int rc = advance(f);

    if (rc != 0)
        return rc;
    if (f->ended)
        return 0;
    const struct block *block = &f->current->ring[f->current->first];
    size_t left = block->head.plain - f->at, part = n < left ? n : left;
    memcpy(to, block->bytes + f->at, part);
    f->at += part;
    if (f->at < block->head.plain)
        return (ssize_t)part;
    struct fan_source *done = f->current;
    f->current = NULL;
    rc = drop_block(f, done);
    return rc < 0 ? rc : (ssize_t)part;
}

static int in_writev(struct byte_stream *s, struct iovec *parts, int n) { return -ENOTSUP; }
static int in_finish(struct byte_stream *s) { return 0; }
static int no_fd(const struct byte_stream *s) { return -1; }
static size_t nothing_pending(const struct byte_stream *s) { return 0; }

static void in_abort(struct byte_stream *s)
{
    struct fan_in *f = (struct fan_in *)s;

    for (unsigned i = 0; i < f->n; i++)
        bytes_abort(f->source[i].from);
    (void)fail(f, -ECONNABORTED, "aborted");
}

/* The threads may still read: only after END do they stop by themselves. */
static void in_close(struct byte_stream *s)
{
    struct fan_in *f = (struct fan_in *)s;

    lock_take(&f->lock);
    f->ending = true;
    cond_broadcast(&f->changed);
    lock_drop(&f->lock);
    for (unsigned i = 0; !f->ended && i < f->n; i++)
        bytes_abort(f->source[i].from);
    for (unsigned i = 0; i < f->n; i++) {
        struct fan_source *source = &f->source[i];
        pthread_join(source->thread, NULL);
        unpacker_free(source->unpacker);
        xfree(source->packed);
        for (unsigned k = 0; k < AHEAD; k++)
            xfree(source->ring[k].bytes);
    }
    cond_release(&f->changed);
    lock_release(&f->lock);
    xfree(f);
}

const struct byte_stream_ops fan_in_ops = {
    .name = "fan-in",
    .read = in_read,
    .writev = in_writev,
    .finish = in_finish,
    .abort = in_abort,
    .close = in_close,
    .fd = no_fd,
    .pending = nothing_pending,
};

struct byte_stream *fan_in_new(struct byte_stream *const *connections, unsigned n, bool confirm)
{
    struct fan_in *f = xcalloc(1, sizeof(*f));

    f->stream.ops = &fan_in_ops;
    f->n = n;
    f->confirm = confirm;
    lock_init(&f->lock, LOCK_LEAF);
    cond_init(&f->changed);
    set_barrier(f, true);
    for (unsigned i = 0; i < n; i++) {
        f->source[i].fan = f;
        f->source[i].index = i;
        f->source[i].from = connections[i];
    }
    for (unsigned i = 0; i < n; i++)
        f->source[i].thread = thread_start("migrate-source", source_run, &f->source[i]);
    return &f->stream;
}

const char *fan_in_fault(struct byte_stream *s)
{
    struct fan_in *f = (struct fan_in *)s;

    LOCK_SCOPE(&f->lock);
    return f->failed != 0 ? f->fault : NULL;
}

bool fan_in_waits(const struct byte_stream *s) { return atomic_load(&((const struct fan_in *)s)->waiting); }
