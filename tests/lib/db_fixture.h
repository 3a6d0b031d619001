/* A database for one test: in memory or in a temporary directory, and short ways to fill it.
 * Everything that fails stops the test. */
#ifndef TESTS_LIB_DB_FIXTURE_H
#define TESTS_LIB_DB_FIXTURE_H

#include "db/change_log.h"
#include "db/db.h"
#include "db/txn.h"
#include "rpc/base/uuid.h"
#include "tests/lib/tempdir.h"

struct db_fixture {
    struct db *db;
    struct arena *arena;
    struct tempdir dir;      /* when it has a file */
    struct db_options options;
};

void db_fixture_memory(struct db_fixture *);
void db_fixture_file(struct db_fixture *); /* a new file in a new directory */
void db_fixture_reopen(struct db_fixture *);
void db_fixture_release(struct db_fixture *);
#define AUTO_DB_FIXTURE CLEANUP(db_fixture_release) struct db_fixture

/* One transaction each. */
const char *db_fixture_create(struct db_fixture *, unsigned class_id, const struct field_value *, unsigned n);
const char *db_fixture_vm(struct db_fixture *, const char *name);
const char *db_fixture_vbd(struct db_fixture *, const char *vm, const char *vdi);
void db_fixture_set(struct db_fixture *, unsigned class_id, const char *ref, unsigned field, struct value);
void db_fixture_delete(struct db_fixture *, unsigned class_id, const char *ref);

const struct row *db_fixture_row(struct db_fixture *, unsigned class_id, const char *ref); /* NULL: absent */
const char *db_fixture_name(struct db_fixture *, const char *vm); /* "" when absent */
/* The refs of a set field, joined by spaces. */
const char *db_fixture_set_text(struct db_fixture *, unsigned class_id, const char *ref, unsigned field);

struct class_set db_fixture_classes(unsigned n, const unsigned *class_ids); /* n = 0: all */

/* Fails the test with the error's text, or when there is none where one was wanted. */
#define must(expr) db_fixture_must(expr, __FILE__, __LINE__)
void db_fixture_must(const struct error *, const char *file, int line);
#define must_fail(expr, code) db_fixture_must_fail(expr, code, __FILE__, __LINE__)
void db_fixture_must_fail(const struct error *, const char *code, const char *file, int line);

#endif
