/* Post-copy, the source's side: what is asked for first, the rest in between, no more on its way than need be. */
#include <errno.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "xenops/stream/postcopy.h"

#define BATCH 32u            /* pages of the rest at a time */
#define MARKS 1024u          /* batches on their way */
#define WINDOW_MIN 64u       /* pages on their way */
#define WINDOW_MAX (MARKS / 2 * BATCH)
#define WAIT_MS 1000
#define RATE_DECAY 0.9

/* When a batch went out, to learn from its TAKEN how fast the link is. */
struct mark {
    uint64_t sent;  /* pages with it */
    uint64_t taken; /* then */
    int64_t us;
};

struct pusher {
    struct call *c;
    struct byte_stream *stream;
    const struct postcopy_source *source;
    struct postcopy_sent *sent;
    uint64_t left, cursor; /* pages to go; where to look for the next */
    uint64_t taken, window;
    double rate;           /* pages/s */
    int64_t trip_us;       /* the shortest round trip; 0: none yet */
    struct mark marks[MARKS];
    unsigned first, n_marks;
    uint64_t pfns[POSTCOPY_BATCH_MAX];
    struct iovec parts[POSTCOPY_BATCH_MAX + 2];
    bool done;
};

static bool is_left(const struct pusher *p, uint64_t page)
{
    return (atomic_load_explicit(&p->source->left[page / 64], memory_order_relaxed) >> (page % 64) & 1) != 0;
}

static void strike_out(struct pusher *p, uint64_t page)
{
    atomic_fetch_and_explicit(&p->source->left[page / 64], ~(1ull << (page % 64)), memory_order_relaxed);
    p->left--;
}

static bool is_empty(const uint8_t *page)
{
    uint64_t head;

    memcpy(&head, page, sizeof(head));
    return head == 0 && memcmp(page, page + 8, LIBXC_PAGE - 8) == 0;
}

static void mark_add(struct pusher *p)
{
    if (p->n_marks == MARKS) { /* the oldest tells nothing any more */
        p->first = (p->first + 1) % MARKS;
        p->n_marks--;
    }
    p->marks[(p->first + p->n_marks++) % MARKS] = (struct mark){ p->sent->pages, p->taken, clock_us(p->c->clock) };
}

/* The n pages of p->pfns, as plain page numbers. */
static struct error *send_pages(struct pusher *p, unsigned n)
{
    struct postcopy_frame f = { .magic = POSTCOPY_MAGIC, .type = POSTCOPY_PAGES, .count = n };
    int parts = 2;

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *page = p->source->memory + p->pfns[i] * LIBXC_PAGE;
        strike_out(p, p->pfns[i]);
        p->cursor = p->pfns[i] + 1;
        if (is_empty(page)) {
            p->pfns[i] = LIBXC_PFN(LIBXC_PFN_ALLOCATE, p->pfns[i]);
            continue;
        }
        if (parts > 2 && page == (uint8_t *)p->parts[parts - 1].iov_base + p->parts[parts - 1].iov_len)
            p->parts[parts - 1].iov_len += LIBXC_PAGE;
        else
            p->parts[parts++] = (struct iovec){ .iov_base = (void *)page, .iov_len = LIBXC_PAGE };
    }
    p->parts[0] = (struct iovec){ .iov_base = &f, .iov_len = sizeof(f) };
    p->parts[1] = (struct iovec){ .iov_base = p->pfns, .iov_len = n * sizeof(uint64_t) };
    p->sent->pages += n;
    mark_add(p);
    return postcopy_write(p->c, p->stream, p->parts, parts);
}

/* The next pages from the cursor on, round and round. */
static struct error *send_some(struct pusher *p)
{
    uint64_t words = POSTCOPY_WORDS(p->source->n_pages), from = p->cursor < p->source->n_pages ? p->cursor : 0;
    unsigned n = 0;

    for (uint64_t i = 0; i <= words && n < BATCH; i++) {
        uint64_t w = (from / 64 + i) % words;
        uint64_t bits = atomic_load_explicit(&p->source->left[w], memory_order_relaxed);
        if (i == 0)
            bits &= UINT64_MAX << (from % 64);
        else if (i == words)
            bits &= ~(UINT64_MAX << (from % 64)); /* the part before the cursor, last */
        for (; bits != 0 && n < BATCH; bits &= bits - 1)
            p->pfns[n++] = w * 64 + (uint64_t)__builtin_ctzll(bits);
    }
    return send_pages(p, n);
}

