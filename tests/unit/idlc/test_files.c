#include "db/idlc/files.h"

#include <string.h>
#include <sys/stat.h>

#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

static void test_files_read_sorted(void **state)
{
    AUTO_TEMPDIR dir;
    AUTO_ARENA a = arena_new();
    struct idl *idl = idl_new(a);

    tempdir_make(&dir);
    tempdir_write(&dir, "b.idl", "class b\n");
    tempdir_write(&dir, "A.idl", "class A\n");
    tempdir_write(&dir, "notes.txt", "nonsense\n");
    tempdir_write(&dir, ".b.idl", "nonsense\n");
    files_read(idl, dir.path);
    assert_int_equal(idl->complaints.n, 0);
    assert_int_equal(idl->classes.n, 2);
    assert_string_equal(((struct idl_class *)idl->classes.items[0])->name, "A");
}

static void test_files_read_refuses(void **state)
{
    AUTO_TEMPDIR dir;
    AUTO_ARENA a = arena_new();
    struct idl *idl = idl_new(a), *empty = idl_new(a), *none = idl_new(a);

    tempdir_make(&dir);
    files_read(empty, dir.path);
    assert_string_equal(empty->complaints.items[0], arena_printf(a, "%s:0: no *.idl files", dir.path));
    files_read(none, "/nonexistent");
    assert_string_equal(none->complaints.items[0], "/nonexistent:0: No such file or directory");
    tempdir_write(&dir, "a.idl", "\nclass b\n");
    files_read(idl, dir.path);
    assert_string_equal(idl->complaints.items[0],
                        arena_printf(a, "%s/a.idl:2: class b does not belong into %s/a.idl", dir.path, dir.path));
}

static void test_files_write_only_changes(void **state)
{
    AUTO_TEMPDIR dir;
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    struct stat first, second, third;

    tempdir_make(&dir);
    text_add(&t, "one\n");
    assert_true(files_write(a, tempdir_file(&dir, "gen"), "x.h", &t));
    assert_string_equal(tempdir_read(&dir, "gen/x.h"), "one\n");
    assert_int_equal(stat(tempdir_file(&dir, "gen/x.h"), &first), 0);
    assert_true(files_write(a, tempdir_file(&dir, "gen"), "x.h", &t));
    assert_int_equal(stat(tempdir_file(&dir, "gen/x.h"), &second), 0);
    assert_int_equal(first.st_ino, second.st_ino);
    text_add(&t, "two\n");
    assert_true(files_write(a, tempdir_file(&dir, "gen"), "x.h", &t));
    assert_int_equal(stat(tempdir_file(&dir, "gen/x.h"), &third), 0);
    assert_int_not_equal(first.st_ino, third.st_ino);
    assert_string_equal(tempdir_read(&dir, "gen/x.h"), "one\ntwo\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_read_sorted),
        cmocka_unit_test(test_files_read_refuses),
        cmocka_unit_test(test_files_write_only_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
