/* How fast it goes, what is told about it, and what is asked of it meanwhile. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "xenops/stream/confirm.h"
#include "xenops/stream/precopy_private.h"

#define PROGRESS_MS 100
#define BURST_MS 50          /* a capped batch is no more than this at the cap */
#define FIRST_ROUND_PART 0.7 /* of the progress bar */
#define LIVE_PART 0.95
#define PACE_MOST_MS 10000
#define LOOK_MS 50
#define SETTLED_BYTES 1024   /* ends of blocks that are read with what follows */

int64_t saver_bandwidth(const struct saver *s)
{
    int64_t now = saver_control(s) != NULL ? atomic_load(&saver_control(s)->bandwidth) : -1;

    return !s->capped ? 0 : now >= 0 ? now : s->policy->bandwidth;
}

/* --- progress --- */

void saver_report(struct saver *s, bool now)
{
    struct save_progress *p = &s->progress;
    int64_t ms = saver_now_us(s) / 1000;
    double in_round = s->round_pages > 0 ? (double)s->round_done / (double)s->round_pages : 1, f;

    if (s->callbacks == NULL || s->callbacks->progress == NULL || (!now && ms - s->reported_ms < PROGRESS_MS))
        return;
    in_round = in_round > 1 ? 1 : in_round;
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

/* --- what somebody wants --- */

static bool flag(const struct saver *s, atomic_bool *f) { return saver_control(s) != NULL && atomic_load(f); }

static struct error *code(struct saver *s, const char *name, const char *cause)
{
    struct error *e = error_make(s->c->arena, __FILE__, __LINE__, name, 0);

    e->cause = cause;
    return e;
}

struct error *saver_look(struct saver *s)
{
    struct save_control *control = saver_control(s);

    if (call_cancelled(s->c))
        return code(s, "TASK_CANCELLED", NULL);
    if (!s->policy->live || s->progress.suspended)
        return NULL;
    if (control != NULL && flag(s, &control->yield))
        return code(s, SAVE_YIELDED, NULL);
    s->facts.now_ms = saver_now_us(s) / 1000;
    s->facts.hold = control != NULL && flag(s, &control->hold);
    enum precopy_decision d = precopy_on_time(&s->facts, s->policy);
    if (d == PRECOPY_TIMEOUT)
        return code(s, SAVE_TIMEOUT, "pre-copy did not end before its deadline");
    if (control != NULL && flag(s, &control->finish))
        s->leave = PRECOPY_STOP;
    else if (control != NULL && flag(s, &control->postcopy) && s->policy->postcopy && s->facts.can_postcopy)
        s->leave = PRECOPY_POSTCOPY;
    else if (d != PRECOPY_GO_ON && !s->facts.hold)
        s->leave = d;
    return NULL;
}

struct error *saver_pause(struct saver *s, int64_t ms)
{
    int64_t until = saver_now_us(s) / 1000 + ms;

    for (;;) {
        int64_t left = until - saver_now_us(s) / 1000;
        TRY(saver_look(s));
        if (left <= 0 || s->leave != PRECOPY_GO_ON)
            return NULL;
        struct pollfd p = { .fd = s->c->cancel != NULL ? cancel_fd(s->c->cancel) : -1, .events = POLLIN };
        if (poll(&p, 1, (int)(left < LOOK_MS ? left : LOOK_MS)) < 0 && errno != EINTR)
            return NULL;
    }
}

/* --- the link --- */

struct error *saver_settle(struct saver *s)
{
    int stop_fd = s->c->cancel != NULL ? cancel_fd(s->c->cancel) : -1, rc;

    if (!s->confirmed)
        return NULL;
    while ((rc = confirm_wait(s->out.stream, SETTLED_BYTES, stop_fd, LOOK_MS)) == -ETIMEDOUT) {
        TRY(saver_look(s));
        saver_report(s, false);
        if (s->leave != PRECOPY_GO_ON && !s->progress.suspended)
            return NULL;
    }
    if (rc == -ECANCELED)
        return saver_look(s);
    return rc < 0 ? err_internal(s->c->arena, "stream: the peer does not read: %s", strerror(-rc)) : NULL;
}

/* A capped burst is let through to the peer before the pause after it: that measures the link. */
static struct error *measure_burst(struct saver *s)
{
    TRY(saver_settle(s));
    s->busy_us += saver_now_us(s) - s->burst_us;
    s->busy_bytes += output_bytes(&s->out) - s->burst_bytes;
    return NULL;
}

/* Waits until the bytes sent are within the cap. */
static struct error *pace(struct saver *s, int64_t bandwidth)
{
    uint64_t bytes = output_bytes(&s->out);
    int64_t now = saver_now_us(s);

    s->paced_us += (int64_t)((double)(bytes - s->paced_bytes) * 1e6 / (double)bandwidth);
    s->paced_bytes = bytes;
    if (s->paced_us < now - 2 * BURST_MS * 1000)
        s->paced_us = now - 2 * BURST_MS * 1000; /* unused bandwidth is not saved up */
    int64_t wait_ms = (s->paced_us - now) / 1000;
    return wait_ms > 0 ? saver_pause(s, wait_ms < PACE_MOST_MS ? wait_ms : PACE_MOST_MS) : NULL;
}

struct error *saver_flush(struct saver *s)
{
    int64_t bandwidth = saver_bandwidth(s), pages = bandwidth * BURST_MS / 1000 / LIBXC_PAGE;

    s->burst_us = saver_now_us(s);
    s->burst_bytes = output_bytes(&s->out);
    TRY(output_flush(s->c, &s->out));
    s->out.batch_max = bandwidth <= 0 || pages >= LIBXC_BATCH ? LIBXC_BATCH : pages < 1 ? 1 : (unsigned)pages;
    if (bandwidth > 0) {
        TRY(measure_burst(s));
        TRY(pace(s, bandwidth));
    }
    TRY(saver_look(s));
    saver_report(s, false);
    return NULL;
}
