#include "xenops/stream/precopy.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/stream/confirm.h"
#include "xenops/stream/postcopy.h"
#include "xenops/stream/precopy_private.h"

LOG_MODULE(precopy);

#define MEASURED_MIN_US 2000 /* a shorter round says nothing about the link */
#define CALLBACK_SLOW_US 20000
#define HOLD_MS 250          /* between two rounds while the switch is held */
#define LIFE_US 1000000      /* after so long without a byte a page goes again, so that the peer sees that we live */

/* --- the live part --- */

/* What the link did in this round, where that was long enough to tell. */
static void measure_round(struct saver *s, int64_t us, uint64_t bytes)
{
    bool capped = saver_bandwidth(s) > 0;
    int64_t busy = capped ? s->busy_us : us, whole = saver_now_us(s) - s->started_us;
    uint64_t moved = capped ? s->busy_bytes : bytes;

    if (busy >= MEASURED_MIN_US && moved > 0)
        s->facts.rate = (double)moved * 1e6 / (double)busy;
    else if (s->facts.rate <= 0 && whole > 0)
        s->facts.rate = (double)output_bytes(&s->out) * 1e6 / (double)whole;
    s->progress.link_rate = s->facts.rate;
}

/* Said once, after the first round of dirty pages, or at the last moment; and looked at again after each round. */
static void predict(struct saver *s, bool at_last)
{
    struct save_progress *p = &s->progress;
    int64_t bandwidth = saver_bandwidth(s);
    double live = bandwidth > 0 && (double)bandwidth < s->facts.rate ? (double)bandwidth : s->facts.rate;

    if (s->facts.rate <= 0 || (p->round < 2 && !at_last))
        return;
    struct precopy_prediction said = { precopy_blackout_us(&s->facts), precopy_blackout_us(&s->facts), true };
    if (!at_last)
        said = precopy_predict(&s->history, (double)s->facts.dirty, live, &s->facts, s->policy);
    s->facts.doomed = said.fits ? 0 : s->facts.doomed + 1;
    s->facts.will_not_converge = s->facts.will_not_converge || !said.fits;
    if (p->predicted_total_us >= 0)
        return;
    p->predicted_blackout_us = (int64_t)said.blackout_us;
    p->predicted_total_us = saver_now_us(s) - s->started_us + (int64_t)said.more_us;
}

static void look_at_facts(struct saver *s)
{
    struct precopy_facts *f = &s->facts;
    struct save_control *control = saver_control(s);
    int64_t downtime = control != NULL ? atomic_load(&control->max_downtime_ms) : -1;
    uint64_t unread = 0;

    f->max_downtime_ms = downtime >= 0 ? downtime : s->policy->max_downtime_ms;
    f->hold = control != NULL && atomic_load(&control->hold);
    f->now_ms = saver_now_us(s) / 1000;
    f->unread = s->confirmed && confirm_unread(s->out.stream, &unread) ? (double)unread : 0;
}

static struct error *one_round(struct saver *s)
{
    struct precopy_facts *f = &s->facts;
    int64_t began = saver_now_us(s);
    uint64_t bytes = output_bytes(&s->out), pages = s->out.pages_sent;

    s->round_done = s->busy_bytes = 0;
    s->busy_us = 0;
    TRY(s->progress.round == 0 ? saver_send_all(s) : saver_send_dirty(s));
    TRY(saver_settle(s));
    int64_t us = saver_now_us(s) - began;
    f->sent = s->out.pages_sent - pages;
    f->rounds = ++s->progress.round;
    f->dirty = s->round_pages = saver_count_dirty(s);
    measure_round(s, us, output_bytes(&s->out) - bytes);
    if (us > 0)
        s->progress.dirty_rate = (double)f->dirty * 1e6 / (double)us;
    s->history = (struct precopy_history){ .us = { s->history.us[1], (double)us }, .dirty = { s->history.dirty[1], (double)f->dirty } };
    s->progress.pages_dirty = (int64_t)f->dirty;
    s->round_done = 0;
    return NULL;
}

