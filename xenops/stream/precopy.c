#include "xenops/stream/precopy.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/stream/output.h"

LOG_MODULE(precopy);

#define PROGRESS_MS 100
#define CHUNK_PAGES 1024u    /* one look for holes */
#define BURST_MS 50          /* a capped batch is no more than this at the cap */
#define FIRST_ROUND_PART 0.7 /* of the progress bar */
#define LIVE_PART 0.95
#define MEASURED_MIN_US 2000 /* a shorter round says nothing about the link */
#define CALLBACK_SLOW_US 20000

struct saver {
    struct call *c;
    const struct precopy_source *source;
    const struct save_policy *policy;
    const struct save_callbacks *callbacks;
    struct stream_output out;
    uint64_t *sent;       /* one bit a page: it went out, or was said to be empty */
    uint64_t n_words;
    bool capped;          /* the bandwidth limit holds: not in the last round */
    uint64_t stale;       /* fault: this page is left out; UINT64_MAX: none */
    int64_t started_us, paced_us; /* paced: when the bytes so far may have been sent */
    uint64_t paced_bytes;
    int64_t reported_ms;
    struct save_progress progress;
    uint64_t round_pages; /* to send in this round */
    uint64_t round_done;
};

static int64_t now_us(const struct saver *s) { return clock_us(s->c->clock); }

/* --- progress and pace --- */

static void report(struct saver *s, bool now)
{
    struct save_progress *p = &s->progress;
    int64_t ms = now_us(s) / 1000;
    double in_round = s->round_pages > 0 ? (double)s->round_done / (double)s->round_pages : 1, f;

    if (s->callbacks == NULL || s->callbacks->progress == NULL || (!now && ms - s->reported_ms < PROGRESS_MS))
        return;
    if (p->suspended)
        f = LIVE_PART + (1 - LIVE_PART) * in_round;
    else if (p->round == 0)
        f = FIRST_ROUND_PART * in_round;
    else
        f = LIVE_PART - (LIVE_PART - FIRST_ROUND_PART) / (double)(1u << (p->round < 20 ? p->round - 1 : 19)) * (1 - in_round / 2);
    f = f > 1 ? 1 : f;
    p->fraction = f > p->fraction ? f : p->fraction;
    p->pages_sent = (int64_t)s->out.pages_sent;
    p->bytes_sent = (int64_t)output_bytes(&s->out);
    s->reported_ms = ms;
    s->callbacks->progress(s->callbacks->ctx, p);
}

/* Waits until the bytes sent are within the cap. Cancellation ends the wait. */
static void pace(struct saver *s)
{
    uint64_t bytes = output_bytes(&s->out);
    int64_t now = now_us(s);

    if (!s->capped || s->policy->bandwidth <= 0)
        return;
    s->paced_us += (int64_t)((double)(bytes - s->paced_bytes) * 1e6 / (double)s->policy->bandwidth);
    s->paced_bytes = bytes;
    if (s->paced_us < now - 2 * BURST_MS * 1000)
        s->paced_us = now - 2 * BURST_MS * 1000; /* unused bandwidth is not saved up */
    int64_t wait_ms = (s->paced_us - now) / 1000;
    if (wait_ms <= 0)
        return;
    struct pollfd p = { .fd = s->c->cancel != NULL ? cancel_fd(s->c->cancel) : -1, .events = POLLIN };
    (void)poll(&p, 1, (int)(wait_ms < 10000 ? wait_ms : 10000));
}

static struct error *flush(struct saver *s)
{
    TRY(output_flush(s->c, &s->out));
    pace(s);
    report(s, false);
    return NULL;
}

/* --- one page, one round --- */

static bool sent_before(const struct saver *s, uint64_t page) { return (s->sent[page / 64] >> (page % 64) & 1) != 0; }

static bool all_zero(const uint8_t *page)
{
    const uint64_t *w = (const uint64_t *)(const void *)page;

    if ((w[0] | w[1] | w[2]) != 0)
        return false;
    return memcmp(page, page + 8, LIBXC_PAGE - 8) == 0;
}

static struct error *send_page(struct saver *s, uint64_t page, bool hole)
{
    s->round_done++;
    if (page == s->stale)
        return NULL;
    if (output_is_full(&s->out))
        TRY(flush(s));
    if (!sent_before(s, page) && (hole || all_zero(s->source->memory + page * LIBXC_PAGE)))
        output_zero_page(&s->out, page);
    else
        output_page(&s->out, page);
    s->sent[page / 64] |= 1ull << (page % 64);
    return NULL;
}

