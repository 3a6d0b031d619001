/* What stands between foreign XML and xmlrpc-c. Private to rpc/wire.
 *
 * The guard reads the document once, from front to end, and
 *
 * (1) refuses what could hurt: bad UTF-8, NUL, encodings other than UTF-8 and ASCII, DOCTYPE and every
 *     other '<!' but comments and CDATA, processing instructions, elements that are not XML-RPC's,
 *     attributes anywhere but on the root, deep nesting, too many elements or members;
 * (2) rewrites what xmlrpc-c 1.33 cannot take or would spoil. It crashes on <i8> values out of range,
 *     refuses white space around numbers and characters beyond U+FFFF, and turns &#13; into a line
 *     feed. So numbers, booleans and dates become <string>s with a mark and their kind in front, and
 *     those characters become marks that xmlrpc_guard_text undoes. <fault> becomes a plain value.
 *
 * xmlrpc-c then builds the tree of strings, arrays, structs and nils and checks that it is one.
 * A document that needs none of (2), the usual request, is not copied. */
#ifndef RPC_WIRE_XMLRPC_GUARD_H
#define RPC_WIRE_XMLRPC_GUARD_H

#include <stdbool.h>

#include "rpc/base/arena.h"
#include "rpc/base/text.h"

#define XMLRPC_DEPTH_MAX 64 /* <value> in <value> */

struct xmlrpc_limits {
    size_t elements; /* in the document */
    size_t members;  /* of one struct: xmlrpc-c takes quadratic time */
};
extern const struct xmlrpc_limits xmlrpc_limits_call;   /* from anybody */
extern const struct xmlrpc_limits xmlrpc_limits_answer; /* from hosts we called */

struct xmlrpc_guarded {
    const char *bytes; /* what xmlrpc-c may see: the document or 'copy' */
    size_t len;
    bool fault; /* the answer was a <fault> */
    struct text copy;
};

/* False: *reason_r, perhaps in the arena. Release 'copy' in both cases. */
NODISCARD bool xmlrpc_guard(struct arena *, const char *bytes, size_t len, const struct xmlrpc_limits *,
                            struct xmlrpc_guarded *, const char **reason_r);

/* The text of a string that came through the guard: copied into the arena with the marks undone.
 * *kind_r: 0 of a string, else 'i', 'f', 'b' or 't' of what was an int, double, boolean or date. */
const char *xmlrpc_guard_text(struct arena *, const char *, size_t len, size_t *len_r, char *kind_r);

#endif
