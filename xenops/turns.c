#include "xenops/turns.h"

#include <string.h>

#include "rpc/base/check.h"

#define SLICE_MS 50 /* between two looks at cancellation */

void turns_init(struct turns *q)
{
    lock_init(&q->lock, LOCK_VM_QUEUE);
    cond_init(&q->changed);
    q->first = NULL;
    q->last = &q->first;
}

void turns_release(struct turns *q)
{
    CHECK(q->first == NULL);
    cond_release(&q->changed);
    lock_release(&q->lock);
}

static bool is_first_locked(const struct turns *q, const struct turn *t)
{
    for (const struct turn *at = q->first; at != t; at = at->next)
        if (strcmp(at->uuid, t->uuid) == 0)
            return false;
    return true;
}

static void remove_locked(struct turns *q, const struct turn *t)
{
    struct turn **at = &q->first;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    if (t->next == NULL)
        q->last = at;
    cond_broadcast(&q->changed);
}

struct error *turn_take(struct call *c, struct turns *q, struct turn *t, const char *uuid)
{
    LOCK_SCOPE(&q->lock);

    *t = (struct turn){ .uuid = uuid };
    *q->last = t;
    q->last = &t->next;
    while (!is_first_locked(q, t)) {
        cond_wait_ms(&q->changed, &q->lock, SLICE_MS);
        if (call_cancelled(c)) {
            remove_locked(q, t);
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        }
    }
    return NULL;
}

void turn_drop(struct turns *q, struct turn *t)
{
    LOCK_SCOPE(&q->lock);

    remove_locked(q, t);
}
