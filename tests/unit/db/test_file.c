/* Opening, closing and refusing files. */
#include "db/db.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gen/model_ids.h"
#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/sql.h"
#include "tests/lib/unit.h"

static void test_file_volatile_is_forgotten(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "a");
    const char *task = db_fixture_create(&f, CLASS_task, NULL, 0),
               *session = db_fixture_create(&f, CLASS_session, NULL, 0);
    struct value operations[] = { value_string("start") };
    db_fixture_set(&f, CLASS_VM, vm, F_VM_allowed_operations, value_set(operations, 1));
    assert_string_equal(db_fixture_set_text(&f, CLASS_VM, vm, F_VM_allowed_operations), "start");

    db_fixture_reopen(&f);
    assert_null(db_fixture_row(&f, CLASS_task, task));
    assert_null(db_fixture_row(&f, CLASS_session, session));
    assert_string_equal(db_fixture_set_text(&f, CLASS_VM, vm, F_VM_allowed_operations), "");
    assert_string_equal(db_fixture_name(&f, vm), "a");
    assert_string_equal(
        sql_ask(f.arena, f.options.path, "SELECT name FROM sqlite_master WHERE name IN ('task', 'session')"), "");
}

static void test_file_is_readable_by_people(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "it's \"one\"");
    must(db_map_put(f.db, f.arena, CLASS_VM, vm, F_VM_other_config, "k\n", "v"));

    /* while the daemon runs, too */
    assert_string_equal(sql_ask(f.arena, f.options.path, "SELECT name_label, other_config, is_a_template FROM VM"),
                        "it's \"one\"|{\"k\\u000a\":\"v\"}|0");
}

static void test_file_order_and_generation(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *refs[5];
    for (unsigned i = 0; i < 5; i++)
        refs[i] = db_fixture_vm(&f, "x");
    db_fixture_set(&f, CLASS_VM, refs[0], F_VM_name_label, value_string("y"));
    db_fixture_delete(&f, CLASS_VM, refs[2]);
    uint64_t generation = db_generation(f.db), created = db_fixture_row(&f, CLASS_VM, refs[3])->created;

    db_fixture_reopen(&f);
    assert_int_equal(db_generation(f.db), generation + 1); /* a clean end leaves no gap */
    struct row_list all = db_all(f.db, f.arena, &model_classes[CLASS_VM]);
    assert_int_equal(all.n, 4);
    assert_string_equal(all.rows[0]->ref, refs[0]);
    assert_string_equal(all.rows[2]->ref, refs[3]);
    assert_int_equal(all.rows[2]->created, created);
    assert_int_equal(db_by_name(f.db, f.arena, &model_classes[CLASS_VM], "y").n, 1);
}

