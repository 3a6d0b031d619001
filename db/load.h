/* Filling the store from the file, at open. */
#ifndef DB_LOAD_H
#define DB_LOAD_H

#include "db/store.h"

/* Reads every table; db->disk is open. Blocks. Nobody else uses the database yet. */
NODISCARD struct error *load_all(struct arena *, struct db *);

#endif
