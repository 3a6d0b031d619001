/* What it takes to bring a file of an older schema version to the present one.
 *
 * New classes and new fields need no step: missing tables and columns are added with the field's
 * default. A step is for what that cannot do: renames, changes of type or meaning. Each is SQL, run in
 * one transaction with everything else, before missing columns are added. */
#ifndef DB_UPGRADE_H
#define DB_UPGRADE_H

struct upgrade_step {
    unsigned to_version; /* runs when the file is older than this */
    const char *what;    /* for the log */
    const char *sql;
};

/* In order of to_version; ends with to_version 0. */
extern const struct upgrade_step upgrade_steps[];

#endif