/* Where the data at or after 'page' begins, at most 'end'. */
static uint64_t data_from(const struct saver *s, uint64_t page, uint64_t end, int whence)
{
    off_t at = s->source->memory_fd >= 0 ? lseek(s->source->memory_fd, (off_t)(page * LIBXC_PAGE), whence) : -1;

    if (at < 0)
        return s->source->memory_fd >= 0 && errno == ENXIO ? end : whence == SEEK_DATA ? page : end;
    uint64_t found = (uint64_t)at / LIBXC_PAGE;
    return found < end ? found : end;
}

/* Round 0. The bits of a chunk are cleared before its holes are looked for: a page that is stored in
 * between is dirty again. */
static struct error *send_chunk(struct saver *s, uint64_t from, uint64_t to)
{
    for (uint64_t w = from / 64; w < (to + 63) / 64; w++)
        atomic_exchange_explicit(&s->source->dirty[w], 0, memory_order_acquire);
    while (from < to) {
        uint64_t data = data_from(s, from, to, SEEK_DATA);
        for (; from < data; from++)
            TRY(send_page(s, from, true));
        uint64_t hole = from < to ? data_from(s, from, to, SEEK_HOLE) : to;
        for (; from < hole; from++)
            TRY(send_page(s, from, false));
    }
    return NULL;
}

static struct error *send_all(struct saver *s)
{
    uint64_t n = s->source->n_pages;

    for (uint64_t from = 0; from < n; from += CHUNK_PAGES)
        TRY(send_chunk(s, from, from + CHUNK_PAGES < n ? from + CHUNK_PAGES : n));
    return flush(s);
}

static struct error *send_dirty(struct saver *s)
{
    for (uint64_t w = 0; w < s->n_words; w++) {
        if (atomic_load_explicit(&s->source->dirty[w], memory_order_relaxed) == 0)
            continue;
        uint64_t bits = atomic_exchange_explicit(&s->source->dirty[w], 0, memory_order_acquire);
        for (; bits != 0; bits &= bits - 1)
            TRY(send_page(s, w * 64 + (uint64_t)__builtin_ctzll(bits), false));
    }
    return flush(s);
}

static uint64_t count_dirty(const struct saver *s)
{
    uint64_t n = 0;

    for (uint64_t w = 0; w < s->n_words; w++)
        n += (uint64_t)__builtin_popcountll(atomic_load_explicit(&s->source->dirty[w], memory_order_relaxed));
    return n;
}

/* --- the live part --- */

static double throughput_of(const struct saver *s, uint64_t pages, int64_t us)
{
    int64_t whole = now_us(s) - s->started_us;

    if (us >= MEASURED_MIN_US)
        return (double)pages * 1e6 / (double)us;
    return whole > 0 ? (double)s->out.pages_sent * 1e6 / (double)whole : 0;
}

static struct error *live_rounds(struct saver *s)
{
    struct precopy_facts f = { .previous = s->source->n_pages };
    enum precopy_decision d = PRECOPY_GO_ON;

    s->round_pages = s->source->n_pages;
    while (d == PRECOPY_GO_ON) {
        int64_t began = now_us(s);
        uint64_t before = s->out.pages_sent;
        s->round_done = 0;
        TRY(s->progress.round == 0 ? send_all(s) : send_dirty(s));
        int64_t us = now_us(s) - began;
        f.rounds = ++s->progress.round;
        f.dirty = s->round_pages = count_dirty(s);
        double measured = throughput_of(s, s->out.pages_sent - before, us);
        if (us >= MEASURED_MIN_US || f.throughput <= 0)
            f.throughput = measured;
        s->progress.pages_dirty = (int64_t)f.dirty;
        s->progress.dirty_rate = us > 0 ? (double)f.dirty * 1e6 / (double)us : 0;
        s->round_done = 0;
        report(s, false);
        d = precopy_decide(&f, s->policy);
    }
    log_debug("pre-copy ends after %u rounds (%s): %llu pages dirty, %.0f pages/s", f.rounds,
              d == PRECOPY_FITS ? "the rest fits" : d == PRECOPY_MAX_ROUNDS ? "enough" : "no progress", (unsigned long long)f.dirty,
              f.throughput);
    return NULL;
}

/* --- the last part: the guest stands --- */

/* The page to leave out: a dirty one, else any that holds data (its older version is the empty page). */
static uint64_t stale_page(struct saver *s, bool live)
{
    for (uint64_t w = 0; live && w < s->n_words; w++) {
        uint64_t bits = atomic_load(&s->source->dirty[w]);
        if (bits != 0)
            return w * 64 + (uint64_t)__builtin_ctzll(bits);
    }
    return data_from(s, 0, s->source->n_pages - 1, SEEK_DATA);
}

