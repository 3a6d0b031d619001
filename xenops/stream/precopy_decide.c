#include "xenops/stream/precopy.h"

#define DOWNTIME_MS 300u
#define ROUNDS 30u
#define STALLED_MAX 3u      /* rounds without progress before giving up on convergence */
#define PROGRESS 0.95       /* less than this part of the pages before is progress */
#define FIXED_MS 2.0        /* suspending and resuming */

enum precopy_decision precopy_decide(struct precopy_facts *f, const struct save_policy *p)
{
    double limit_ms = p->max_downtime_ms != 0 ? p->max_downtime_ms : DOWNTIME_MS;
    unsigned max_rounds = p->max_rounds != 0 ? p->max_rounds : ROUNDS;

    if (f->dirty == 0 || (f->throughput > 0 && (double)f->dirty / f->throughput * 1000 + FIXED_MS <= limit_ms))
        return PRECOPY_FITS;
    if (f->rounds >= max_rounds)
        return PRECOPY_MAX_ROUNDS;
    bool progress = f->rounds < 2 || (double)f->dirty < (double)f->previous * PROGRESS;
    f->stalled = progress ? 0 : f->stalled + 1;
    f->previous = f->dirty;
    return f->stalled >= STALLED_MAX ? PRECOPY_NO_PROGRESS : PRECOPY_GO_ON;
}
