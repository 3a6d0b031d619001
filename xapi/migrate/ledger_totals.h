/* What the rows of a ledger add up to: counters and histograms as Prometheus has them. No lock, no allocation. */
#ifndef XAPI_MIGRATE_LEDGER_TOTALS_H
#define XAPI_MIGRATE_LEDGER_TOTALS_H

#include "xapi/migrate/ledger.h"

#define HISTOGRAM_BUCKETS_MAX 12
struct histogram {
    const double *bounds;                          /* upper ones, rising; +Inf is not among them */
    unsigned n_bounds;
    int64_t counts[HISTOGRAM_BUCKETS_MAX + 1];    /* each bucket alone */
    double sum;
};

enum { TOTALS_SIDES = 2, TOTALS_KINDS = 4, TOTALS_OUTCOMES = 3 };
extern const char *const totals_kinds[TOTALS_KINDS];       /* the last one is "other" */
extern const char *const totals_outcomes[TOTALS_OUTCOMES]; /* the last one, failed, is also for what is none of them */

struct ledger_totals {
    int64_t ended[TOTALS_SIDES][TOTALS_KINDS][TOTALS_OUTCOMES];
    double bytes;                      /* facts "bytes" */
    struct histogram duration;         /* seconds from begin to end, of successes */
    struct histogram blackout;         /* seconds; facts "blackout_us" */
    struct histogram blackout_error;   /* |predicted - measured| / measured */
    struct histogram duration_error;
};

void ledger_totals_init(struct ledger_totals *);
/* Adds a row that is done, or takes it out again (times -1). Durations and what was measured count for LEDGER_OUT only: the
 * other side has the same. */
void ledger_totals_add(struct ledger_totals *, const struct ledger_row *, int times);

#endif
