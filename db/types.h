/* Which values a field of a type may hold. */
#ifndef DB_TYPES_H
#define DB_TYPES_H

#include "db/model.h"

bool type_takes(const struct type_info *, const struct value *);
/* A value that the type takes, in the one kind that rows hold it in (VALUE_INT32 becomes VALUE_INT). */
struct value type_convert(const struct type_info *, struct value);

#endif
