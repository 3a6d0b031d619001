/* current_operations and allowed_operations: long exclusion as data on the object (specs §2).
 *
 * operation_begin checks validity and marks in one critical section; OTHER_OPERATION_IN_PROGRESS is
 * not returned at once: the caller waits (cancellable, woken when the other operation ends, for at
 * most two hours). allowed_operations is recomputed after each change.
 *
 * A mark is keyed by the call's task (or by a dummy of the call where it has none), so one call holds
 * at most one mark on an object. */
#ifndef XAPI_CORE_OPERATIONS_H
#define XAPI_CORE_OPERATIONS_H

#include "xapi/core/api_call.h"

struct operations *operations_new(struct xapi *);
void operations_free(struct operations *);

/* strict=false: pool_migrate with force (skips immobility and feature checks). */
NODISCARD struct error *operation_begin(struct api_call *c, unsigned class_id, const char *ref, const char *operation, bool strict);
void operation_end(struct api_call *c, unsigned class_id, const char *ref, const char *operation);
/* Scope form: OPERATION_SCOPE releases on every return path. */
struct operation_scope { struct api_call *c; unsigned class_id; const char *ref; const char *operation; };
void operation_scope_end(struct operation_scope *);
#define OPERATION_SCOPE CLEANUP(operation_scope_end) __attribute__((unused)) struct operation_scope

/* The halves of it inside a transaction of the caller's, for marks on several objects at once. Nothing
 * waits: OTHER_OPERATION_IN_PROGRESS comes back. operation_end or operation_unmark takes it back; of an
 * object that is gone it does nothing. */
NODISCARD struct error *operation_mark(struct api_call *c, struct txn *, unsigned class_id, const char *ref, const char *operation, bool strict);
NODISCARD struct error *operation_unmark(struct api_call *c, struct txn *, unsigned class_id, const char *ref);

/* Marks without asking whether it is valid, if nothing at all is being done with the object: for
 * following what has happened already. *taken_r says whether it did. Never waits. */
NODISCARD struct error *operation_take(struct api_call *c, unsigned class_id, const char *ref, const char *operation, bool *taken_r);

/* Runs 'attempt' again and again while it says OTHER_OPERATION_IN_PROGRESS, woken by changes of
 * 'class_id', for at most wait_ms; cancellable meanwhile. The rules of waiting are those of
 * operation_begin: TOO_MANY_PENDING_TASKS [], TASK_CANCELLED [task]. */
typedef struct error *operation_attempt_fn(struct api_call *c, void *ctx);
NODISCARD struct error *operation_retry(struct api_call *c, unsigned class_id, int64_t wait_ms, operation_attempt_fn *attempt, void *ctx);

/* Is it valid now? (allowed_operations, assert_operation_valid) Reads inside the transaction. */
NODISCARD struct error *operation_check(struct api_call *c, struct txn *, unsigned class_id, const struct row *, const char *operation, bool strict);
NODISCARD struct error *operation_check_vm(struct api_call *c, struct txn *, const struct row *vm, const char *operation, bool strict);
/* Recomputes allowed_operations of an object inside a transaction; any class that has them. */
NODISCARD struct error *operations_update(struct api_call *c, struct txn *, unsigned class_id, const char *ref);
/* The same, and of what follows from it: of a VM its block devices, their disks and its interfaces; of
 * a block device its disk and the disk's other devices; of a disk its block devices. */
NODISCARD struct error *operations_update_around(struct api_call *c, struct txn *, unsigned class_id, const char *ref);

#endif
