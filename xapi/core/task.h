/* Tasks: rows for clients, and the running calls behind them.
 *
 * Rows are volatile. Life cycle: pending -> success | failure | cancelled, written last; finished
 * tasks stay until destroyed or until the garbage collector takes them (specs §3). */
#ifndef XAPI_CORE_TASK_H
#define XAPI_CORE_TASK_H

#include "xapi/core/api_call.h"

struct tasks *tasks_new(struct xapi *);
void tasks_free(struct tasks *);

/* Makes a row for a call and ties call.cancel and call.progress to it. */
NODISCARD struct error *task_begin(struct api_call *c, const char *label, const char *subtask_of);
/* Takes on a task that a client made (task.create) for work it starts in another way: HTTP. It must be pending;
 * HANDLE_INVALID, OPERATION_NOT_ALLOWED. End it with is_async set. */
NODISCARD struct error *task_adopt(struct api_call *c, const char *ref);
/* Completes it by the outcome (async) or removes it (sync). result NULL with an error. */
void task_end(struct api_call *c, const struct error *, const struct value *result);
/* Raises the flag of a running task; false when nothing runs under that ref. */
bool task_cancel_running(struct tasks *, const char *task_ref);
/* other_config of the current task; errors are logged only. */
void task_note(struct api_call *c, const char *key, const char *value);
/* May it be cancelled now? Puts "cancel" into allowed_operations or takes it out. */
void task_set_cancellable(struct api_call *c, bool);
/* Waits for another task to end: its result as parsed value, or its error. */
NODISCARD struct error *task_wait(struct api_call *c, const char *task_ref, struct value *result_r);

#endif
