/* Post-copy, the destination's side: pages are put in place as they come; those the guest waits for are asked for. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/stream/postcopy.h"

LOG_MODULE(postcopy);

#define WAIT_MS 1000

struct puller {
    struct call *c;
    struct byte_stream *stream;
    const struct postcopy_target *target;
    struct postcopy_got *got;
    uint64_t left;
    struct { uint64_t pfn; int64_t since_us; } waiting[POSTCOPY_WANT_MAX]; /* asked for */
    unsigned n_waiting;
    uint64_t pfns[POSTCOPY_BATCH_MAX];
    uint8_t *data; /* of a batch */
};

static bool is_missing(const struct puller *p, uint64_t pfn) { return (p->target->missing[pfn / 64] >> (pfn % 64) & 1) != 0; }

static struct error *say(struct puller *p, enum postcopy_type type, uint32_t count, uint64_t number, const uint64_t *pfns)
{
    struct postcopy_frame f = { .magic = POSTCOPY_MAGIC, .type = (uint16_t)type, .count = count, .number = number };
    struct iovec parts[] = { { .iov_base = &f, .iov_len = sizeof(f) }, { .iov_base = (void *)pfns, .iov_len = count * sizeof(uint64_t) } };

    return postcopy_write(p->c, p->stream, parts, count > 0 ? 2 : 1);
}

/* A failure of the target: either its guest has ended, or nothing can be done. */
static struct error *target_failed(struct puller *p, int rc, const char *what)
{
    if (rc == -ESRCH) {
        p->got->guest_ended = true;
        return NULL;
    }
    return err_internal(p->c->arena, "post-copy: %s: %s", what, strerror(-rc));
}

/* --- what the guest waits for --- */

static bool is_waiting(const struct puller *p, uint64_t pfn)
{
    for (unsigned i = 0; i < p->n_waiting; i++)
        if (p->waiting[i].pfn == pfn)
            return true;
    return false;
}

static void waited(struct puller *p, uint64_t pfn)
{
    for (unsigned i = 0; i < p->n_waiting; i++)
        if (p->waiting[i].pfn == pfn) {
            int64_t us = clock_us(p->c->clock) - p->waiting[i].since_us;
            p->got->stall_us = us > p->got->stall_us ? us : p->got->stall_us;
            p->waiting[i] = p->waiting[--p->n_waiting];
            return;
        }
}

static struct error *take_faults(struct puller *p)
{
    uint64_t want[POSTCOPY_WANT_MAX], pfn;
    uint32_t n = 0;
    int rc = 0;

    while (p->n_waiting < POSTCOPY_WANT_MAX && (rc = p->target->fault(p->target->ctx, &pfn)) > 0) {
        if (pfn >= p->target->n_pages)
            return err_internal(p->c->arena, "post-copy: the guest waits for page %llu, beyond its memory", (unsigned long long)pfn);
        if (!is_missing(p, pfn)) {
            rc = p->target->settle(p->target->ctx, pfn);
            if (rc < 0)
                return target_failed(p, rc, "a page cannot be emptied");
        } else if (!is_waiting(p, pfn)) {
            p->waiting[p->n_waiting].pfn = pfn;
            p->waiting[p->n_waiting++].since_us = clock_us(p->c->clock);
            want[n++] = pfn;
        }
    }
    if (rc < 0)
        return target_failed(p, rc, "the guest's faults cannot be read");
    p->got->wanted += n;
    return n > 0 ? say(p, POSTCOPY_WANT, n, 0, want) : NULL;
}

/* --- what comes --- */

static struct error *check_pfns(struct puller *p, uint32_t count, unsigned *n_data_r)
{
    *n_data_r = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t pfn = p->pfns[i] & LIBXC_PFN_MASK;
        unsigned type = LIBXC_PFN_TYPE(p->pfns[i]);
        if ((p->pfns[i] & LIBXC_PFN_ZERO) != 0 || pfn >= p->target->n_pages || (type != LIBXC_PFN_NORMAL && type != LIBXC_PFN_ALLOCATE))
            return err_internal(p->c->arena, "post-copy: pfn word %#llx", (unsigned long long)p->pfns[i]);
        if (!is_missing(p, pfn))
            return err_internal(p->c->arena, "post-copy: page %llu comes, but is not missing", (unsigned long long)pfn);
        p->target->missing[pfn / 64] &= ~(1ull << (pfn % 64)); /* also finds it when it is twice in one batch */
        *n_data_r += type == LIBXC_PFN_NORMAL;
    }
    return NULL;
}

