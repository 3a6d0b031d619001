/* What the switch costs beside the last pages, as it was measured in this process: by powers of two of the guest's size, since
 * completing an image may look at all of it. */
#include <stdatomic.h>

#include "xenops/stream/precopy.h"

#define SIZES 64
#define ASSUMED_US 15000
#define ASSUMED_PAGES_A_US 4 /* checked at the destination */
#define KEPT 0.75            /* of what was learned before, when the new one is less */
#define MOST 3

static _Atomic int64_t learned[SIZES]; /* what may well be needed: follows quickly upwards */
static _Atomic int64_t usual[SIZES];   /* what is needed mostly */
static atomic_bool any;

static unsigned size_of(uint64_t n_pages) { return n_pages > 0 ? 63u - (unsigned)__builtin_clzll(n_pages) : 0; }

bool precopy_fixed_known(void) { return atomic_load(&any); }

/* The nearest size that is known: a bigger guest costs at most in proportion, a smaller one no more. */
int64_t precopy_fixed_us(uint64_t n_pages)
{
    unsigned size = size_of(n_pages);
    int64_t us = atomic_load(&learned[size]);

    for (unsigned up = size + 1; us == 0 && up < SIZES; up++)
        us = atomic_load(&learned[up]);
    for (unsigned down = size; us == 0 && down-- > 0;) {
        us = atomic_load(&learned[down]);
        us = us > 0 && size - down < 20 ? us << (size - down) : us;
    }
    return us > 0 ? us : ASSUMED_US + (int64_t)(n_pages / ASSUMED_PAGES_A_US);
}

int64_t precopy_fixed_usual_us(uint64_t n_pages)
{
    int64_t us = atomic_load(&usual[size_of(n_pages)]);

    return us > 0 ? us : precopy_fixed_us(n_pages);
}

void precopy_fixed_learn(int64_t n_pages, int64_t us)
{
    _Atomic int64_t *cell = &learned[size_of(n_pages > 0 ? (uint64_t)n_pages : 0)];
    int64_t before = atomic_load(cell);

    if (us <= 0)
        return;
    if (before > 0 && us > MOST * before) /* one bad moment is no rule */
        us = MOST * before;
    int64_t mostly = atomic_load(&usual[cell - learned]);
    atomic_store(&usual[cell - learned], mostly > 0 ? (mostly + us) / 2 : us);
    atomic_store(cell, us >= before ? us : (int64_t)(KEPT * (double)before + (1 - KEPT) * (double)us));
    atomic_store(&any, true);
}

void precopy_fixed_doubt(uint64_t n_pages)
{
    _Atomic int64_t *cell = &learned[size_of(n_pages)];

    atomic_store(cell, (int64_t)(KEPT * (double)atomic_load(cell)));
}

void precopy_fixed_forget(void)
{
    for (unsigned i = 0; i < SIZES; i++) {
        atomic_store(&learned[i], 0);
        atomic_store(&usual[i], 0);
    }
    atomic_store(&any, false);
}
