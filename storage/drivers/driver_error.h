/* Errors and fault points of the drivers. */
#ifndef STORAGE_DRIVERS_DRIVER_ERROR_H
#define STORAGE_DRIVERS_DRIVER_ERROR_H

#include <stdint.h>

#include "rpc/base/call.h"
#include "rpc/base/error.h"

/* SR_BACKEND_FAILURE: "<what> <path>: <reason>"; status 44 where the medium is full, else 5. error: a positive errno. */
NODISCARD struct error *driver_failed(struct call *, const char *what, const char *path, int error);
/* The same with a text of one's own. */
NODISCARD struct error *driver_refused(struct call *, const char *status, const char *fmt, ...) PRINTF(3, 4);
NODISCARD struct error *driver_cancelled(struct call *); /* TASK_CANCELLED */
/* SR_FULL [requested; maximum] where 'free' bytes are less than 'need'. */
NODISCARD struct error *driver_room(struct call *, int64_t need, int64_t free);
/* The fault point "sr.<family>.<operation>.<step>", before the step. */
NODISCARD struct error *driver_step(struct call *, const char *family, const char *operation, const char *step);
/* Runs a program and waits for it, at most timeout_ms: its output in the arena, or SR_BACKEND_FAILURE with what it
 * said. argv ends with NULL. */
NODISCARD struct error *driver_command(struct call *, const char *const *argv, int timeout_ms, char **output_r);

#endif
