/* Sets and maps as JSON text: how they stand in a column, so that people can read the file.
 *
 * The field's type drives the reading, so text comes back as exactly the value that was written: an
 * empty string, a duplicate key, the order of members, integers of 64 bits, doubles to the last bit. */
#ifndef DB_ENCODE_H
#define DB_ENCODE_H

#include "db/model.h"
#include "rpc/base/text.h"

void encode_value(struct text *, const struct value *);
/* False when the text is no JSON or does not fit the type. The value lives in the arena. */
bool decode_value(struct arena *, const struct type_info *, const char *text, size_t len, struct value *value_r);

#endif
