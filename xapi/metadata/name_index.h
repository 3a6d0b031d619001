/* Strings to small numbers: refs and "Ref:n" names of one export or import. */
#ifndef XAPI_METADATA_NAME_INDEX_H
#define XAPI_METADATA_NAME_INDEX_H

#include <stdbool.h>

#include "rpc/base/arena.h"

struct name_index { struct arena *arena; struct name_slot *slots; unsigned n, cap; };

/* Memory comes from the arena; names are not copied. */
void name_index_init(struct name_index *, struct arena *);
/* False when the name is there already; it keeps its number. */
bool name_index_add(struct name_index *, const char *name, unsigned number);
bool name_index_find(const struct name_index *, const char *name, unsigned *number_r);

#endif
