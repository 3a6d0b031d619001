/* Binds names: types to enums and classes, relations to their other side, implied messages to the
 * field they serve. Sorts classes and messages by name and numbers them. */
#ifndef DB_IDLC_RESOLVE_H
#define DB_IDLC_RESOLVE_H

#include "db/idlc/idl.h"

/* Complains about what cannot be bound; leaves those pointers NULL. */
void idl_resolve(struct idl *);

#endif
