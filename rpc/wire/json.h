/* JSON: cJSON parses (integers beyond 2^53 come from the source text, \u0000 is refused), our writer
 * writes. Integral numbers become VALUE_INT, others VALUE_FLOAT. Datetimes are written as
 * yyyyMMddTHH:mm:ssZ strings, refs and enums as strings, void as "". */
#ifndef RPC_WIRE_JSON_H
#define RPC_WIRE_JSON_H

#include "rpc/base/text.h"
#include "rpc/base/value.h"

NODISCARD bool json_parse(struct arena *, const char *bytes, size_t len, struct value *value_r, const char **reason_r);
void json_write(struct text *, const struct value *);
void json_write_string(struct text *, const char *, size_t len);

#endif
