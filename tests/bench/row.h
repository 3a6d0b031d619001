/* One row of a bench program: pairs with the load of others while each ran, and the line bench.py reads.
 *
 *   struct row r = row_of("wire XML", "<=", 3.0);
 *   while (r.n < pairs) {
 *       row_pair_begin(&r);
 *       … measure ours and the peer …
 *       row_pair_end(&r, ours / peer);   // a disturbed pair is not counted: r.n stays
 *   }
 *   bool met = row_end(&r);
 *
 * prints 'row NAME median X worst X target OP X pairs N repeated N load P%' ('- -': no target). */
#ifndef TESTS_BENCH_ROW_H
#define TESTS_BENCH_ROW_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "rpc/base/clock.h"

#define ROW_PAIRS_MAX 101
#define ROW_DISTURBED 0.25 /* of the machine, used by others while a pair ran */

#define ROW_SHORT 0.2      /* seconds */

struct row_moment { double at, own, busy; }; /* seconds: clock, CPU of this process, CPU of all */

struct row {
    const char *name, *op; /* "<=", ">=" */
    double target;         /* 0: none */
    int n, repeated;
    struct row_moment before;
    double ratios[ROW_PAIRS_MAX], shares[ROW_PAIRS_MAX];
};

static inline struct row row_of(const char *name, const char *op, double target)
{
    return (struct row){ .name = name, .op = op, .target = target };
}

static inline double row_machine_busy(void)
{
    uint64_t user = 0, nice = 0, system = 0, ignored, stolen = 0;
    FILE *f = fopen("/proc/stat", "re");

    if (f == NULL)
        return 0;
    if (fscanf(f, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &user, &nice,
               &system, &ignored, &ignored, &ignored, &ignored, &stolen) != 8)
        user = nice = system = stolen = 0;
    fclose(f);
    return (double)(user + nice + system + stolen) / (double)sysconf(_SC_CLK_TCK);
}

static inline struct row_moment row_moment_now(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (struct row_moment){
        .at = (double)clock_us(&clock_real) / 1e6,
        .own = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6,
        .busy = row_machine_busy(),
    };
}

static inline void row_pair_begin(struct row *r) { r->before = row_moment_now(); }

/* A disturbed pair is taken again, but not for ever: with no quiet to be had it counts, and its load shows. */
static inline void row_pair_end(struct row *r, double ratio)
{
    struct row_moment now = row_moment_now();
    double took = now.at - r->before.at, own = now.own - r->before.own;
    double share = (now.busy - r->before.busy - own) / (took * (double)sysconf(_SC_NPROCESSORS_ONLN));

    if (took < ROW_SHORT) /* too short for the kernel's ticks: what one busy thread did not get */
        share = 1 - own / took;

    if (share > ROW_DISTURBED && r->repeated < 2 * (r->n + 1)) {
        r->repeated++;
        return;
    }
    r->ratios[r->n] = ratio;
    r->shares[r->n++] = share > 0 ? share : 0;
}

static inline int row_by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Prints the line. True when the median meets the target, or there is none. */
static inline bool row_end(struct row *r)
{
    bool smaller = r->op[0] == '<';

    qsort(r->ratios, (size_t)r->n, sizeof(double), row_by_size);
    qsort(r->shares, (size_t)r->n, sizeof(double), row_by_size);
    double median = r->ratios[r->n / 2], worst = r->ratios[smaller ? r->n - 1 : 0];
    printf("row %s median %.3f worst %.3f target ", r->name, median, worst);
    if (r->target > 0)
        printf("%s %g", r->op, r->target);
    else
        printf("- -");
    printf(" pairs %d repeated %d load %.0f%% max %.0f%%\n", r->n, r->repeated, r->shares[r->n / 2] * 100, r->shares[r->n - 1] * 100);
    fflush(stdout);
    return r->target <= 0 || (smaller ? median <= r->target : median >= r->target);
}

#endif
