/* XML-RPC: requests by xmlrpc-c behind a guard, replies by a table-driven writer.
 *
 * Wire rules: strings bare and escaped, ints as bare decimal strings, <boolean>, <double>,
 * <dateTime.iso8601>, compact (no white space between elements), "" is <value></value>. */
#ifndef RPC_WIRE_XMLRPC_H
#define RPC_WIRE_XMLRPC_H

#include "rpc/base/error.h"
#include "rpc/base/text.h"
#include "rpc/base/value.h"

/* Once, before any thread: raises xmlrpc-c's process-wide limits. */
void xmlrpc_setup(size_t max_bytes);

/* Parses a <methodCall>. Anything that is not UTF-8 or ASCII, holds NUL, a '<!' that is no comment or
 * CDATA, nests deeper than 64, or is no call: false, with a reason. Thread-safe. */
NODISCARD bool xmlrpc_parse_call(struct arena *, const char *bytes, size_t len, const char **method_r, struct value *params_r, const char **reason_r);
/* Client side: the call, and the answer (a struct with Status, or a bare value; a fault is a failure
 * with its text as FAULT). */
void xmlrpc_write_call(struct text *, const char *method, const struct value *params, unsigned n);
NODISCARD bool xmlrpc_parse_answer(struct arena *, const char *bytes, size_t len, struct value *value_r, const char **reason_r);

/* "<value>…</value>" of one value. */
void xmlrpc_write_value(struct text *, const struct value *);
/* Parses "<value>…</value>" (task results). */
NODISCARD bool xmlrpc_parse_value(struct arena *, const char *bytes, size_t len, struct value *value_r);

#endif
