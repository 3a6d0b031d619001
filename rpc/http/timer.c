#include "rpc/http/timer.h"

#include "rpc/base/memory.h"

static void place(struct timer_heap *h, size_t i, struct timer *t)
{
    h->entries[i] = t;
    t->position = i + 1;
}

static void move_up(struct timer_heap *h, size_t i, struct timer *t)
{
    while (i > 0) {
        size_t parent = (i - 1) / 2;

        if (h->entries[parent]->key <= t->key)
            break;
        place(h, i, h->entries[parent]);
        i = parent;
    }
    place(h, i, t);
}

static void move_down(struct timer_heap *h, size_t i, struct timer *t)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->entries[child + 1]->key < h->entries[child]->key)
            child++;
        if (h->entries[child]->key >= t->key)
            break;
        place(h, i, h->entries[child]);
        i = child;
    }
    place(h, i, t);
}

void timer_set(struct timer_heap *h, struct timer *t, int64_t at)
{
    t->at = at;
    if (t->position != 0) {
        if (at >= t->key)
            return;
        t->key = at;
        move_up(h, t->position - 1, t);
        return;
    }
    if (at == TIMER_NEVER)
        return;
    if (h->n == h->cap) {
        h->cap = h->cap == 0 ? 64 : 2 * h->cap;
        h->entries = xrealloc(h->entries, h->cap * sizeof *h->entries);
    }
    t->key = at;
    h->n++;
    move_up(h, h->n - 1, t);
}

void timer_remove(struct timer_heap *h, struct timer *t)
{
    t->at = TIMER_NEVER;
    if (t->position == 0)
        return;
    size_t i = t->position - 1;
    struct timer *last = h->entries[--h->n];

    t->position = 0;
    if (last == t)
        return;
    if (i > 0 && h->entries[(i - 1) / 2]->key > last->key)
        move_up(h, i, last);
    else
        move_down(h, i, last);
}

struct timer *timer_expired(struct timer_heap *h, int64_t now)
{
    while (h->n > 0 && h->entries[0]->key <= now) {
        struct timer *t = h->entries[0];

        if (t->at <= now) {
            timer_remove(h, t);
            return t;
        }
        if (t->at == TIMER_NEVER) {
            timer_remove(h, t);
            continue;
        }
        t->key = t->at;
        move_down(h, 0, t);
    }
    return NULL;
}

int64_t timer_next(const struct timer_heap *h) { return h->n > 0 ? h->entries[0]->key : TIMER_NEVER; }

void timer_heap_release(struct timer_heap *h)
{
    xfree(h->entries);
    *h = (struct timer_heap){ 0 };
}