/* A guest that dirtied nothing: the receiver gets the page as it was before the guest ever wrote it. */
static struct error *send_empty_page(struct saver *s, uint64_t page)
{
    static const uint8_t empty[LIBXC_PAGE];

    TRY(output_flush(s->c, &s->out));
    output_page(&s->out, page);
    s->out.instead = empty;
    struct error *e = output_flush(s->c, &s->out);
    s->out.instead = NULL;
    return e;
}

static struct error *last_round(struct saver *s, bool live)
{
    s->capped = false;
    s->progress.suspended = true;
    s->round_done = 0;
    s->round_pages = live ? count_dirty(s) : s->source->n_pages;
    report(s, true);
    if (s->source->stale_page)
        s->stale = stale_page(s, live);
    TRY(live ? send_dirty(s) : send_all(s));
    if (s->stale != UINT64_MAX && sent_before(s, s->stale) && s->round_pages == 0)
        TRY(send_empty_page(s, s->stale));
    return NULL;
}

static struct error *finish(struct saver *s, const void *context, size_t len)
{
    if (s->callbacks != NULL && s->callbacks->after_suspend != NULL)
        TRY(s->callbacks->after_suspend(s->callbacks->ctx, s->c));
    TRY(last_round(s, s->policy->live));
    TRY(output_finish(s->c, &s->out, context, len));
    report(s, true);
    return NULL;
}

/* The toolstack's last word. If it took its time over it, the guest has gone on dirtying pages. */
static struct error *before_suspend(struct saver *s)
{
    int64_t began = now_us(s);

    if (s->callbacks == NULL || s->callbacks->before_suspend == NULL)
        return NULL;
    TRY(s->callbacks->before_suspend(s->callbacks->ctx, s->c));
    if (!s->policy->live || now_us(s) - began < CALLBACK_SLOW_US)
        return NULL;
    s->round_done = 0;
    s->round_pages = count_dirty(s);
    TRY(send_dirty(s));
    s->progress.round++;
    return NULL;
}

static struct error *save(struct saver *s, const char *state, size_t state_len, struct save_result *r)
{
    const struct precopy_source *source = s->source;
    const void *context;
    size_t len;

    TRY(output_begin(s->c, &s->out, state, state_len));
    if (s->policy->live)
        TRY(live_rounds(s));
    TRY(before_suspend(s));
    if (call_cancelled(s->c))
        return error_make(s->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    TRY(source->suspend(source->ctx, s->c, &context, &len));
    r->suspended_at_us = now_us(s);
    struct error *e = finish(s, context, len);
    if (e == NULL)
        return NULL;
    if (s->callbacks != NULL && s->callbacks->before_resume != NULL) {
        struct call calm = *s->c;

        calm.cancel = NULL;
        calm.deadline_ms = 0;
        s->callbacks->before_resume(s->callbacks->ctx, &calm);
    }
    struct error *failed = source->resume(source->ctx, s->c);
    if (failed != NULL)
        log_err("a guest cannot be resumed after a failed save: %s", error_text(s->c->arena, failed));
    return e;
}

struct error *precopy_save(struct call *c, const struct precopy_source *source, const char *state, size_t state_len,
                           struct byte_stream *stream, const struct save_policy *policy, const struct save_callbacks *callbacks,
                           struct save_result *r)
{
    struct saver *s = xcalloc(1, sizeof(*s));

    *r = (struct save_result){ .rounds = 0 };
    s->c = c;
    s->source = source;
    s->policy = policy;
    s->callbacks = callbacks;
    s->stale = UINT64_MAX;
    s->capped = true;
    s->n_words = (source->n_pages + 63) / 64;
    s->sent = xcalloc(s->n_words, sizeof(uint64_t));
    s->started_us = s->paced_us = now_us(s);
    s->progress.pages_total = (int64_t)source->n_pages;
    output_init(&s->out, stream, source->memory);
    if (policy->bandwidth > 0) {
        int64_t pages = policy->bandwidth * BURST_MS / 1000 / LIBXC_PAGE;
        s->out.batch_max = pages < 1 ? 1 : pages < LIBXC_BATCH ? (unsigned)pages : LIBXC_BATCH;
    }
    if (policy->live)
        source->track(source->ctx, true);
    struct error *e = save(s, state, state_len, r);
    if (policy->live)
        source->track(source->ctx, false);
    r->rounds = s->progress.round + (s->progress.suspended ? 1 : 0);
    r->pages_sent = (int64_t)s->out.pages_sent;
    r->bytes_sent = (int64_t)output_bytes(&s->out);
    xfree(s->sent);
    xfree(s);
    return e;
}