static void test_file_is_private(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    db_fixture_vm(&f, "a");
    const char *names[] = { "pool.db", "pool.db-wal", "pool.db-shm", "pool.db.lock", "backup.db" };
    must(db_backup(f.arena, f.db, tempdir_file(&f.dir, "backup.db")));
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct stat st;
        assert_int_equal(stat(tempdir_file(&f.dir, names[i]), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
}

static void test_file_is_locked(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    struct db *second = NULL;

    struct error *error = db_open(f.arena, &f.options, &second);
    must_fail(error, "INTERNAL_ERROR");
    assert_non_null(strstr(error->params[0], "in use by another process"));
    assert_null(second);
}

/* --- refusals ----------------------------------------------------------------------------------------- */

static const char *contents(struct db_fixture *f)
{
    char *bytes;
    size_t len;
    assert_int_equal(file_read(f->arena, f->options.path, 64u << 20, &bytes, &len), 0);
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u;
    return arena_printf(f->arena, "%zu %llx", len, (unsigned long long)hash);
}

static void patch(struct db_fixture *f, int64_t offset, const void *bytes, size_t n)
{
    AUTO_FD fd = open(f->options.path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fd_pwrite_all(fd, bytes, n, offset), 0);
}

static void assert_refused(struct db_fixture *f, const char *because)
{
    const char *before = contents(f);
    struct error *error = db_open(f->arena, &f->options, &f->db);
    must_fail(error, "INTERNAL_ERROR");
    assert_null(f->db);
    if (strstr(error->params[0], because) == NULL)
        fail_msg("'%s' does not say '%s'", error->params[0], because);
    assert_string_equal(contents(f), before);
    assert_int_not_equal(access(arena_printf(f->arena, "%s-wal", f->options.path), F_OK), 0);
}

static void close_it(struct db_fixture *f)
{
    db_fixture_vm(f, "a");
    db_close(f->db);
    f->db = NULL;
}

static void test_file_newer_schema(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    close_it(&f);
    sql_run(f.options.path, "PRAGMA user_version=999999");
    assert_refused(&f, "newer xapi");
}

static void test_file_of_another_program(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    close_it(&f);
    sql_run(f.options.path, "PRAGMA application_id=7");
    assert_refused(&f, "another program");
}

static void test_file_no_database(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    close_it(&f);
    tempdir_write(&f.dir, "pool.db",
                  "this is a letter, not a database, and longer than a hundred bytes so that SQLite "
                  "has something to look at before it makes up its mind about it");
    assert_refused(&f, "is damaged or is not a pool database");
}

static void test_file_damaged_page(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    for (unsigned i = 0; i < 200; i++)
        db_fixture_vm(&f, "a");
    close_it(&f);
    int64_t root = 0;
    assert_true(
        text_to_int(sql_ask(f.arena, f.options.path, "SELECT rootpage FROM sqlite_master WHERE name='VM'"), &root));
    char junk[512];
    memset(junk, 0xa5, sizeof(junk));
    patch(&f, (root - 1) * 4096, junk, sizeof(junk));
    assert_refused(&f, "is damaged");
}

static void test_file_cut_short(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    for (unsigned i = 0; i < 200; i++)
        db_fixture_vm(&f, "a");
    close_it(&f);
    struct stat st;
    assert_int_equal(stat(f.options.path, &st), 0);
    assert_int_equal(truncate(f.options.path, st.st_size / 2 / 4096 * 4096), 0);
    assert_refused(&f, "is damaged");
}

static void test_file_values_that_do_not_fit(void **state)
{
    static const char *const sqls[] = {
        "UPDATE VM SET other_config='{\"a\":1}'",
        "UPDATE VM SET tags='[\"a\"'",
        "UPDATE VM SET VCPUs_max='many'",
        "UPDATE VM SET name_label=x'00'",
        "INSERT INTO VM (ref, _created, uuid) SELECT ref, 1, 'other' FROM VM",
        "INSERT INTO VM (ref, _created, uuid) SELECT 'OpaqueRef:other', 1, uuid FROM VM",
    };
    for (unsigned i = 0; i < ARRAY_LEN(sqls); i++) {
        AUTO_DB_FIXTURE f;
        db_fixture_file(&f);
        close_it(&f);
        sql_run(f.options.path, sqls[i]);
        struct error *error = db_open(f.arena, &f.options, &f.db);
        if (error == NULL)
            fail_msg("took %s", sqls[i]);
        assert_non_null(strstr(error->params[0], "VM is damaged"));
    }
}

/* --- upgrade ------------------------------------------------------------------------------------------ */

static void test_file_older_schema(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "a"), *vdi = db_fixture_create(&f, CLASS_VDI, NULL, 0);
    db_close(f.db);
    sql_run(f.options.path,
            "ALTER TABLE VM DROP COLUMN VCPUs_max; ALTER TABLE VM DROP COLUMN other_config; DROP TABLE VIF;"
            "ALTER TABLE VM ADD COLUMN from_the_past TEXT DEFAULT 'kept';"
            "UPDATE VM SET from_the_past='old'; PRAGMA user_version=0");
    f.db = NULL;
    must(db_open(f.arena, &f.options, &f.db));

    const struct row *row = db_fixture_row(&f, CLASS_VM, vm);
    assert_string_equal(row_string(row, F_VM_name_label), "a");
    assert_true(value_equal(row_value(row, F_VM_VCPUs_max), &row->class->fields[F_VM_VCPUs_max].fallback));
    assert_int_equal(row_value(row, F_VM_other_config)->len, 0);
    assert_non_null(db_fixture_row(&f, CLASS_VDI, vdi));
    db_fixture_create(&f, CLASS_VIF, NULL, 0);
    db_fixture_set(&f, CLASS_VM, vm, F_VM_VCPUs_max, value_int(7));
    db_fixture_reopen(&f);
    assert_int_equal(row_int(db_fixture_row(&f, CLASS_VM, vm), F_VM_VCPUs_max), 7);
    assert_int_equal(db_count(f.db, &model_classes[CLASS_VIF]), 1);
    assert_string_equal(sql_ask(f.arena, f.options.path, "SELECT from_the_past FROM VM"), "old");
    assert_string_equal(sql_ask(f.arena, f.options.path, "PRAGMA user_version"),
                        arena_printf(f.arena, "%u", model_schema_version));
}

static void test_file_empty_is_new(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    db_close(f.db);
    f.db = NULL;
    tempdir_write(&f.dir, "pool.db", "");
    must(db_open(f.arena, &f.options, &f.db));
    assert_int_equal(db_count(f.db, &model_classes[CLASS_VM]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_volatile_is_forgotten),
        cmocka_unit_test(test_file_is_readable_by_people),
        cmocka_unit_test(test_file_order_and_generation),
        cmocka_unit_test(test_file_is_locked),
        cmocka_unit_test(test_file_is_private),
        cmocka_unit_test(test_file_newer_schema),
        cmocka_unit_test(test_file_of_another_program),
        cmocka_unit_test(test_file_no_database),
        cmocka_unit_test(test_file_damaged_page),
        cmocka_unit_test(test_file_cut_short),
        cmocka_unit_test(test_file_values_that_do_not_fit),
        cmocka_unit_test(test_file_older_schema),
        cmocka_unit_test(test_file_empty_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
