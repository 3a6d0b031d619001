/* One operation at a time for each domain: whoever asked first goes first; waiting can be cancelled.
 *
 * A turn lives on the stack of the operation. Lock class VM_QUEUE, held only to look at the list. */
#ifndef XENOPS_TURNS_H
#define XENOPS_TURNS_H

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/base/lock.h"

struct turn {
    const char *uuid;
    struct turn *next; /* who asked later */
};
struct turns {
    struct lock lock;
    struct cond changed;
    struct turn *first, **last;
};

void turns_init(struct turns *);
void turns_release(struct turns *); /* nobody may be left in it */
/* Waits until no earlier turn is about this uuid. TASK_CANCELLED: then the turn is not taken. */
NODISCARD struct error *turn_take(struct call *, struct turns *, struct turn *, const char *uuid);
void turn_drop(struct turns *, struct turn *);

#endif
