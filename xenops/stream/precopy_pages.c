/* Which pages go out in a round. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "xenops/stream/precopy_private.h"

#define CHUNK_PAGES 1024u    /* one look for holes */

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
        TRY(saver_flush(s));
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

/* Where the data at 'page' ends, at most 'end'. The kernel walks a run to its end each time it is asked, so the answer is kept: a
 * page that holds data goes on holding it. */
static uint64_t run_end(struct saver *s, uint64_t page, uint64_t end)
{
    if (page >= s->data_until)
        s->data_until = data_from(s, page, s->source->n_pages, SEEK_HOLE);
    return s->data_until < end ? s->data_until : end;
}

static void mark_dirty(struct saver *s, uint64_t page)
{
    atomic_fetch_or_explicit(&s->source->dirty[page / 64], 1ull << (page % 64), memory_order_relaxed);
}

/* The first round is left in its middle: what it did not come to is dirty, but for the holes, which are empty there too. */
static void leave_the_rest(struct saver *s, uint64_t from)
{
    uint64_t n = s->source->n_pages;

    while (from < n) {
        from = data_from(s, from, n, SEEK_DATA);
        uint64_t hole = from < n ? data_from(s, from, n, SEEK_HOLE) : n;
        for (; from < hole; from++)
            mark_dirty(s, from);
    }
}

/* Round 0. The bits of a chunk are cleared before its holes are looked for: a page that is stored in
 * between is dirty again. *at: what comes next. */
static struct error *send_chunk(struct saver *s, uint64_t *at, uint64_t to)
{
    uint64_t from = *at;

    for (uint64_t w = from / 64; w < (to + 63) / 64; w++)
        atomic_exchange_explicit(&s->source->dirty[w], 0, memory_order_acquire);
    while (from < to && s->leave == PRECOPY_GO_ON) {
        uint64_t data = data_from(s, from, to, SEEK_DATA);
        for (; from < data && s->leave == PRECOPY_GO_ON; from++)
            TRY(send_page(s, from, true));
        uint64_t hole = from < to ? run_end(s, from, to) : to;
        for (; from < hole && s->leave == PRECOPY_GO_ON; from++)
            TRY(send_page(s, from, false));
    }
    *at = from;
    return NULL;
}

struct error *saver_send_all(struct saver *s)
{
    uint64_t n = s->source->n_pages, at = 0;

    while (at < n && s->leave == PRECOPY_GO_ON)
        TRY(send_chunk(s, &at, at + CHUNK_PAGES < n ? at + CHUNK_PAGES : n));
    if (at < n)
        leave_the_rest(s, at);
    return saver_flush(s);
}

struct error *saver_send_dirty(struct saver *s)
{
    bool live = !s->progress.suspended; /* only then it can be left */

    for (uint64_t w = 0; w < s->n_words; w++) {
        if (atomic_load_explicit(&s->source->dirty[w], memory_order_relaxed) == 0)
            continue;
        uint64_t bits = atomic_exchange_explicit(&s->source->dirty[w], 0, memory_order_acquire);
        for (; bits != 0 && !(live && s->leave != PRECOPY_GO_ON); bits &= bits - 1)
            TRY(send_page(s, w * 64 + (uint64_t)__builtin_ctzll(bits), false));
        if (bits == 0)
            continue;
        atomic_fetch_or_explicit(&s->source->dirty[w], bits, memory_order_relaxed);
        break;
    }
    return saver_flush(s);
}

struct error *saver_send_again(struct saver *s, uint64_t page)
{
    output_page(&s->out, page);
    s->sent[page / 64] |= 1ull << (page % 64);
    return saver_flush(s);
}

uint64_t saver_count_dirty(const struct saver *s)
{
    uint64_t n = 0;

    for (uint64_t w = 0; w < s->n_words; w++)
        n += (uint64_t)__builtin_popcountll(atomic_load_explicit(&s->source->dirty[w], memory_order_relaxed));
    return n;
}

/* --- the last pages: the guest stands --- */

/* Fault: the page to leave out: a dirty one, else any that holds data (its older version is the empty page). */
static uint64_t stale_page(struct saver *s, bool live)
{
    for (uint64_t w = 0; live && w < s->n_words; w++) {
        uint64_t bits = atomic_load(&s->source->dirty[w]);
        if (bits != 0)
            return w * 64 + (uint64_t)__builtin_ctzll(bits);
    }
    return data_from(s, 0, s->source->n_pages - 1, SEEK_DATA);
}

/* The receiver gets the page as it was before the guest ever wrote it. */
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

struct error *saver_last_pages(struct saver *s, bool live)
{
    if (s->source->stale_page)
        s->stale = stale_page(s, live);
    s->leave = PRECOPY_GO_ON;
    TRY(live ? saver_send_dirty(s) : saver_send_all(s));
    if (s->stale != UINT64_MAX && sent_before(s, s->stale)) /* the last that went out of it may be its newest version all the same */
        TRY(send_empty_page(s, s->stale));
    return NULL;
}