/* As many neighbours of one kind as follow each other. */
static unsigned run_of(const struct puller *p, uint32_t i, uint32_t count)
{
    unsigned n = 1;

    while (i + n < count && p->pfns[i + n] == p->pfns[i] + n) /* the type is the same, too */
        n++;
    return n;
}

static struct error *place_all(struct puller *p, uint32_t count)
{
    const uint8_t *data = p->data;

    for (uint32_t i = 0; i < count;) {
        unsigned n = run_of(p, i, count);
        bool normal = LIBXC_PFN_TYPE(p->pfns[i]) == LIBXC_PFN_NORMAL;
        uint64_t pfn = p->pfns[i] & LIBXC_PFN_MASK;
        int rc = p->target->place(p->target->ctx, pfn, n, normal ? data : NULL);
        if (rc < 0)
            return target_failed(p, rc, "a page cannot be put in place");
        data += normal ? (size_t)n * LIBXC_PAGE : 0;
        for (unsigned k = 0; k < n && p->n_waiting > 0; k++)
            waited(p, pfn + k);
        i += n;
    }
    return NULL;
}

static struct error *on_frame(struct puller *p)
{
    struct postcopy_frame f;
    unsigned n_data;

    TRY(postcopy_head_read(p->c, p->stream, 1u << POSTCOPY_PAGES, &f));
    TRY(postcopy_read(p->c, p->stream, p->pfns, f.count * sizeof(uint64_t)));
    TRY(check_pfns(p, f.count, &n_data));
    TRY(postcopy_read(p->c, p->stream, p->data, (size_t)n_data * LIBXC_PAGE));
    TRY(place_all(p, f.count));
    if (p->got->guest_ended)
        return NULL;
    p->left -= f.count;
    p->got->pages += f.count;
    if (p->target->progress != NULL)
        p->target->progress(p->target->ctx, p->left);
    return p->left > 0 ? say(p, POSTCOPY_TAKEN, 0, p->got->pages, NULL) : NULL;
}

static struct error *step(struct puller *p)
{
    struct byte_stream *s = p->stream;
    struct pollfd fds[] = {
        { .fd = s->ops->fd(s), .events = POLLIN },
        { .fd = p->target->fault_fd, .events = POLLIN },
        { .fd = p->c->cancel != NULL ? cancel_fd(p->c->cancel) : -1, .events = POLLIN },
        { .fd = s->ops->abort_fd != NULL ? s->ops->abort_fd(s) : -1, .events = POLLIN },
    };
    bool held = fds[0].fd < 0 || s->ops->pending(s) > 0;
    bool full = p->n_waiting == POSTCOPY_WANT_MAX; /* no more can be asked for until some come */

    if (full)
        fds[1].fd = -1;
    if (poll(fds, ARRAY_LEN(fds), held ? 0 : WAIT_MS) < 0 && errno != EINTR)
        return err_internal(p->c->arena, "post-copy: poll: %s", strerror(errno));
    if (call_cancelled(p->c))
        return error_make(p->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (fds[3].revents != 0)
        return err_internal(p->c->arena, "post-copy: the connection is lost: %s", strerror(ECONNABORTED));
    if (fds[1].revents != 0)
        TRY(take_faults(p));
    if (!p->got->guest_ended && (held || fds[0].revents != 0))
        return on_frame(p);
    return NULL;
}

struct error *postcopy_pull(struct call *c, struct byte_stream *stream, const struct postcopy_target *target, struct postcopy_got *got)
{
    struct puller *p = xcalloc(1, sizeof(*p));
    uint64_t before = stream->bytes_in;
    struct error *e = NULL;

    *got = (struct postcopy_got){ .pages = 0 };
    p->c = c;
    p->stream = stream;
    p->target = target;
    p->got = got;
    p->data = xcalloc(POSTCOPY_BATCH_MAX, LIBXC_PAGE);
    for (uint64_t w = 0; w < POSTCOPY_WORDS(target->n_pages); w++)
        p->left += (uint64_t)__builtin_popcountll(target->missing[w]);
    while (e == NULL && p->left > 0 && !got->guest_ended)
        e = step(p);
    if (e == NULL) { /* the source holds on to the guest until it hears this, or sees us gone */
        struct error *unheard = say(p, POSTCOPY_DONE, 0, got->guest_ended ? POSTCOPY_GUEST_ENDED : POSTCOPY_COMPLETE, NULL);
        if (unheard != NULL)
            log_warn("post-copy is over, but the source could not be told: %s", error_text(c->arena, unheard));
    }
    got->bytes = stream->bytes_in - before;
    xfree(p->data);
    xfree(p);
    return e;
}
