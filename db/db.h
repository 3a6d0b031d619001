/* The pool database: typed objects in memory, made durable in SQLite before anyone sees them change.
 *
 * Neighbours: row.h (versions), txn.h (changes), change_log.h (what changed since), sqlite.h (disk),
 * maintenance.h (check, backup, restore of a file).
 *
 * (1) Readers take a counted row and leave: no lock is held while they use it, no disk is touched.
 * (2) A change becomes visible only when its commit is durable in SQLite (synchronous=FULL).
 *     Changes that touch nothing persistent skip the disk, not the order.
 * (3) One 64-bit generation orders all commits; it is dense, persists, and never goes back.
 * (4) Reverse relations (FIELD_INVERSE) are kept by the store: writing VBD.VM also makes a new
 *     version of the VM on either end, which therefore shows up as modified.
 * (5) Deleting an object empties the refs that point at it? No: they dangle, as in xapi; only the
 *     inverse sets follow. */
#ifndef DB_DB_H
#define DB_DB_H

#include "db/row.h"
#include "rpc/base/clock.h"
#include "rpc/base/error.h"

struct db;

struct db_options {
    const char *path;          /* of the SQLite file; NULL: memory only (tests, bench) */
    const struct clock *clock;
    bool synchronous_off;      /* only for the test that proves FULL matters */
    const char *vfs;           /* SQLite VFS name or NULL; for fault tests */
    unsigned checkpoint_pages; /* of write-ahead log before it is folded into the file; 0: the default */
};

/* Opens or creates. A corrupt file or a newer schema is an error whose text says what to do; the
 * file is then left untouched. Starts the writer thread. Blocks on disk. */
NODISCARD struct error *db_open(struct arena *, const struct db_options *, struct db **db_r);
void db_close(struct db *); /* commits what is queued, joins the writer; NULL is fine */

/* Reading. The rows are held by the arena. NULL when there is no such visible object. */
const struct row *db_get(struct db *, struct arena *, const struct class_info *, const char *ref);
/* The same, HANDLE_INVALID [class; ref] when absent. */
NODISCARD struct error *db_need(struct db *, struct arena *, unsigned class_id, const char *ref, const struct row **row_r);
const struct row *db_by_uuid(struct db *, struct arena *, const struct class_info *, const char *uuid);
/* The object of whatever class carries this ref; NULL if none. */
const struct row *db_find_ref(struct db *, struct arena *, const char *ref);

struct row_list { const struct row *const *rows; unsigned n; };
/* All rows of a class, in order of creation; a consistent snapshot, held by the arena. */
struct row_list db_all(struct db *, struct arena *, const struct class_info *);
struct row_list db_by_name(struct db *, struct arena *, const struct class_info *, const char *name_label);
unsigned db_count(struct db *, const struct class_info *);

uint64_t db_generation(struct db *); /* of the newest visible commit */
/* Lets the generation go on above this one: for a member that becomes coordinator, whose tokens must
 * not fall behind the old coordinator's. Blocks like a commit. */
NODISCARD struct error *db_skip_to(struct db *, struct arena *, uint64_t generation);

struct db_stats { uint64_t commits, batches, sqlite_us; };
void db_stats(struct db *, struct db_stats *);

/* Consistent copy of the file for backup (xapi-ctl db backup); blocks. */
NODISCARD struct error *db_backup(struct arena *, struct db *, const char *to_path);

#endif
