/* A value as JSON text: the record of a domain on disk, the Xenops record of an image.
 *
 * xenops/ stands beside rpc/wire/ and may not use its JSON; it needs no more than this. Reading is
 * strict (one value, no trailing bytes, valid UTF-8 escapes, depth and size limits), since images come
 * from outside. Datetimes, records and void have no form here. */
#ifndef XENOPS_STATE_TEXT_H
#define XENOPS_STATE_TEXT_H

#include <stdbool.h>

#include "rpc/base/text.h"
#include "rpc/base/value.h"

#define STATE_DEPTH_MAX 16u

void state_text_add(struct text *, const struct value *); /* of strings, ints, bools, floats, sets, maps */
/* False when it is not such a text; *why_r says what is wrong. All of it in the arena. */
bool state_text_read(struct arena *, const char *bytes, size_t len, struct value *, const char **why_r);

#endif
