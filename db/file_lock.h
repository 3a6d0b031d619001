/* One process at a time has a database open for writing: flock on <path>.lock. */
#ifndef DB_FILE_LOCK_H
#define DB_FILE_LOCK_H

#include "rpc/base/error.h"

/* *fd_r holds the lock until it is closed. Does not wait. */
NODISCARD struct error *file_lock_take(struct arena *, const char *path, int *fd_r);

#endif
