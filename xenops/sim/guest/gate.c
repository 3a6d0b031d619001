#include "xenops/sim/guest/gate.h"

void gate_init(struct gate *g)
{
    lock_init(&g->lock, LOCK_LEAF);
    cond_init(&g->changed);
    cond_init(&g->empty);
    atomic_init(&g->open, false);
    g->working = 0;
}

bool gate_enter(struct gate *g, const atomic_bool *stop)
{
    LOCK_SCOPE(&g->lock);

    while (!atomic_load(&g->open) && !atomic_load(stop))
        cond_wait(&g->changed, &g->lock);
    if (atomic_load(stop))
        return false;
    g->working++;
    return true;
}

void gate_rest(struct gate *g, int64_t ms)
{
    LOCK_SCOPE(&g->lock);

    if (--g->working == 0)
        cond_broadcast(&g->empty);
    if (atomic_load(&g->open) && ms > 0)
        cond_wait_ms(&g->changed, &g->lock, ms);
}

void gate_open(struct gate *g)
{
    LOCK_SCOPE(&g->lock);

    atomic_store(&g->open, true);
    cond_broadcast(&g->changed);
}

void gate_close(struct gate *g)
{
    while (!gate_close_within(g, INT32_MAX))
        ;
}

bool gate_close_within(struct gate *g, int64_t ms)
{
    LOCK_SCOPE(&g->lock);

    atomic_store(&g->open, false);
    cond_broadcast(&g->changed);
    while (g->working > 0)
        if (!cond_wait_ms(&g->empty, &g->lock, ms))
            break;
    return g->working == 0;
}

void gate_wake(struct gate *g)
{
    LOCK_SCOPE(&g->lock);

    cond_broadcast(&g->changed);
}
