/* The log of changed blocks: bits, states, links, sizes, and what is no log. */
#include "tests/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/image/cbt_log.h"
#include "tests/lib/tempdir.h"

#define A "aaaaaaaa-0000-4000-8000-00000000000a"
#define B "bbbbbbbb-0000-4000-8000-00000000000b"
#define BLOCK ((int64_t)CBT_BLOCK)
#define HEADER 4096
#define STATE_AT 24
#define BOOT_AT (32 + 80)

static void poke(const char *path, int64_t at, const void *bytes, size_t n)
{
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(fd_pwrite_all(fd, bytes, n, at), 0);
}

static void test_new_log(void **state)
{
    AUTO_TEMPDIR dir;
    struct cbt_log_info info;
    uint8_t bitmap[20] = { 0 };
    const char *path;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    assert_int_equal(cbt_log_create(path, 100 * BLOCK + 512, A, ""), 0);
    assert_int_equal(cbt_log_create(path, 100 * BLOCK, A, ""), -EEXIST);
    assert_int_equal(cbt_log_info(path, &info), 0);
    assert_int_equal(info.size, 100 * BLOCK + 512);
    assert_string_equal(info.parent, A);
    assert_string_equal(info.child, "");
    assert_true(info.believed);
    assert_int_equal(cbt_bitmap_size(100 * BLOCK + 512), 13);
    assert_int_equal(cbt_log_or(path, bitmap, sizeof bitmap), 0);
    for (unsigned i = 0; i < sizeof bitmap; i++)
        assert_int_equal(bitmap[i], 0);
    assert_int_equal(cbt_log_link(path, NULL, B), 0);
    assert_int_equal(cbt_log_link(path, "no uuid", NULL), -EINVAL);
    assert_int_equal(cbt_log_info(path, &info), 0);
    assert_string_equal(info.parent, A);
    assert_string_equal(info.child, B);
    assert_int_equal(cbt_log_create(tempdir_file(&dir, "other"), CBT_SIZE_MAX + 1, "", ""), -EINVAL);
    assert_int_not_equal(access(tempdir_file(&dir, "other"), F_OK), 0);
}

static struct cbt_log *opened(const char *path)
{
    struct cbt_log *log = NULL;
    assert_int_equal(cbt_log_open(path, &log), 0);
    return log;
}

static void test_bits(void **state)
{
    static const struct { int64_t offset, length; const char *want; } marks[] = {
        { 0, 512, "\x80\x00\x00" },
        { 3 * BLOCK - 512, 1024, "\xb0\x00\x00" },
        { 7 * BLOCK, 3 * BLOCK, "\xb1\xc0\x00" },
        { 16 * BLOCK, 100, "\xb1\xc0\x80" },
        { 0, 20 * BLOCK + 7, "\xff\xff\xf8" },
    };
    AUTO_TEMPDIR dir;
    const char *path;
    struct cbt_log *log;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    assert_int_equal(cbt_log_create(path, 20 * BLOCK + 7, "", ""), 0);
    log = opened(path);
    for (unsigned i = 0; i < ARRAY_LEN(marks); i++) {
        uint8_t bitmap[3] = { 0 };
        assert_int_equal(cbt_log_mark(log, marks[i].offset, marks[i].length), 0);
        assert_int_equal(cbt_log_or(path, bitmap, 3), 0); /* at once there for others */
        assert_memory_equal(bitmap, marks[i].want, 3);
    }
    assert_int_equal(cbt_log_mark(log, 20 * BLOCK, 8), -EINVAL);
    assert_int_equal(cbt_log_mark(log, -512, 512), -EINVAL);
    assert_int_equal(cbt_log_close(log), 0);
}

static void test_runs(void **state)
{
    AUTO_TEMPDIR dir;
    const char *path;
    struct cbt_log *log;
    bool changed;
    int64_t end = 1000 * BLOCK + 4096;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    assert_int_equal(cbt_log_create(path, end, "", ""), 0);
    log = opened(path);
    assert_int_equal(cbt_log_run(log, 0, end, &changed), end);
    assert_false(changed);
    assert_int_equal(cbt_log_mark(log, 100 * BLOCK, 333 * BLOCK), 0);
    assert_int_equal(cbt_log_run(log, 0, end, &changed), 100 * BLOCK);
    assert_false(changed);
    assert_int_equal(cbt_log_run(log, 100 * BLOCK + 512, end, &changed), 433 * BLOCK);
    assert_true(changed);
    assert_int_equal(cbt_log_run(log, 100 * BLOCK, 200 * BLOCK + 512, &changed), 200 * BLOCK + 512);
    assert_int_equal(cbt_log_run(log, 433 * BLOCK, end, &changed), end);
    assert_false(changed);
    assert_int_equal(cbt_log_close(log), 0);
}

