/* The expressions of get_all_records_where:
 *
 *   field "name__label" = "x"   or field "name_label" = 'x'   (both spellings of '_' are seen)
 *   and, or, not, true, false, parentheses
 *
 * Values compare as text: numbers in decimal, booleans as true and false, refs and enums as spelt
 * (enums in any case). Maps and sets never match. */
#ifndef XAPI_CORE_QUERY_H
#define XAPI_CORE_QUERY_H

#include "db/row.h"
#include "rpc/base/error.h"

struct query;
/* INTERNAL_ERROR with what is wrong and where. In the arena. */
NODISCARD struct error *query_parse(struct arena *, const struct class_info *, const char *expr, struct query **query_r);
bool query_matches(const struct query *, const struct row *);

#endif
