/* What an operator does with the database file: check, backup, restore (xapi-ctl db …).
 *
 * check and backup work beside a running daemon; restore needs it to be stopped. All block. */
#ifndef DB_MAINTENANCE_H
#define DB_MAINTENANCE_H

#include "db/db.h"
#include "rpc/base/text.h"

/* Looks at every page, every value, and every reference. Lines about what is wrong ("error: …") or
 * odd ("note: …") are added to the report. An error means that it could not be looked at. */
struct maintenance_findings { unsigned n_objects, n_errors, n_notes; };
NODISCARD struct error *maintenance_check(struct arena *, const char *path, struct text *report, struct maintenance_findings *);

/* A consistent copy in one file. */
NODISCARD struct error *maintenance_backup(struct arena *, const char *path, const char *to_path);

/* Puts a copy of 'from' in the place of 'path', after it was opened and read in full. What was there
 * stays as <path>.before-restore. Generations go on above those of both. */
NODISCARD struct error *maintenance_restore(struct arena *, const char *path, const char *from);

#endif
