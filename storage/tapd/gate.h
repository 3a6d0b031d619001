/* The gate: the top of a tapd's stack, what the NBD server and the control verbs see of the disk.
 *
 * Open: requests pass. Closed: they wait in a queue (no request is refused) and what is below may be drained,
 * closed, swapped. A new gate is closed and has nothing below. Loop thread only; nothing here blocks or allocates.
 *
 * While it is closed block_extents of the gate gives -EAGAIN; a request sent through it then is done when asking
 * again makes sense. */
#ifndef STORAGE_TAPD_GATE_H
#define STORAGE_TAPD_GATE_H

#include "storage/tapd/block.h"

/* size: what it announces before anything is below. */
struct block *gate_new(struct loop *, int64_t size, bool read_only);

/* Closes; drained(ctx) once, from the loop, when nothing that passed is in flight any more. One at a time. */
void gate_close(struct block *, void (*drained)(void *ctx), void *ctx);
/* Something is below: lets what waited pass, in order, then everything. Open already is fine. */
void gate_open(struct block *);
bool gate_is_open(const struct block *);
/* What is below from now on (NULL: nothing); takes its size, read_only and thin. Closed and drained only. */
void gate_set_below(struct block *, struct block *below);
/* Finishes what waits with this result, at the end of the process. Closed only. */
void gate_refuse(struct block *, int result);
unsigned gate_in_flight(const struct block *);
unsigned gate_held(const struct block *);

bool block_is_gate(const struct block *);

#endif
