#include "xenops/stream/precopy_decide.h"

#include <math.h>

#include "xenops/stream/format.h"

#define DOWNTIME_MS 300
#define ROUNDS 30u
#define STALLED_MAX 3u      /* rounds without progress before the ladder */
#define HOPELESS_MAX 3u     /* rounds with nearly as much dirtied as sent, likewise */
#define PROGRESS 0.95       /* less than this part of the pages before is progress */
#define NO_PROGRESS 0.9     /* more than this part of what was sent is dirty again: it will not converge */
#define REFUSED_AFTER 8u    /* the same where the only way to end is to fail: a moment may be bad for several rounds */
#define DOOMED_MAX 2u       /* rounds after which no end was in sight, likewise */
#define HELP_EARLY 0.5      /* more than this part is dirty again, and help is allowed: not waited for */
#define HELPED 0.4          /* and a guest is slowed down until this part would be */
#define GOOD_US 20000.0     /* the pages of a blackout that nobody needs to shorten */
#define STILL_SHRINKS 0.92  /* above it, it is shortened by another round while a round still gains so much */
#define IDLE_MAX 2u         /* but not after so many that gained nothing */
#define MARGIN 1.15         /* the last round is not always as fast as the others */
#define MARGIN_US 2000
#define SPARE 0.1           /* of the downtime, for pages, when the expected fixed cost alone takes all of it */
#define BAD_MOMENT 2.0      /* a measured cost of this many times the downtime is believed */
#define PAGE_BYTES (LIBXC_PAGE + 8.0)

const char *precopy_decision_name(enum precopy_decision d)
{
    static const char *const names[] = {
        [PRECOPY_GO_ON] = "goes on",         [PRECOPY_FITS] = "the rest fits",          [PRECOPY_STOP] = "stopped anyway",
        [PRECOPY_POSTCOPY] = "post-copy",    [PRECOPY_SLOW_DOWN] = "slowed down",       [PRECOPY_NO_CONVERGENCE] = "does not converge",
        [PRECOPY_TIMEOUT] = "out of time",
    };

    return names[d];
}

static double pages_us(const struct precopy_facts *f) { return f->rate > 0 ? (f->unread + (double)f->dirty * PAGE_BYTES) * 1e6 / f->rate : 0; }

double precopy_blackout_us(const struct precopy_facts *f) { return pages_us(f) + (double)f->fixed_us; }

static double limit_us(const struct precopy_facts *f) { return 1000.0 * (double)(f->max_downtime_ms > 0 ? f->max_downtime_ms : DOWNTIME_MS); }

/* What is only assumed about the fixed cost, or was measured in a bad moment, must not make impossible what may well be. */
static bool fits(const struct precopy_facts *f)
{
    double limit = limit_us(f), left = limit - (double)f->fixed_us - MARGIN_US;

    if (left < limit * SPARE && (!f->fixed_known || (double)f->fixed_us < limit * BAD_MOMENT))
        left = limit * SPARE;
    if (f->dirty == 0 && f->unread < PAGE_BYTES)
        return !f->fixed_known || left >= 0 || f->max_downtime_ms == 0;
    return f->rate > 0 && pages_us(f) * MARGIN <= left;
}

static bool may_help(const struct precopy_facts *f, const struct save_policy *p)
{
    return (p->postcopy && f->can_postcopy) || (p->auto_converge && f->can_throttle && f->throttle < PRECOPY_THROTTLE_MAX);
}

/* Rounds so far in which the guest was about as fast as the link, or which gained nothing. */
static bool goals_lost(struct precopy_facts *f, const struct save_policy *p)
{
    unsigned most = p->max_rounds != 0 ? p->max_rounds : ROUNDS;
    bool progress = f->rounds < 2 || (double)f->dirty < (double)f->previous * PROGRESS;
    bool hopeless = f->sent > 0 && (double)f->dirty >= (double)f->sent * NO_PROGRESS;

    f->stalled = progress ? 0 : f->stalled + 1;
    f->hopeless = hopeless ? f->hopeless + 1 : 0;
    f->previous = f->dirty;
    if (hopeless && f->rounds >= 2)
        f->will_not_converge = true;
    bool another_way = p->fallback_stop || f->max_downtime_ms == 0 || may_help(f, p);
    if (!another_way)
        return f->rounds >= most || f->stalled >= REFUSED_AFTER || f->hopeless >= REFUSED_AFTER;
    return f->rounds >= most || f->stalled >= STALLED_MAX || f->hopeless >= HOPELESS_MAX || f->doomed >= DOOMED_MAX;
}

/* Where the guest may be helped, waiting for the goals to be lost only costs time. */
static bool help_early(const struct precopy_facts *f, const struct save_policy *p)
{
    return may_help(f, p) && f->sent > 0 && (double)f->dirty >= (double)f->sent * HELP_EARLY;
}

/* The rest would do, but another round makes it smaller yet. */
static bool shrinks(struct precopy_facts *f, const struct save_policy *p)
{
    unsigned most = p->max_rounds != 0 ? p->max_rounds : ROUNDS;
    bool gains = (double)f->dirty < (double)f->previous * STILL_SHRINKS;

    f->idle = gains ? 0 : f->idle + 1;
    if (f->previous == 0 || f->rounds + 1 >= most || pages_us(f) <= GOOD_US || f->idle >= IDLE_MAX)
        return false;
    f->previous = gains ? f->dirty : f->previous;
    return true;
}

