/* Types and literals of the IDL, spelt as in the datamodel's facts:
 *   string int bool float datetime void · enum NAME · CLASS ref · CLASS record · T set · T option
 *   (T -> T) map · <class> record · an event batch
 * Literals: words (true 7 Halted null 1.5 19700101T00:00:00Z), "strings", { a, b }, { "k" -> "v" }. */
#ifndef DB_IDLC_TYPE_H
#define DB_IDLC_TYPE_H

#include "db/idlc/idl.h"
#include "db/idlc/lexer.h"

/* Parses a type at the lexer's place. NULL and *wrong_r on error. */
struct idl_type *type_parse(struct arena *, struct lexer *, const char **wrong_r);

/* Parses a literal. NULL and *wrong_r on error. */
struct idl_literal *literal_parse(struct arena *, struct lexer *, const char **wrong_r);

/* NULL when the (resolved) type can hold the literal, else what is wrong. */
const char *literal_check(struct arena *, const struct idl_type *, const struct idl_literal *);

/* Numbers of checked literals. */
int64_t literal_int(const struct idl_literal *);
double literal_float(const struct idl_literal *);
int64_t literal_datetime(const struct idl_literal *);

#endif
