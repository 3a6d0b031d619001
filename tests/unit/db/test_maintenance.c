#include "db/maintenance.h"

#include <string.h>
#include <unistd.h>

#include "gen/model_ids.h"
#include "rpc/base/log.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/sql.h"
#include "tests/lib/unit.h"

static const char *check(struct db_fixture *f, struct maintenance_findings *found)
{
    AUTO_TEXT report = TEXT_INIT;
    must(maintenance_check(f->arena, f->options.path, &report, found));
    return arena_strdup(f->arena, report.bytes != NULL ? report.bytes : "");
}

static void close_it(struct db_fixture *f)
{
    db_close(f->db);
    f->db = NULL;
}

static void test_check_sound_and_running(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "a"), *session = db_fixture_create(&f, CLASS_session, NULL, 0);
    const char *vbd = db_fixture_vbd(&f, vm, REF_NULL);
    struct maintenance_findings found;

    (void)session;
    assert_string_equal(check(&f, &found), "");
    assert_int_equal(found.n_objects, 2);
    /* what is only in the write-ahead log is seen */
    db_fixture_delete(&f, CLASS_VBD, vbd);
    assert_string_equal(check(&f, &found), "");
    assert_int_equal(found.n_objects, 1);
    close_it(&f);
    assert_string_equal(check(&f, &found), "");
}

static void test_check_finds(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vbd = db_fixture_vbd(&f, "OpaqueRef:gone", REF_NULL);
    db_fixture_set(&f, CLASS_VBD, vbd, F_VBD_mode, value_string("sideways"));
    struct maintenance_findings found;

    const char *report = check(&f, &found);
    assert_non_null(
        strstr(report, arena_printf(f.arena, "error: VBD %s: VM names OpaqueRef:gone, which is no VM", vbd)));
    assert_non_null(strstr(report, "note: VBD"));
    assert_non_null(strstr(report, "mode has the unknown value 'sideways'"));
    assert_int_equal(found.n_errors, 1);
}

static void test_check_refuses(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    close_it(&f);
    struct maintenance_findings found;
    AUTO_TEXT report = TEXT_INIT;

    must_fail(maintenance_check(f.arena, tempdir_file(&f.dir, "none.db"), &report, &found), "INTERNAL_ERROR");
    must_fail(maintenance_check(f.arena, tempdir_write(&f.dir, "letter", "dear database, this is no database at all"),
                                &report, &found),
              "INTERNAL_ERROR");
    sql_run(f.options.path, "PRAGMA user_version=0");
    must_fail(maintenance_check(f.arena, f.options.path, &report, &found), "INTERNAL_ERROR");
}

static void test_backup_and_restore(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "then"), *backup = tempdir_file(&f.dir, "backup.db"),
               *other = tempdir_file(&f.dir, "other.db");

    must(maintenance_backup(f.arena, f.options.path, backup)); /* while it runs */
    must(db_backup(f.arena, f.db, other));
    db_fixture_set(&f, CLASS_VM, vm, F_VM_name_label, value_string("now"));
    db_fixture_vm(&f, "newer");
    uint64_t generation = db_generation(f.db);

    struct error *error = maintenance_restore(f.arena, f.options.path, backup);
    must_fail(error, "INTERNAL_ERROR"); /* it is in use */
    assert_non_null(strstr(error->params[0], "in use"));
    close_it(&f);
    must(maintenance_restore(f.arena, f.options.path, backup));
    must(db_open(f.arena, &f.options, &f.db));
    assert_string_equal(db_fixture_name(&f, vm), "then");
    assert_int_equal(db_count(f.db, &model_classes[CLASS_VM]), 1);
    assert_true(db_generation(f.db) > generation); /* no token falls behind */
    close_it(&f);

    /* and back again */
    must(maintenance_restore(f.arena, f.options.path, arena_printf(f.arena, "%s.before-restore", f.options.path)));
    must(db_open(f.arena, &f.options, &f.db));
    assert_string_equal(db_fixture_name(&f, vm), "now");
    assert_int_equal(access(arena_printf(f.arena, "%s.restoring", f.options.path), F_OK), -1);
    assert_int_equal(access(arena_printf(f.arena, "%s.restoring.lock", f.options.path), F_OK), -1);
}

static void test_restore_refuses_and_keeps(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "kept"),
               *letter = tempdir_write(&f.dir, "letter", "dear database, this is no database at all");
    const char *bad = tempdir_file(&f.dir, "bad.db");
    must(maintenance_backup(f.arena, f.options.path, bad));
    sql_run(bad, "UPDATE VM SET tags='[oops'");
    close_it(&f);

    must_fail(maintenance_restore(f.arena, f.options.path, letter), "INTERNAL_ERROR");
    must_fail(maintenance_restore(f.arena, f.options.path, tempdir_file(&f.dir, "none.db")), "INTERNAL_ERROR");
    must_fail(maintenance_restore(f.arena, f.options.path, bad), "INTERNAL_ERROR");
    must(db_open(f.arena, &f.options, &f.db));
    assert_string_equal(db_fixture_name(&f, vm), "kept");
}

/* The file to be replaced is rubbish, with a log beside it that must not be played into the new one. */
static void test_restore_over_rubbish(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "good"), *backup = tempdir_file(&f.dir, "backup.db");
    must(maintenance_backup(f.arena, f.options.path, backup));
    close_it(&f);
    tempdir_write(&f.dir, "pool.db", "rubbish, and long enough to be looked at by everyone");
    tempdir_write(&f.dir, "pool.db-wal", "rubbish");

    must(maintenance_restore(f.arena, f.options.path, backup));
    assert_string_equal(tempdir_read(&f.dir, "pool.db.before-restore"),
                        "rubbish, and long enough to be looked at by everyone");
    assert_string_equal(tempdir_read(&f.dir, "pool.db.before-restore-wal"), "rubbish");
    must(db_open(f.arena, &f.options, &f.db));
    assert_string_equal(db_fixture_name(&f, vm), "good");
}

static void test_restore_older_schema(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "old"), *backup = tempdir_file(&f.dir, "backup.db");
    must(maintenance_backup(f.arena, f.options.path, backup));
    sql_run(backup, "ALTER TABLE VM DROP COLUMN VCPUs_max; PRAGMA user_version=0");
    close_it(&f);
    must(maintenance_restore(f.arena, f.options.path, backup));
    must(db_open(f.arena, &f.options, &f.db));
    assert_string_equal(db_fixture_name(&f, vm), "old");
}

static void test_skip_to(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    must(db_skip_to(f.db, f.arena, 5000000));
    assert_int_equal(db_generation(f.db), 5000000);
    must(db_skip_to(f.db, f.arena, 17));
    db_fixture_vm(&f, "a");
    assert_int_equal(db_generation(f.db), 5000001);
    db_fixture_reopen(&f);
    assert_true(db_generation(f.db) > 5000001);
}

int main(void)
{
    log_set_level("db", LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_sound_and_running),
        cmocka_unit_test(test_check_finds),
        cmocka_unit_test(test_check_refuses),
        cmocka_unit_test(test_backup_and_restore),
        cmocka_unit_test(test_restore_refuses_and_keeps),
        cmocka_unit_test(test_restore_over_rubbish),
        cmocka_unit_test(test_restore_older_schema),
        cmocka_unit_test(test_skip_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