/* Gently: the guest's pages follow now and then, and if there are none, one goes again. */
static struct error *hold(struct saver *s)
{
    int64_t began = saver_now_us(s);

    do {
        TRY(saver_pause(s, HOLD_MS));
        if (saver_count_dirty(s) > 0)
            return NULL;
    } while (s->facts.hold && s->leave == PRECOPY_GO_ON && saver_now_us(s) - began < LIFE_US);
    return s->facts.hold && s->leave == PRECOPY_GO_ON ? saver_send_again(s, 0) : NULL;
}

static struct error *no_convergence(struct saver *s)
{
    const struct precopy_facts *f = &s->facts;
    struct error *e = error_make(s->c->arena, __FILE__, __LINE__, SAVE_NO_CONVERGENCE, 0);

    e->cause = arena_printf(s->c->arena,
                            "after %u rounds %llu pages are dirty, %.0f are dirtied a second, the link takes %.0f: stopping now would take "
                            "%lld ms of the %lld allowed (%lld of them are not for pages)",
                            f->rounds, (unsigned long long)f->dirty, s->progress.dirty_rate, f->rate / LIBXC_PAGE,
                            (long long)(precopy_blackout_us(f) / 1000), (long long)f->max_downtime_ms, (long long)(f->fixed_us / 1000));
    if (f->fixed_known && f->fixed_us >= f->max_downtime_ms * 1000)
        precopy_fixed_doubt(s->source->n_pages);
    return e;
}

static void slow_down(struct saver *s)
{
    s->source->throttle(s->source->ctx, s->facts.throttle);
    s->progress.throttle = s->facts.throttle;
    log_info("the guest is slowed down by %u percent so that its move can end", s->facts.throttle);
}

static struct error *live_rounds(struct saver *s, enum precopy_decision *end_r)
{
    enum precopy_decision d = PRECOPY_GO_ON;

    s->round_pages = s->source->n_pages;
    while (d == PRECOPY_GO_ON || d == PRECOPY_SLOW_DOWN) {
        TRY(one_round(s));
        look_at_facts(s);
        d = s->leave != PRECOPY_GO_ON ? s->leave : precopy_decide(&s->facts, s->policy);
        if (d == PRECOPY_SLOW_DOWN)
            slow_down(s);
        predict(s, d != PRECOPY_GO_ON && d != PRECOPY_SLOW_DOWN);
        s->progress.will_not_converge = s->facts.will_not_converge;
        saver_report(s, false);
        if (d == PRECOPY_GO_ON && s->facts.hold)
            TRY(hold(s));
    }
    log_debug("pre-copy ends after %u rounds (%s): %llu pages dirty, %.0f bytes/s", s->facts.rounds, precopy_decision_name(d),
              (unsigned long long)s->facts.dirty, s->facts.rate);
    *end_r = d;
    if (d == PRECOPY_TIMEOUT)
        return error_make(s->c->arena, __FILE__, __LINE__, SAVE_TIMEOUT, 0);
    return d == PRECOPY_NO_CONVERGENCE ? no_convergence(s) : NULL;
}

/* --- the last part: the guest stands --- */

static struct error *last_round(struct saver *s, bool live, bool postcopy, struct save_result *r)
{
    s->capped = false;
    s->progress.suspended = true;
    s->round_done = 0;
    s->round_pages = live ? saver_count_dirty(s) : s->source->n_pages;
    saver_report(s, true);
    if (!postcopy)
        return saver_last_pages(s, live);
    TRY(output_flush(s->c, &s->out));
    TRY(postcopy_record_output(s->c, s->out.stream, s->source->dirty, s->source->n_pages, &r->pages_left));
    s->progress.postcopy = r->postcopy = r->pages_left > 0;
    return NULL;
}

