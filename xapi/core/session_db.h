/* A database that one session looks at instead of the pool's: session.create_from_db_file.
 *
 * The file is copied first and the copy opened, so that neither the original nor its owner is disturbed. Such
 * a session only reads: the dispatcher refuses whatever would change or do something. */
#ifndef XAPI_CORE_SESSION_DB_H
#define XAPI_CORE_SESSION_DB_H

#include "db/db.h"

struct session_db;

/* 'copy' must not exist. An unreadable, corrupt or newer file is an error. Blocks on disk. */
NODISCARD struct error *session_db_open(struct arena *, const struct clock *, const char *filename, const char *copy, struct session_db **);
void session_db_close(struct session_db *); /* removes the copy; NULL is fine */
struct db *session_db_of(struct session_db *);

#endif
