/* Errors are values: a code, its parameters in order, and where it was raised.
 *
 * NULL means success. An error lives in the arena it was made in. Codes are XenAPI's; the generated
 * header gen/errors.h has one typed constructor per code (err_vm_bad_power_state(arena, vm,
 * expected, actual)), so a wrong number of parameters does not compile. 'cause' is for the log and
 * never goes over the wire. */
#ifndef RPC_BASE_ERROR_H
#define RPC_BASE_ERROR_H

#include <stdbool.h>

#include "rpc/base/arena.h"

struct error {
    const char *code;          /* "VM_BAD_POWER_STATE" */
    const char *const *params; /* n_params strings */
    unsigned n_params;
    const char *file; /* where it was raised */
    int line;
    const char *cause; /* more for the log, or NULL */
};

/* Makes an error; the strings are copied into the arena. Used through the generated constructors. */
struct error *error_make(struct arena *, const char *file, int line, const char *code, unsigned n, ...);

/* The same from an array, for errors that came over a wire. */
struct error *error_from_strings(struct arena *, const char *code, unsigned n, const char *const *params);

/* INTERNAL_ERROR with formatted text. */
struct error *error_internal_at(struct arena *, const char *file, int line, const char *fmt, ...) PRINTF(4, 5);
#define err_internal(arena, ...) error_internal_at(arena, __FILE__, __LINE__, __VA_ARGS__)

/* Deep copy into another arena (a task or a waiter outlives the call that failed). NULL gives NULL. */
struct error *error_dup(struct arena *, const struct error *);

bool error_is(const struct error *, const char *code); /* false for NULL */

/* "CODE [p1; p2] (file:line) cause" for the log, in the arena. */
const char *error_text(struct arena *, const struct error *);

/* The only control-flow macro of the project: hands an error upward untouched. */
#define TRY(expr)                             \
    do {                                      \
        struct error *try_error_ = (expr);    \
        if (try_error_ != NULL)               \
            return try_error_;                \
    } while (0)

#endif