static struct error *finish(struct saver *s, const void *context, size_t len, bool postcopy, struct save_result *r)
{
    if (s->callbacks != NULL && s->callbacks->after_suspend != NULL)
        TRY(s->callbacks->after_suspend(s->callbacks->ctx, s->c));
    TRY(last_round(s, s->policy->live, postcopy, r));
    TRY(output_finish(s->c, &s->out, context, len));
    TRY(saver_settle(s));
    s->round_done = s->round_pages;
    saver_report(s, true);
    return NULL;
}

/* The toolstack's last word. If it took its time over it, the guest has gone on dirtying pages. */
static struct error *before_suspend(struct saver *s)
{
    int64_t began = saver_now_us(s);

    if (s->callbacks == NULL || s->callbacks->before_suspend == NULL)
        return NULL;
    TRY(s->callbacks->before_suspend(s->callbacks->ctx, s->c));
    if (!s->policy->live || saver_now_us(s) - began < CALLBACK_SLOW_US)
        return NULL;
    s->round_done = 0;
    s->round_pages = saver_count_dirty(s);
    TRY(saver_send_dirty(s));
    s->progress.round++;
    return saver_settle(s);
}

static struct error *save(struct saver *s, const char *state, size_t state_len, struct save_result *r)
{
    const struct precopy_source *source = s->source;
    enum precopy_decision end = PRECOPY_STOP;
    const void *context;
    size_t len;

    TRY(output_begin(s->c, &s->out, state, state_len));
    if (s->policy->live)
        TRY(live_rounds(s, &end));
    TRY(before_suspend(s));
    if (call_cancelled(s->c))
        return error_make(s->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    r->suspended_at_us = saver_now_us(s); /* the guest stops a moment later at most */
    TRY(source->suspend(source->ctx, s->c, &context, &len));
    struct error *e = finish(s, context, len, end == PRECOPY_POSTCOPY, r);
    if (e == NULL)
        return NULL;
    r->postcopy = false;
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

static void saver_init(struct saver *s, struct byte_stream *stream)
{
    uint64_t unread;

    s->stale = UINT64_MAX;
    s->capped = true;
    s->n_words = (s->source->n_pages + 63) / 64;
    s->sent = xcalloc(s->n_words, sizeof(uint64_t));
    s->started_us = s->paced_us = saver_now_us(s);
    s->progress.pages_total = (int64_t)s->source->n_pages;
    s->progress.predicted_blackout_us = s->progress.predicted_total_us = -1;
    s->confirmed = confirm_unread(stream, &unread);
    s->facts = (struct precopy_facts){
        .fixed_us = precopy_fixed_us(s->source->n_pages), .usual_us = precopy_fixed_usual_us(s->source->n_pages),
        .fixed_known = precopy_fixed_known(), .began_ms = s->started_us / 1000,
        .can_throttle = s->source->throttle != NULL, .can_postcopy = true, .previous = s->source->n_pages,
    };
    output_init(&s->out, stream, s->source->memory);
}

static void fill_result(const struct saver *s, struct save_result *r)
{
    r->rounds = s->progress.round + (s->progress.suspended ? 1 : 0);
    r->pages_sent = (int64_t)s->out.pages_sent;
    r->zero_pages = (int64_t)s->out.zero_pages;
    r->bytes_sent = (int64_t)output_bytes(&s->out);
    r->predicted_blackout_us = s->progress.predicted_blackout_us;
    r->predicted_total_us = s->progress.predicted_total_us;
    r->dirty_rate = s->progress.dirty_rate;
    r->link_rate = s->progress.link_rate;
    r->throttle = s->progress.throttle;
    r->will_not_converge = s->progress.will_not_converge;
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
    saver_init(s, stream);
    if (policy->live)
        source->track(source->ctx, true);
    struct error *e = save(s, state, state_len, r);
    if (s->progress.throttle > 0)
        source->throttle(source->ctx, 0);
    if (policy->live)
        source->track(source->ctx, false);
    fill_result(s, r);
    xfree(s->sent);
    xfree(s);
    return e;
}
