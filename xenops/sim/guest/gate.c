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

static void set(struct gate *g, bool open)
{
    LOCK_SCOPE(&g->lock);

    atomic_store(&g->open, open);
    cond_broadcast(&g->changed);
    while (!open && g->working > 0)
        cond_wait(&g->empty, &g->lock);
}

void gate_open(struct gate *g) { set(g, true); }
void gate_close(struct gate *g) { set(g, false); }

void gate_wake(struct gate *g)
{
    LOCK_SCOPE(&g->lock);

    cond_broadcast(&g->changed);
}
