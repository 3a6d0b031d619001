/* The file_ and dir_ functions of rpc/base/fd.h. */
#include "rpc/base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

static void test_file_read_whole(void **state)
{
    AUTO_TEMPDIR t;
    char *bytes;
    size_t len;

    tempdir_make(&t);
    const char *path = tempdir_write(&t, "f", "hello");
    assert_int_equal(file_read(t.arena, path, 100, &bytes, &len), 0);
    assert_int_equal(len, 5);
    assert_string_equal(bytes, "hello");
    assert_int_equal(file_read(t.arena, path, 5, &bytes, &len), 0);
    assert_int_equal(file_read(t.arena, path, 4, &bytes, &len), -EFBIG);
    path = tempdir_write(&t, "empty", "");
    assert_int_equal(file_read(t.arena, path, 0, &bytes, &len), 0);
    assert_int_equal(len, 0);
    assert_string_equal(bytes, "");
}

static void test_file_read_special(void **state)
{
    AUTO_TEMPDIR t;
    char *bytes;
    size_t len;

    tempdir_make(&t);
    assert_int_equal(file_read(t.arena, "/proc/self/stat", 4096, &bytes, &len), 0); /* its size is said to be 0 */
    assert_true(len > 0 && bytes[len] == '\0');
    assert_int_equal(file_read(t.arena, "/dev/zero", 1 << 20, &bytes, &len), -EFBIG);
    assert_int_equal(file_read(t.arena, t.path, 4096, &bytes, &len), -EISDIR);
    assert_int_equal(file_read(t.arena, tempdir_file(&t, "none"), 4096, &bytes, &len), -ENOENT);
}

static void test_file_replace_replaces(void **state)
{
    AUTO_TEMPDIR t;
    struct stat st;

    tempdir_make(&t);
    const char *path = tempdir_write(&t, "f", "a long first version");
    assert_int_equal(file_replace(path, "two", 3, 0640), 0);
    assert_string_equal(tempdir_read(&t, "f"), "two");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(access(tempdir_file(&t, "f.tmp"), F_OK), -1);
}

static void test_file_replace_failure_leaves_the_old(void **state)
{
    AUTO_TEMPDIR t;

    tempdir_make(&t);
    assert_int_equal(file_replace(tempdir_file(&t, "no/f"), "x", 1, 0600), -ENOENT);
    assert_int_equal(dir_create(tempdir_file(&t, "d/inside"), 0700), 0);
    assert_true(file_replace(tempdir_file(&t, "d"), "x", 1, 0600) < 0); /* a directory stands there */
    assert_int_equal(access(tempdir_file(&t, "d.tmp"), F_OK), -1);
    assert_int_equal(access(tempdir_file(&t, "d/inside"), F_OK), 0);
}

static void test_dir_create_parents(void **state)
{
    AUTO_TEMPDIR t;
    struct stat st;

    tempdir_make(&t);
    assert_int_equal(dir_create(tempdir_file(&t, "a/b//c/"), 0700), 0);
    assert_int_equal(dir_create(tempdir_file(&t, "a/b/c"), 0700), 0);
    assert_int_equal(stat(tempdir_file(&t, "a/b/c"), &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    tempdir_write(&t, "file", "");
    assert_int_equal(dir_create(tempdir_file(&t, "file"), 0700), -ENOTDIR);
    assert_int_equal(dir_create(tempdir_file(&t, "file/below"), 0700), -ENOTDIR);
    assert_int_equal(dir_create("/", 0700), 0);
    assert_int_equal(dir_create("", 0700), -ENOENT);
}

static void test_dir_sync(void **state)
{
    AUTO_TEMPDIR t;

    tempdir_make(&t);
    assert_int_equal(dir_sync(t.path), 0);
    assert_int_equal(dir_sync(tempdir_file(&t, "none")), -ENOENT);
    assert_int_equal(dir_sync(tempdir_write(&t, "f", "")), -ENOTDIR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_read_whole),       cmocka_unit_test(test_file_read_special),
        cmocka_unit_test(test_file_replace_replaces), cmocka_unit_test(test_file_replace_failure_leaves_the_old),
        cmocka_unit_test(test_dir_create_parents),    cmocka_unit_test(test_dir_sync),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