/* The next step at least, and as many as the last round asks for. */
static unsigned slower(const struct precopy_facts *f)
{
    static const unsigned steps[] = { 20, 35, 50, 65, PRECOPY_THROTTLE_MAX };
    double again = f->sent > 0 ? (double)f->dirty / (double)f->sent * 100 / (100 - f->throttle) : 1;

    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        if (steps[i] > f->throttle && again * (100 - steps[i]) / 100 <= HELPED)
            return steps[i];
    return PRECOPY_THROTTLE_MAX;
}

static enum precopy_decision ladder(struct precopy_facts *f, const struct save_policy *p)
{
    if (p->postcopy && f->can_postcopy)
        return PRECOPY_POSTCOPY;
    if (p->auto_converge && f->can_throttle && f->throttle < PRECOPY_THROTTLE_MAX) {
        f->throttle = slower(f);
        f->stalled = f->hopeless = f->doomed = 0; /* what comes now is another guest */
        return PRECOPY_SLOW_DOWN;
    }
    if (p->fallback_stop || f->max_downtime_ms == 0)
        return PRECOPY_STOP;
    return PRECOPY_NO_CONVERGENCE;
}

enum precopy_decision precopy_on_time(const struct precopy_facts *f, const struct save_policy *p)
{
    if (p->postcopy && f->can_postcopy && p->postcopy_after_ms > 0 && f->now_ms - f->began_ms >= p->postcopy_after_ms)
        return PRECOPY_POSTCOPY;
    if (p->deadline_ms == 0 || f->now_ms < p->deadline_ms)
        return PRECOPY_GO_ON;
    switch (p->on_deadline) {
    case SAVE_DEADLINE_CONTINUE:
        return PRECOPY_GO_ON;
    case SAVE_DEADLINE_ABORT:
        return PRECOPY_TIMEOUT;
    case SAVE_DEADLINE_SUSPEND:
        return PRECOPY_STOP;
    case SAVE_DEADLINE_POSTCOPY:
        return f->can_postcopy ? PRECOPY_POSTCOPY : PRECOPY_STOP;
    }
    return PRECOPY_GO_ON;
}

enum precopy_decision precopy_decide(struct precopy_facts *f, const struct save_policy *p)
{
    enum precopy_decision d = precopy_on_time(f, p);

    if (d != PRECOPY_GO_ON && !(f->hold && d != PRECOPY_TIMEOUT))
        return d;
    if (f->hold) { /* the rounds only keep up with the guest */
        f->stalled = f->hopeless = f->doomed = 0;
        f->previous = f->dirty;
        return PRECOPY_GO_ON;
    }
    if (fits(f))
        return shrinks(f, p) ? PRECOPY_GO_ON : PRECOPY_FITS;
    return goals_lost(f, p) || help_early(f, p) ? ladder(f, p) : PRECOPY_GO_ON;
}

/* --- prediction ------------------------------------------------------------------------------------- */
/* dirty(t) = W (1 - exp(-l t)) through both measured rounds; near l = 0 that is a line. */
static double rate_of(const struct precopy_history *h)
{
    double t0 = h->us[0], t1 = h->us[1], wanted = h->dirty[1] / h->dirty[0], low = 1e-12, high = 1;

    for (unsigned i = 0; i < 200; i++) {
        double l = sqrt(low * high), part = expm1(-l * t1) / expm1(-l * t0);
        if (part > wanted) /* too many hits a page */
            high = l;
        else
            low = l;
    }
    return low;
}

double precopy_dirty_after(const struct precopy_history *h, double us)
{
    bool line = h->dirty[0] <= 0 || h->dirty[1] <= 0 || h->us[1] >= h->us[0] || h->dirty[1] / h->dirty[0] <= h->us[1] / h->us[0] * 1.01;

    if (line)
        return h->us[1] > 0 ? h->dirty[1] / h->us[1] * us : 0;
    if (h->dirty[1] >= h->dirty[0])
        return h->dirty[1];
    double l = rate_of(h);
    return h->dirty[1] * expm1(-l * us) / expm1(-l * h->us[1]);
}

struct precopy_prediction precopy_predict(const struct precopy_history *h, double dirty_now, double live_rate, const struct precopy_facts *facts,
                                          const struct save_policy *p)
{
    struct precopy_facts f = *facts;
    struct precopy_prediction r = { 0 };
    bool helped = false;

    f.doomed = 0;
    f.dirty = (uint64_t)dirty_now;
    f.unread = 0;
    for (;;) {
        struct save_policy patient = *p;
        patient.deadline_ms = 0;
        patient.postcopy_after_ms = 0;
        enum precopy_decision d = precopy_decide(&f, &patient);
        helped = helped || d == PRECOPY_SLOW_DOWN;
        r.fits = (d == PRECOPY_FITS && !helped) || f.hold || live_rate <= 0;
        if ((d != PRECOPY_GO_ON && d != PRECOPY_SLOW_DOWN) || live_rate <= 0 || f.hold)
            break;
        double us = (double)f.dirty * PAGE_BYTES * 1e6 / live_rate;
        r.more_us += us;
        f.sent = f.dirty;
        f.dirty = (uint64_t)(precopy_dirty_after(h, us) * (100 - f.throttle) / 100);
        f.rounds++;
    }
    r.blackout_us = precopy_blackout_us(&f) - (double)f.fixed_us + (double)(f.usual_us > 0 ? f.usual_us : f.fixed_us);
    r.more_us += r.blackout_us;
    return r;
}
