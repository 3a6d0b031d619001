/* One operation at a time for each domain: whoever asked first goes first; waiting can be cancelled.
 *
 * A save may last for minutes, and what ends a guest must not wait for it: an INTO turn is taken although a save has
 * its turn, before whoever waits for that save to end; turn_alone then waits for the save.
 *
 * A turn lives on the stack of the operation. Lock class VM_QUEUE, held only to look at the list. */
#ifndef XENOPS_TURNS_H
#define XENOPS_TURNS_H

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/base/lock.h"

enum turn_kind { TURN_ALONE, TURN_SAVE, TURN_INTO };
struct turn {
    const char *uuid;
    enum turn_kind kind;
    bool taken;
    struct turn *next; /* who asked later */
};
struct turns {
    struct lock lock;
    struct cond changed;
    struct turn *first, **last;
};

void turns_init(struct turns *);
void turns_release(struct turns *); /* nobody may be left in it */
/* Waits until no earlier turn is about this uuid (INTO: see above). TASK_CANCELLED: then the turn is not taken. */
NODISCARD struct error *turn_take(struct call *, struct turns *, struct turn *, const char *uuid, enum turn_kind);
/* Of an INTO turn: does a save go on beside it? */
bool turn_is_beside(struct turns *, const struct turn *);
/* Of an INTO turn: waits until it does not. TASK_CANCELLED: the turn stays taken. */
NODISCARD struct error *turn_alone(struct call *, struct turns *, const struct turn *);
void turn_drop(struct turns *, struct turn *);

#endif
