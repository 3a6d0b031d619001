/* The decisions of a live save, apart from doing it: when it stops, what happens when it cannot, what it will have taken.
 * Pure functions of measured figures. */
#ifndef XENOPS_STREAM_PRECOPY_DECIDE_H
#define XENOPS_STREAM_PRECOPY_DECIDE_H

#include "xenops/backend.h"

struct precopy_facts {
    unsigned rounds;          /* finished */
    uint64_t sent, dirty;     /* pages with data sent in the last round; dirty now */
    double rate;              /* bytes/s of the link, uncapped; 0: not measured */
    double unread;            /* bytes that are written and not read yet */
    int64_t fixed_us;         /* precopy_fixed_us */
    int64_t usual_us;         /* precopy_fixed_usual_us; 0: fixed_us */
    bool fixed_known;
    int64_t max_downtime_ms;  /* as it is now; 0: none declared */
    int64_t now_ms, began_ms; /* mono */
    bool can_throttle, can_postcopy, hold;
    /* kept by precopy_decide */
    uint64_t previous;        /* dirty after the round before */
    unsigned stalled;         /* rounds in a row without progress */
    unsigned idle;            /* rounds in a row that made no smaller what fits already */
    unsigned hopeless;        /* rounds in a row in which nearly as much was dirtied as sent */
    unsigned doomed;          /* rounds in a row after which precopy_predict saw no end (kept by its caller) */
    bool will_not_converge;
    unsigned throttle;        /* percent */
};
enum precopy_decision {
    PRECOPY_GO_ON, PRECOPY_FITS, PRECOPY_STOP /* the rest is what it is: suspend and send it */, PRECOPY_POSTCOPY,
    PRECOPY_SLOW_DOWN /* to facts.throttle, and go on */, PRECOPY_NO_CONVERGENCE, PRECOPY_TIMEOUT,
};
const char *precopy_decision_name(enum precopy_decision);
enum precopy_decision precopy_decide(struct precopy_facts *, const struct save_policy *);
/* What the deadline or post-copy's time says between two rounds: GO_ON, TIMEOUT, STOP or POSTCOPY. */
enum precopy_decision precopy_on_time(const struct precopy_facts *, const struct save_policy *);
/* Expected blackout if it stopped now. */
double precopy_blackout_us(const struct precopy_facts *);
#define PRECOPY_THROTTLE_MAX 80u

/* --- prediction --- */
/* Two rounds as they were measured: so long they took, so many pages were dirty after them. */
struct precopy_history { double us[2]; double dirty[2]; };
struct precopy_prediction {
    double blackout_us, more_us; /* from now to the end of the blackout */
    bool fits;                   /* the goal can be kept, without anybody's help */
};
/* How many pages are dirty after a round of so many microseconds: each page of a working set is hit at a constant rate. */
double precopy_dirty_after(const struct precopy_history *, double us);
/* Rounds go on with dirty_now pages at live_rate (bytes/s) until they fit at link rate, within the goal. */
struct precopy_prediction precopy_predict(const struct precopy_history *, double dirty_now, double live_rate, const struct precopy_facts *,
                                          const struct save_policy *);

#endif
