/* What idlc refuses: see the texts in check.c and check_names.c. */
#ifndef DB_IDLC_CHECK_H
#define DB_IDLC_CHECK_H

#include "db/idlc/idl.h"

/* Resolves and checks the whole model. False: idl->complaints says why, nothing may be emitted. */
bool idl_check(struct idl *);

/* The part about names: duplicates, and names that would meet in generated C. */
void idl_check_names(struct idl *);

#endif
