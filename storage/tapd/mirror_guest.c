#include <errno.h>

#include "rpc/base/check.h"
#include "storage/tapd/mirror_private.h"

static void go(struct mirror *m, struct block_request *r);

void mirror_guests_init(struct mirror *m)
{
    struct mirror_guests *g = &m->guests;

    for (unsigned i = 0; i < GUEST_SLOTS; i++) {
        g->slots[i].m = m;
        g->slots[i].next = g->free;
        g->free = &g->slots[i];
    }
    g->held.last = &g->held.first;
    g->waiting.last = &g->waiting.first;
}

static void queue_add(struct request_queue *q, struct block_request *r)
{
    r->next = NULL;
    *q->last = r;
    q->last = &r->next;
}

static struct block_request *queue_take(struct request_queue *q)
{
    struct block_request *r = q->first;

    if (r == NULL)
        return NULL;
    q->first = r->next;
    if (q->first == NULL)
        q->last = &q->first;
    r->next = NULL;
    return r;
}

static bool changes(enum block_op op) { return op == BLOCK_WRITE || op == BLOCK_ZERO || op == BLOCK_DISCARD; }

/* Whether the guest's writes still mean something to the map. */
static bool follows(const struct mirror *m)
{
    return m->state == MIRROR_COPYING || m->state == MIRROR_FOLLOWING || m->state == MIRROR_SWITCHING;
}

bool mirror_guests_clear_of(const struct mirror *m, int64_t offset, uint32_t *length_r, int64_t *past_r)
{
    for (unsigned i = 0; i < m->guests.n_writing; i++) {
        const struct mirror_guest *g = m->guests.writing[i];
        int64_t first = g->offset & ~(int64_t)(MIRROR_MAP_BLOCK - 1);
        int64_t end = (g->offset + g->length + MIRROR_MAP_BLOCK - 1) & ~(int64_t)(MIRROR_MAP_BLOCK - 1);
        if (end <= offset || first >= offset + *length_r)
            continue;
        if (first <= offset) {
            *past_r = end;
            return false;
        }
        *length_r = (uint32_t)(first - offset);
    }
    return true;
}

/* --- on its way ----------------------------------------------------------------------------------------- */

static void slot_give(struct mirror_guest *g)
{
    struct mirror_guests *all = &g->m->guests;

    if (g->writes) {
        struct mirror_guest *last = all->writing[--all->n_writing];
        all->writing[g->index] = last;
        last->index = g->index;
    }
    g->next = all->free;
    all->free = g;
    all->in_flight--;
}

static void done(struct block_request *r)
{
    struct mirror_guest *g = r->owner;
    struct mirror *m = g->m;
    bool lost = mirror_over(m) && (r->result == -ECONNRESET || r->result == -ETIMEDOUT) && m->remote != NULL && m->remote->is_lost(m->target);

    /* Once more, before it is acknowledged: it may have been copied while it was half there. */
    if (g->writes && follows(m) && m->options.mode != MIRROR_POINT)
        pace_wrote(&m->pace, 0, mirror_map_written(m->map, g->offset, g->length));
    slot_give(g);
    block_pop(r);
    if (lost) { /* the disk is away for a while: its guest waits */
        queue_add(&m->guests.held, r);
        mirror_target_error(m, "disk", r->result);
        return;
    }
    bool quiet = m->guests.in_flight == 0;
    r->done(r);
    if (m->guests.held.first != NULL && !m->guests.holding)
        mirror_guests_release(m);
    if (quiet && m->state == MIRROR_SWITCHING)
        mirror_kick(m);
}

static void go(struct mirror *m, struct block_request *r)
{
    struct mirror_guests *all = &m->guests;
    struct mirror_guest *g = all->free;

    all->free = g->next;
    all->in_flight++;
    g->r = r;
    g->offset = r->offset;
    g->length = r->length;
    g->writes = changes(r->op);
    if (g->writes) {
        g->index = all->n_writing;
        all->writing[all->n_writing++] = g;
        if (follows(m) && m->options.mode != MIRROR_POINT) {
            pace_wrote(&m->pace, r->length, mirror_map_written(m->map, r->offset, r->length));
            mirror_kick(m);
        }
    }
    block_push(r, done, g);
    block_submit(m->block.below, r);
}

static bool must_wait(const struct mirror *m, const struct block_request *r)
{
    return m->options.mode == MIRROR_POINT && follows(m) && !m->stopping && changes(r->op) && mirror_map_is_dirty(m->map, r->offset, r->length);
}

static void admit(struct mirror *m, struct block_request *r)
{
    if (!must_wait(m, r)) {
        go(m, r);
        return;
    }
    queue_add(&m->guests.waiting, r);
    mirror_kick(m);
}

void mirror_guest_submit(struct block *b, struct block_request *r)
{
    struct mirror *m = CONTAINER_OF(b, struct mirror, block);
    struct mirror_guests *g = &m->guests;

    g->active_us = loop_now_us(b->loop);
    if (g->holding || g->held.first != NULL || g->free == NULL)
        queue_add(&g->held, r);
    else
        admit(m, r);
}

/* --- holding ----------------------------------------------------------------------------------------------- */

void mirror_guests_hold(struct mirror *m) { m->guests.holding = true; }

void mirror_guests_retry_waiting(struct mirror *m)
{
    struct request_queue again = m->guests.waiting;

    if (again.first == NULL)
        return;
    m->guests.waiting = (struct request_queue){ NULL, NULL };
    m->guests.waiting.last = &m->guests.waiting.first;
    m->guests.retries++;
    for (struct block_request *r = again.first, *next; r != NULL; r = next) {
        next = r->next;
        if (m->guests.free == NULL || must_wait(m, r))
            queue_add(&m->guests.waiting, r);
        else
            go(m, r);
    }
}

void mirror_guests_release(struct mirror *m)
{
    struct mirror_guests *g = &m->guests;
    struct block_request *r;

    g->holding = false;
    if (g->releasing) /* one of those released ended at once */
        return;
    g->releasing = true;
    while (!g->holding && g->free != NULL && (r = queue_take(&g->held)) != NULL)
        admit(m, r);
    mirror_guests_retry_waiting(m);
    g->releasing = false;
}
