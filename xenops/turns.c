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

/* Does another operation on this uuid go on: one that 't' cannot go beside? */
static bool is_busy_locked(const struct turns *q, const struct turn *t, bool beside_save)
{
    for (const struct turn *at = q->first; at != NULL; at = at->next)
        if (at != t && at->taken && strcmp(at->uuid, t->uuid) == 0 && !(beside_save && at->kind == TURN_SAVE))
            return true;
    return false;
}

static bool may_go_locked(const struct turns *q, const struct turn *t)
{
    bool into = t->kind == TURN_INTO, saving = into && is_busy_locked(q, t, false) && !is_busy_locked(q, t, true);

    if (is_busy_locked(q, t, into))
        return false;
    for (const struct turn *at = q->first; at != t; at = at->next)
        if (!at->taken && strcmp(at->uuid, t->uuid) == 0 && !(saving && at->kind != TURN_INTO))
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

static struct error *cancelled(struct call *c) { return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0); }

struct error *turn_take(struct call *c, struct turns *q, struct turn *t, const char *uuid, enum turn_kind kind)
{
    LOCK_SCOPE(&q->lock);

    *t = (struct turn){ .uuid = uuid, .kind = kind };
    *q->last = t;
    q->last = &t->next;
    while (!may_go_locked(q, t)) {
        cond_wait_ms(&q->changed, &q->lock, SLICE_MS);
        if (call_cancelled(c)) {
            remove_locked(q, t);
            return cancelled(c);
        }
    }
    t->taken = true;
    cond_broadcast(&q->changed); /* an INTO behind a save may go now, too */
    return NULL;
}

bool turn_is_beside(struct turns *q, const struct turn *t)
{
    LOCK_SCOPE(&q->lock);

    return is_busy_locked(q, t, false);
}

struct error *turn_alone(struct call *c, struct turns *q, const struct turn *t)
{
    LOCK_SCOPE(&q->lock);

    while (is_busy_locked(q, t, false)) {
        cond_wait_ms(&q->changed, &q->lock, SLICE_MS);
        if (call_cancelled(c))
            return cancelled(c);
    }
    return NULL;
}

void turn_drop(struct turns *q, struct turn *t)
{
    LOCK_SCOPE(&q->lock);

    remove_locked(q, t);
}
