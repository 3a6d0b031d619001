#include "xapi/migrate/ledger_totals.h"

#include <math.h>
#include <string.h>

#include "rpc/base/attributes.h"

const char *const totals_kinds[TOTALS_KINDS] = { "pool_migrate", "migrate_send", "VDI.pool_migrate", "other" };
const char *const totals_outcomes[TOTALS_OUTCOMES] = { "success", "cancelled", "failed" };

static const double duration_bounds[] = { 1, 5, 15, 60, 300, 900, 3600, 14400, 86400 };
static const double blackout_bounds[] = { 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 30 };
static const double error_bounds[] = { 0.05, 0.1, 0.25, 0.5, 1, 2 };

static void histogram_init(struct histogram *h, const double *bounds, unsigned n)
{
    *h = (struct histogram){ .bounds = bounds, .n_bounds = n };
}

static void histogram_add(struct histogram *h, double x, int times)
{
    unsigned at = 0;

    while (at < h->n_bounds && x > h->bounds[at])
        at++;
    h->counts[at] += times;
    h->sum += x * times;
}

void ledger_totals_init(struct ledger_totals *t)
{
    memset(t, 0, sizeof(*t));
    histogram_init(&t->duration, duration_bounds, ARRAY_LEN(duration_bounds));
    histogram_init(&t->blackout, blackout_bounds, ARRAY_LEN(blackout_bounds));
    histogram_init(&t->blackout_error, error_bounds, ARRAY_LEN(error_bounds));
    histogram_init(&t->duration_error, error_bounds, ARRAY_LEN(error_bounds));
}

/* Where 'word' stands; the last place where it is not among them. */
static unsigned place(const char *const *words, unsigned n, const char *word)
{
    unsigned i = 0;

    while (i + 1 < n && strcmp(words[i], word) != 0)
        i++;
    return i;
}

static void error_add(struct histogram *h, int64_t predicted, int64_t measured, int times)
{
    if (predicted > 0 && measured > 0)
        histogram_add(h, fabs((double)(predicted - measured)) / (double)measured, times);
}

static void add_measured(struct ledger_totals *t, const struct ledger_row *row, int times)
{
    int64_t blackout = value_get_int(&row->facts, "blackout_us", 0), duration = value_get_int(&row->facts, "duration_us", 0);

    histogram_add(&t->duration, row->ended_ms > row->began_ms ? (double)(row->ended_ms - row->began_ms) / 1e3 : 0, times);
    if (blackout > 0)
        histogram_add(&t->blackout, (double)blackout / 1e6, times);
    error_add(&t->blackout_error, value_get_int(&row->facts, "predicted_blackout_us", 0), blackout, times);
    error_add(&t->duration_error, value_get_int(&row->facts, "predicted_total_us", 0), duration, times);
}

void ledger_totals_add(struct ledger_totals *t, const struct ledger_row *row, int times)
{
    bool success = strcmp(row->outcome, "success") == 0;
    unsigned outcome = place(totals_outcomes, TOTALS_OUTCOMES, row->outcome); /* the last one: failed */

    t->ended[row->side == LEDGER_IN][place(totals_kinds, TOTALS_KINDS, row->kind)][outcome] += times;
    if (row->side == LEDGER_IN)
        return;
    t->bytes += (double)value_get_int(&row->facts, "bytes", 0) * times;
    if (success)
        add_measured(t, row, times);
}
