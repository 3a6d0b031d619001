/* current_operations and allowed_operations: long exclusion as data on the object (specs §2).
 *
 * operation_begin checks validity and marks in one critical section; OTHER_OPERATION_IN_PROGRESS is
 * not returned at once: the caller waits (cancellable, woken when the other operation ends, for at
 * most two hours). allowed_operations is recomputed after each change. */
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
#define OPERATION_SCOPE CLEANUP(operation_scope_end) struct operation_scope

/* Is it valid now? (allowed_operations, assert_operation_valid) Reads inside the transaction. */
NODISCARD struct error *operation_check_vm(struct api_call *c, struct txn *, const struct row *vm, const char *operation, bool strict);
/* Recomputes allowed_operations of an object inside a transaction; any class that has them. */
NODISCARD struct error *operations_update(struct api_call *c, struct txn *, unsigned class_id, const char *ref);

#endif
