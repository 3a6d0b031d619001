/* XML-RPC: requests by xmlrpc-c behind a guard, replies by a table-driven writer.
 *
 * Wire rules: strings bare and escaped, ints as bare decimal strings, <boolean>, <double>,
 * <dateTime.iso8601>, compact (no white space between elements), "" is <value></value>.
 *
 * Read: every int tag is a VALUE_INT of 64 bits (xapi takes <int> and <i4> so, too), bare text stays a
 * VALUE_STRING, <nil/> is VALUE_NIL, <base64> is refused, of equal member names the last counts.
 * Written: '<' '>' '&' '"' as entities (as xapi does), CR as &#13; (a raw one would become LF in any
 * XML parser), other control characters but tab and LF are dropped. Doubles are %.16g, or nan, inf, -inf.
 *
 * The names xmlrpc_parse_call and xmlrpc_parse_value belong to xmlrpc-c: ours must not be called so,
 * or the library would call us. */
#ifndef RPC_WIRE_XMLRPC_H
#define RPC_WIRE_XMLRPC_H

#include "rpc/base/error.h"
#include "rpc/base/text.h"
#include "rpc/base/value.h"

/* Once, before any thread: raises xmlrpc-c's process-wide limits. */
void xmlrpc_setup(size_t max_bytes);

/* Parses a <methodCall>; params_r is a VALUE_SET. Anything that is not UTF-8 or ASCII, holds NUL, a
 * '<!' that is no comment or CDATA, nests deeper than 64, or is no call: false, with a reason.
 * Thread-safe. */
NODISCARD bool xmlrpc_parse_request(struct arena *, const char *bytes, size_t len, const char **method_r,
                                    struct value *params_r, const char **reason_r);
/* Client side: the call, and the answer (a struct with Status, or a bare value; a fault is a failure
 * with its text as FAULT). */
void xmlrpc_write_call(struct text *, const char *method, const struct value *params, unsigned n);
NODISCARD bool xmlrpc_parse_answer(struct arena *, const char *bytes, size_t len, struct value *value_r,
                                   const char **reason_r);

/* "<value>…</value>" of one value. */
void xmlrpc_write_value(struct text *, const struct value *);
/* Parses "<value>…</value>" (task results). */
NODISCARD bool xmlrpc_parse_fragment(struct arena *, const char *bytes, size_t len, struct value *value_r);

#endif
