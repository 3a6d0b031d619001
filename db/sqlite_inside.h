/* Shared by db/sqlite*.c and the store of the ledger (xapi/migrate) only: the one header that shows SQLite's types. */
#ifndef DB_SQLITE_INSIDE_H
#define DB_SQLITE_INSIDE_H

#include <sqlite3.h>

#include "db/sqlite.h"

#define SQLITE_APPLICATION_ID 0x58415049 /* "XAPI" */
#define SQLITE_UPDATES 12u               /* prepared UPDATEs kept for each class */

struct sqlite_update { struct field_set fields; sqlite3_stmt *stmt; };

struct sqlite_statements {
    sqlite3_stmt *insert, *delete;
    struct sqlite_update updates[SQLITE_UPDATES];
    unsigned next_update; /* the one to be replaced next */
};

struct sqlite {
    sqlite3 *handle;
    sqlite3_stmt *begin, *commit, *rollback, *ceiling;
    struct sqlite_statements *classes; /* model_n_classes */
    unsigned checkpoint_pages;
    unsigned n_commits;                /* up to the point where the log is filled */
};

/* SQLite's text for what just failed, as INTERNAL_ERROR. */
struct error *sqlite_error_at(struct arena *, const char *file, int line, sqlite3 *, const char *doing);
#define sqlite_error(arena, handle, doing) sqlite_error_at(arena, __FILE__, __LINE__, handle, doing)

/* A connection without any pragma set. On failure *handle_r is NULL. */
NODISCARD struct error *sqlite_connect(struct arena *, const char *path, const char *vfs, int flags, sqlite3 **handle_r);
/* One that leaves no trace; but what a crash left in a journal is played back. The handle is the
 * caller's to close even when this fails. */
NODISCARD struct error *sqlite_connect_to_read(struct arena *, const char *path, const char *vfs, sqlite3 **handle_r);
NODISCARD struct error *sqlite_exec(struct arena *, sqlite3 *, const char *sql);
/* The first column of the first row; 0 or "" when there is none. */
NODISCARD struct error *sqlite_ask_int(struct arena *, sqlite3 *, const char *sql, int64_t *i_r);
NODISCARD struct error *sqlite_ask_text(struct arena *, sqlite3 *, const char *sql, const char **text_r);
NODISCARD struct error *sqlite_prepare(struct arena *, sqlite3 *, const char *sql, sqlite3_stmt **stmt_r);

static inline void sqlite_handle_cleanup(sqlite3 **h) { sqlite3_close(*h); }
#define AUTO_SQLITE_HANDLE CLEANUP(sqlite_handle_cleanup) sqlite3
static inline void sqlite_stmt_cleanup(sqlite3_stmt **s) { sqlite3_finalize(*s); }
#define AUTO_SQLITE_STMT CLEANUP(sqlite_stmt_cleanup) sqlite3_stmt

/* Writes zeroes over the whole length that the write-ahead log may reach, so that later commits only
 * overwrite: a sync of a file that does not grow costs half. Failing is no harm. */
void sqlite_fill_log(struct sqlite *);

/* sqlite_schema.c: brings tables and columns to what the model says, within the caller's transaction. */
NODISCARD struct error *sqlite_schema_sync(struct arena *, sqlite3 *);
/* upgrade.c's steps and the sync, in one transaction with the new schema version. */
NODISCARD struct error *sqlite_schema_create(struct arena *, sqlite3 *);
NODISCARD struct error *sqlite_schema_upgrade(struct arena *, sqlite3 *, int64_t from_version);

#endif