/* Closed in order; killed on this boot; killed with the host. */
static void test_states(void **state)
{
    AUTO_TEMPDIR dir;
    struct cbt_log_info info;
    uint8_t bitmap[2] = { 0 };
    const char *path, *copy;
    struct cbt_log *log;
    char bytes[HEADER + 2];
    AUTO_FD fd = -1;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    copy = tempdir_file(&dir, "killed");
    assert_int_equal(cbt_log_create(path, 16 * BLOCK, A, B), 0);
    log = opened(path);
    assert_int_equal(cbt_log_mark(log, 0, 512), 0);
    assert_int_equal(cbt_log_open(path, &(struct cbt_log *) { NULL }), -EBUSY);
    assert_int_equal(cbt_log_link(path, A, NULL), -EBUSY);
    fd = open(path, O_RDONLY | O_CLOEXEC); /* what a kill -9 leaves */
    assert_int_equal(fd_pread_all(fd, bytes, sizeof bytes, 0), 0);
    fd_close(&fd);
    fd = open(copy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(fd_pwrite_all(fd, bytes, sizeof bytes, 0), 0);
    assert_int_equal(cbt_log_close(log), 0);
    assert_int_equal(bytes[STATE_AT], 0);
    assert_int_equal(cbt_log_info(path, &info), 0);
    assert_true(info.believed);

    assert_int_equal(cbt_log_info(copy, &info), 0); /* this boot */
    assert_true(info.believed);
    assert_int_equal(cbt_log_or(copy, bitmap, 2), 0);
    assert_int_equal(bitmap[0], 0x80);
    poke(copy, BOOT_AT, "01234567", 8); /* another one */
    assert_int_equal(cbt_log_info(copy, &info), 0);
    assert_false(info.believed);
    assert_int_equal(cbt_log_or(copy, bitmap, 2), -ESTALE);
    log = opened(copy);
    assert_int_equal(cbt_log_mark(log, 0, 512), 0);
    assert_int_equal(cbt_log_close(log), 0);
    assert_int_equal(cbt_log_info(copy, &info), 0); /* closed in order does not mend it */
    assert_false(info.believed);
}

static void test_resize(void **state)
{
    AUTO_TEMPDIR dir;
    struct cbt_log_info info;
    uint8_t bitmap[4] = { 0 };
    const char *path;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    assert_int_equal(cbt_log_create(path, 10 * BLOCK, A, B), 0);
    assert_int_equal(cbt_log_resize(path, 26 * BLOCK), 0);
    assert_int_equal(cbt_log_info(path, &info), 0);
    assert_int_equal(info.size, 26 * BLOCK);
    assert_string_equal(info.parent, A);
    assert_true(info.believed);
    assert_int_equal(cbt_log_or(path, bitmap, 4), 0);
    assert_memory_equal(bitmap, "\x00\x3f\xff\xc0", 4);
    assert_int_equal(cbt_log_resize(path, 10 * BLOCK), -EINVAL);
    assert_int_equal(cbt_log_resize(path, 26 * BLOCK), 0);
}

static void test_or(void **state)
{
    AUTO_TEMPDIR dir;
    uint8_t bitmap[3] = { 0x01, 0x00, 0xf0 };
    struct cbt_log *log;
    const char *path;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    assert_int_equal(cbt_log_create(path, 16 * BLOCK, "", ""), 0);
    log = opened(path);
    assert_int_equal(cbt_log_mark(log, 0, BLOCK), 0);
    assert_int_equal(cbt_log_mark(log, 15 * BLOCK, BLOCK), 0);
    assert_int_equal(cbt_log_close(log), 0);
    assert_int_equal(cbt_log_or(path, bitmap, 3), 0);
    assert_memory_equal(bitmap, "\x81\x01\xf0", 3);
    bitmap[1] = 0;
    assert_int_equal(cbt_log_or(path, bitmap, 1), 0); /* less than it holds */
    assert_int_equal(bitmap[1], 0);
}

static void test_no_log(void **state)
{
    static const struct { int64_t at; const char *bytes; size_t n; } damages[] = {
        { 0, "Y", 1 }, { 8, "\2", 1 }, { 12, "\1", 1 }, { 16, "\0\0\0\0\0\0\0\x80", 8 }, { 16, "\0\0\0\0\0\1\0\0", 8 },
        { 16, "\xff\xff\xff\xff", 4 }, { STATE_AT, "\x09", 1 }, { 32, "not a uuid", 10 }, { BOOT_AT, "/", 1 },
        { 32, "0123456789012345678901234567890123456789", 40 },
    };
    AUTO_TEMPDIR dir;
    struct cbt_log_info info;
    struct cbt_log *log;

    tempdir_make(&dir);
    for (unsigned i = 0; i < ARRAY_LEN(damages); i++) {
        const char *path = tempdir_file(&dir, "log");
        uint8_t bitmap[4];
        assert_int_equal(cbt_log_create(path, 10 * BLOCK, A, B), 0);
        poke(path, damages[i].at, damages[i].bytes, damages[i].n);
        assert_int_equal(cbt_log_info(path, &info), -EBADMSG);
        assert_int_equal(cbt_log_or(path, bitmap, 4), -EBADMSG);
        assert_int_equal(cbt_log_open(path, &log), -EBADMSG);
        assert_int_equal(cbt_log_link(path, A, B), -EBADMSG);
        assert_int_equal(cbt_log_resize(path, 20 * BLOCK), -EBADMSG);
        unlink(path);
    }
    assert_int_equal(cbt_log_info(tempdir_write(&dir, "short", "XAPICBT1"), &info), -EBADMSG);
    assert_int_equal(cbt_log_info(tempdir_write(&dir, "empty", ""), &info), -EBADMSG);
    assert_int_equal(cbt_log_info(tempdir_file(&dir, "absent"), &info), -ENOENT);
}

static void test_truncated(void **state)
{
    AUTO_TEMPDIR dir;
    struct cbt_log_info info;
    const char *path;

    tempdir_make(&dir);
    path = tempdir_file(&dir, "log");
    assert_int_equal(cbt_log_create(path, 1000 * BLOCK, A, B), 0);
    for (off_t size = HEADER + 124; size > 0; size -= 61) {
        assert_int_equal(truncate(path, size), 0);
        assert_int_equal(cbt_log_info(path, &info), -EBADMSG);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_log), cmocka_unit_test(test_bits), cmocka_unit_test(test_runs),   cmocka_unit_test(test_states),
        cmocka_unit_test(test_resize),  cmocka_unit_test(test_or),   cmocka_unit_test(test_no_log), cmocka_unit_test(test_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
