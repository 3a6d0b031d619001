/* JSON: cJSON parses behind a guard (integers come exactly from the source text, \u0000 is refused),
 * our writer writes. Integral numbers become VALUE_INT (beyond 64 bits they are refused), those with a
 * fraction or exponent VALUE_FLOAT; null is VALUE_NIL; of equal names the last counts.
 *
 * Written: datetimes as yyyyMMddTHH:mm:ssZ strings, refs and enums as strings, void as "". Floats are
 * %.16g; what JSON has no number for are the strings "NaN", "Infinity", "-Infinity" (the Go and C# SDKs
 * take them, and a browser does not stumble over them). */
#ifndef RPC_WIRE_JSON_H
#define RPC_WIRE_JSON_H

#include "rpc/base/text.h"
#include "rpc/base/value.h"

#define JSON_DEPTH_MAX 64

/* Thread-safe. False: *reason_r. */
NODISCARD bool json_parse(struct arena *, const char *bytes, size_t len, struct value *value_r, const char **reason_r);
void json_write(struct text *, const struct value *);
void json_write_string(struct text *, const char *, size_t len);

#endif
