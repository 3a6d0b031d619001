/* From what came off the wire to what a handler takes: arity, types, defaults, references.
 *
 * Leniences (specs/clients.md §0): ints come as decimal strings or integral floats, floats as ints or
 * decimal strings, datetimes as strings, "" is a null reference. Booleans are booleans. Members of
 * records that no constructor takes are dropped, missing ones take their defaults. */
#ifndef XAPI_CORE_ARGS_H
#define XAPI_CORE_ARGS_H

#include "xapi/core/api_call.h"

/* The parameters of a call without its session. */
struct arg_list {
    const struct value *items;  /* positional */
    unsigned n;
    const struct value *by_name; /* a map (JSON-RPC), or NULL */
};

/* Splits a session off: *session_r is its ref, or NULL where there is none. */
void args_split(const struct value *params, bool has_session, struct arg_list *list_r, const char **session_r);

/* Converts and checks all parameters. values_r[i] are the results, in c's arena (defaults where left
 * off). MESSAGE_PARAMETER_COUNT_MISMATCH [method; expected; received], INTERNAL_ERROR for a wrong type,
 * INVALID_VALUE [parameter; value], HANDLE_INVALID [class; ref]. */
NODISCARD struct error *args_convert(struct api_call *c, const struct param_info *, unsigned n_params, unsigned n_required,
                                     const struct arg_list *, struct value *values_r);

/* The argument struct of a message, from its values. */
void *args_struct(struct arena *, const struct message_info *, const struct value *values);

/* One value. 'what' names it in errors; flags: PARAM_*. References are looked up unless c->db is not to be used. */
NODISCARD struct error *args_value(struct api_call *c, const struct type_info *, const char *what, unsigned flags,
                                   const struct value *in, struct value *value_r);

#endif
