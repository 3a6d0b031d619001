/* What stands between foreign JSON and cJSON, which takes any byte and keeps numbers as doubles only.
 * Private to rpc/wire. */
#ifndef RPC_WIRE_JSON_GUARD_H
#define RPC_WIRE_JSON_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"

struct json_number {
    int64_t i;
    bool integral; /* no fraction and no exponent: 'i' is exact; otherwise cJSON's double counts */
};
/* All numbers of a document, in the order in which they stand. */
struct json_numbers {
    struct json_number *items;
    size_t n, cap;
};

/* Refuses bad UTF-8, NUL (raw or \u0000), noncharacters, control bytes, nesting deeper than max_depth,
 * numbers that are not JSON's, of more than 60 digits, or integers beyond 64 bits, and anything after
 * the value; leaves the rest of the grammar to cJSON. False: *reason_r. */
NODISCARD bool json_guard(struct arena *, const char *bytes, size_t len, unsigned max_depth, struct json_numbers *,
                          const char **reason_r);

/* The source text of a member of the outermost object, which json_guard and cJSON have accepted; the
 * last one of that name. False when there is none (or its name is written with escapes). */
NODISCARD bool json_member_text(const char *bytes, size_t len, const char *name, const char **text_r, size_t *len_r);

#endif