static struct error *on_want(struct pusher *p, uint32_t count)
{
    uint64_t wanted[POSTCOPY_WANT_MAX];
    unsigned n = 0;

    TRY(postcopy_read(p->c, p->stream, wanted, count * sizeof(uint64_t)));
    for (uint32_t i = 0; i < count; i++) {
        if (wanted[i] >= p->source->n_pages)
            return err_internal(p->c->arena, "post-copy: page %llu is wanted, beyond the domain", (unsigned long long)wanted[i]);
        bool twice = false;
        for (unsigned k = 0; k < n; k++)
            twice |= p->pfns[k] == wanted[i];
        if (!twice && is_left(p, wanted[i]))
            p->pfns[n++] = wanted[i];
    }
    p->sent->wanted += count;
    return n > 0 ? send_pages(p, n) : NULL;
}

/* The window follows the rate at which pages are taken: enough for the round trip and POSTCOPY_QUEUE_MS. */
static struct error *on_taken(struct pusher *p, uint64_t taken)
{
    int64_t now = clock_us(p->c->clock);
    const struct mark *m = NULL;

    if (taken < p->taken || taken > p->sent->pages)
        return err_internal(p->c->arena, "post-copy: %llu pages taken of %llu", (unsigned long long)taken, (unsigned long long)p->sent->pages);
    for (; p->n_marks > 0 && p->marks[p->first].sent <= taken; p->n_marks--, p->first = (p->first + 1) % MARKS)
        m = &p->marks[p->first];
    p->taken = taken;
    if (m == NULL || now <= m->us)
        return NULL;
    int64_t trip = now - m->us;
    double rate = (double)(taken - m->taken) * 1e6 / (double)trip, smooth = p->rate * RATE_DECAY + rate * (1 - RATE_DECAY);
    p->rate = rate > smooth ? rate : smooth;
    if (p->trip_us == 0 || trip < p->trip_us)
        p->trip_us = trip;
    double window = p->rate * ((double)p->trip_us / 1e6 + POSTCOPY_QUEUE_MS / 1e3), most = (double)p->window * 2;
    window = window > most ? most : window;
    p->window = window < WINDOW_MIN ? WINDOW_MIN : window > WINDOW_MAX ? WINDOW_MAX : (uint64_t)window;
    return NULL;
}

static struct error *hear(struct pusher *p)
{
    struct postcopy_frame f;

    TRY(postcopy_head_read(p->c, p->stream, 1u << POSTCOPY_WANT | 1u << POSTCOPY_TAKEN | 1u << POSTCOPY_DONE, &f));
    if (f.type == POSTCOPY_WANT)
        return on_want(p, f.count);
    if (f.type == POSTCOPY_TAKEN)
        return on_taken(p, f.number);
    p->done = true;
    p->sent->end = (enum postcopy_end)f.number;
    if (p->sent->end == POSTCOPY_COMPLETE && p->left > 0)
        return err_internal(p->c->arena, "post-copy: done, says the destination, but %llu pages were not sent", (unsigned long long)p->left);
    return NULL;
}

static struct error *step(struct pusher *p)
{
    bool may_send = p->left > 0 && p->sent->pages - p->taken < p->window;
    int rc = bytes_wait(p->stream, p->c->cancel != NULL ? cancel_fd(p->c->cancel) : -1, may_send ? 0 : WAIT_MS);

    if (rc == -ECANCELED || call_cancelled(p->c))
        return error_make(p->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (rc < 0)
        return err_internal(p->c->arena, "post-copy: the connection is lost: %s", strerror(-rc));
    if (rc > 0)
        return hear(p);
    return may_send ? send_some(p) : NULL;
}

struct error *postcopy_push(struct call *c, struct byte_stream *stream, const struct postcopy_source *source, struct postcopy_sent *sent)
{
    struct pusher *p = xcalloc(1, sizeof(*p));
    uint64_t before = stream->bytes_out;
    struct error *e = NULL;

    *sent = (struct postcopy_sent){ .pages = 0 };
    p->c = c;
    p->stream = stream;
    p->source = source;
    p->sent = sent;
    p->left = postcopy_count(source->left, source->n_pages);
    p->window = WINDOW_MIN;
    while (e == NULL && !p->done)
        e = step(p);
    sent->bytes = stream->bytes_out - before;
    xfree(p);
    return e;
}
