/* The one way in for API calls: session -> role -> arguments -> task -> operation -> run here or forward.
 *
 * Nothing of that is repeated anywhere: a handler that looks at a session, a role, a type or a missing
 * reference is wrong. The front (front.c) makes a request from what came off the wire; tests do so
 * directly. Errors go up as values and become Failure replies in the front.
 *
 * Blocks, unless method_is_inline(). */
#ifndef XAPI_CORE_DISPATCH_H
#define XAPI_CORE_DISPATCH_H

#include "xapi/core/args.h"
#include "xapi/core/method.h"

struct request {
    struct method method;
    struct arg_list list;
    const char *session;   /* as given, or NULL */
    struct value *values;  /* converted arguments; after dispatch_enter */
};

/* Splits the parameters; nothing is checked yet. */
void request_init(struct request *, const struct method *, const struct value *params);

/* session -> role -> arguments: everything that never blocks. Fills c's session fields. */
NODISCARD struct error *dispatch_enter(struct api_call *c, struct request *);
/* task -> operation -> run or forward. */
NODISCARD struct error *dispatch_run(struct api_call *c, struct request *, struct value *result_r);
/* The same for an Async call, with an arena of its own that is given away: the result is the task's
 * ref, in c's arena. TOO_MANY_PENDING_TASKS [] when no worker is to be had. */
NODISCARD struct error *dispatch_async(struct api_call *c, const struct value *params, struct value *result_r);

/* All of it, for a call whose wire_name, arena, db and xapi are set. */
NODISCARD struct error *dispatch(struct api_call *c, const struct value *params, struct value *result_r);

/* Prepares an api_call: arena, clock, database and a request id; zero otherwise. */
void api_call_init(struct api_call *, struct xapi *, struct arena *, const char *wire_name);

#endif
