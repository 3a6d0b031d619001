/* json_parse with a chosen depth: a JSON-RPC envelope is two levels around its values. Private to rpc/wire. */
#ifndef RPC_WIRE_JSON_PARSE_H
#define RPC_WIRE_JSON_PARSE_H

#include "rpc/base/value.h"

NODISCARD bool json_parse_nested(struct arena *, const char *bytes, size_t len, unsigned max_depth,
                                 struct value *value_r, const char **reason_r);

#endif
