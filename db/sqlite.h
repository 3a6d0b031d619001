/* The pool database on disk: one table for each class, a column for each stored field.
 *
 * Only db/sqlite*.c know SQLite. One thread at a time uses a struct sqlite: the one that opens the
 * database, then the writer. All calls block on the disk.
 *
 * (1) A row is found by _id, which rises with creation; 'ref' is a plain column. Columns that this
 *     version does not know are left alone.
 * (2) Strings, refs and enums are TEXT, sets and maps JSON TEXT, ints, booleans and datetimes
 *     INTEGER, floats REAL.
 * (3) meta.generation_ceiling is at or above every generation ever handed out.
 * (4) A file is judged read-only before it is opened for writing; what is refused stays untouched. */
#ifndef DB_SQLITE_H
#define DB_SQLITE_H

#include "db/db.h"
#include "db/field_set.h"

struct sqlite;
struct slot;

/* Judges, creates or upgrades, and opens. The caller holds the file's lock. */
NODISCARD struct error *sqlite_open(struct arena *, const struct db_options *, struct sqlite **sqlite_r);
void sqlite_close(struct sqlite *); /* NULL is fine */
/* One more connection to read a file that is open already, by another thread. */
NODISCARD struct error *sqlite_open_reader(struct arena *, const char *path, struct sqlite **sqlite_r);
/* Only to read from; an older schema is refused. */
NODISCARD struct error *sqlite_open_to_look(struct arena *, const char *path, struct sqlite **sqlite_r);

/* Judges an existing file; an error says what is wrong and what to do. *empty_r: there is nothing
 * in it yet (or no file). Never changes it. 'thorough' also looks at every page. */
NODISCARD struct error *sqlite_judge(struct arena *, const char *path, const char *vfs, bool thorough, bool *empty_r);

/* Gives every stored object of a class, in order of creation. The values live until fn returns. */
struct sqlite_object { uint64_t id, created; const char *ref; const struct value *fields; /* all of the class */ };
typedef struct error *sqlite_object_fn(void *ctx, struct arena *, const struct class_info *, const struct sqlite_object *);
NODISCARD struct error *sqlite_load(struct arena *, struct sqlite *, const struct class_info *, sqlite_object_fn *, void *ctx);

NODISCARD struct error *sqlite_ceiling(struct arena *, struct sqlite *, uint64_t *ceiling_r);

struct sqlite_write {
    const struct class_info *class;
    uint64_t id;
    const struct row *row;   /* the newest; NULL: deleted */
    struct field_set fields; /* to update */
    bool inserts, deletes;   /* both: nothing to do */
    struct slot *slot;       /* the caller's */
};
/* One transaction, durable on return. ceiling 0: stays. NULL, or why it failed (heap). */
char *sqlite_commit(struct sqlite *, const struct sqlite_write *, unsigned n, uint64_t ceiling);

/* "ok", or what is wrong, a line each. */
NODISCARD struct error *sqlite_check_pages(struct arena *, const char *path, const char **verdict_r);
/* Folds the write-ahead log into the file and gives its ceiling; no file: 0. The caller holds the lock. */
NODISCARD struct error *sqlite_settle(struct arena *, const char *path, uint64_t *ceiling_r);

/* A consistent copy of the file (which may be in use), complete and synced when it appears. */
NODISCARD struct error *sqlite_copy(struct arena *, const char *path, const char *vfs, const char *to_path);

#endif
