/* Inside of tasks: the calls that run under a task, and keeping the rows tidy. */
#ifndef XAPI_CORE_TASK_TABLE_H
#define XAPI_CORE_TASK_TABLE_H

#include <stdatomic.h>

#include "xapi/core/task.h"

/* Owned by the table; valid for the running call until running_remove. */
struct running_task {
    struct running_task *next;
    char *ref;
    struct cancel *cancel;
    _Atomic int64_t progress; /* millionths, as reported */
    int64_t written;          /* TASK lock: as the row says */
    bool doomed;              /* TASK lock: its client destroyed it while it ran */
};

struct running_task *running_add(struct tasks *, const char *ref);
struct cancel *running_cancel(struct running_task *); /* borrowed */
void running_remove(struct tasks *, const char *ref);
bool running_exists(struct tasks *, const char *ref);
/* Marks it for the garbage collector once it has ended; false when nothing runs under that ref. */
bool running_doom(struct tasks *, const char *ref);

/* The daemon stops: every running call, and each that begins from now on, is cancelled. */
void tasks_cancel_all(struct tasks *);

/* A new pending row. session, subtask_of: NULL for none. */
NODISCARD struct error *task_row_create(struct xapi *, struct arena *, const char *label, const char *description, const char *session,
                                        const char *subtask_of, const char **ref_r);

/* Writes reported progress into the rows, all in one commit; ten times a second. */
void task_flush(struct xapi *);
/* Removes what is finished and old, finished and too many, pending and dead, or doomed. */
void task_gc(struct xapi *, int64_t now_wall);

#endif
