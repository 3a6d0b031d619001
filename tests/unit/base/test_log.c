#include "rpc/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/work.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

LOG_MODULE(testing);

static struct tempdir dir;

static const char *written(void) { return tempdir_read(&dir, "log"); }

static int fresh(void **state)
{
    if (dir.path[0] == '\0')
        tempdir_make(&dir);
    unlink(tempdir_file(&dir, "log"));
    log_set_level(NULL, LOG_INFO);
    return log_open(tempdir_file(&dir, "log"));
}

static int remove_dir(void **state)
{
    tempdir_remove(&dir);
    return 0;
}

static unsigned lines(const char *s)
{
    unsigned n = 0;

    for (; (s = strchr(s, '\n')) != NULL; s++)
        n++;
    return n;
}

/* "2026-11-22T06:40:01.123Z " */
static void assert_time(const char *s)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ ";

    for (unsigned i = 0; i < sizeof(shape) - 1; i++)
        assert_true(shape[i] == 'd' ? s[i] >= '0' && s[i] <= '9' : s[i] == shape[i]);
}

static void test_log_line_format(void **state)
{
    AUTO_FAKECALL f;
    fakecall_init(&f);

    log_info("started %s in %d ms", "vm", 5);
    call_enter(NULL);
    log_err("no call");
    const char *s = written();
    assert_time(s);
    assert_memory_equal(s + 25, "info testing req=R:test started vm in 5 ms\n", 43);
    assert_non_null(strstr(s, "Z err testing no call\n"));
}

static void test_log_client_cannot_forge_lines(void **state)
{
    log_warn("name %s end", "a\nb\r\t\x1b[31m\x7f\xc2\x85\xc3\xa9");
    assert_int_equal(lines(written()), 1);
    assert_non_null(strstr(written(), "name a\\nb\\x0d\\x09\\x1b[31m\\x7f\\x85\xc3\xa9 end\n"));
}

static void test_log_levels(void **state)
{
    enum log_level level;

    log_debug("hidden");
    log_set_level("testing", LOG_DEBUG);
    log_debug("shown");
    log_set_level("testing", LOG_ERR);
    log_warn("hidden");
    log_line(LOG_INFO, "other", "of another module");
    log_set_level(NULL, LOG_WARN);
    log_line(LOG_INFO, "other", "hidden");
    log_warn("all again");
    assert_null(strstr(written(), "hidden"));
    assert_int_equal(lines(written()), 3);
    assert_true(log_level_parse("warn", &level) && level == LOG_WARN);
    assert_false(log_level_parse("loud", &level));
    assert_false(log_level_parse("", &level));
}

static void test_log_keeps_errno(void **state)
{
    errno = EXDEV;
    log_info("%m");
    assert_int_equal(errno, EXDEV);
    assert_non_null(strstr(written(), strerror(EXDEV)));
}

static void test_log_long_line_is_cut(void **state)
{
    char *large = arena_alloc(dir.arena, 100000);

    memset(large, 'x', 99999);
    log_info("%s", large);
    assert_int_equal(lines(written()), 1);
    assert_true(strlen(written()) < 20000);
    assert_non_null(strstr(written(), "xx...\n"));
}

static void test_log_rate_limit(void **state)
{
    for (unsigned i = 0; i < 1000; i++)
        log_warn_rl("noise");
    unsigned n = lines(written());
    assert_true(n >= 10 && n <= 60); /* the seconds may change meanwhile */
}

static void test_log_reopen_after_rotation(void **state)
{
    int before = log_fd();

    log_info("old");
    assert_int_equal(rename(tempdir_file(&dir, "log"), tempdir_file(&dir, "log.1")), 0);
    assert_int_equal(log_open(tempdir_file(&dir, "log")), 0);
    assert_int_equal(log_fd(), before);
    log_info("new");
    assert_non_null(strstr(tempdir_read(&dir, "log.1"), "old"));
    assert_non_null(strstr(written(), "new"));
    assert_null(strstr(written(), "old"));
    assert_int_equal(log_open("/nonexistent/log"), -ENOENT);
}

static void *write_many(void *arg)
{
    for (unsigned i = 0; i < 200; i++) {
        log_info("0123456789012345678901234567890123456789");
        log_set_level(arg, LOG_INFO);
    }
    return NULL;
}

static void test_log_threads_do_not_mix(void **state)
{
    char first[] = "first", second[] = "second";
    pthread_t a = thread_start("a", write_many, first), b = thread_start("b", write_many, second);

    pthread_join(a, NULL);
    pthread_join(b, NULL);
    const char *s = written();
    size_t len = strcspn(s, "\n") + 1;
    assert_int_equal(lines(s), 400);
    assert_int_equal(strlen(s), 400 * len);
    for (unsigned i = 0; i < 400; i++)
        assert_memory_equal(s + i * len + 25, s + 25, len - 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_log_line_format, fresh),
        cmocka_unit_test_setup(test_log_client_cannot_forge_lines, fresh),
        cmocka_unit_test_setup(test_log_levels, fresh),
        cmocka_unit_test_setup(test_log_keeps_errno, fresh),
        cmocka_unit_test_setup(test_log_long_line_is_cut, fresh),
        cmocka_unit_test_setup(test_log_rate_limit, fresh),
        cmocka_unit_test_setup(test_log_reopen_after_rotation, fresh),
        cmocka_unit_test_setup(test_log_threads_do_not_mix, fresh),
    };

    return cmocka_run_group_tests(tests, NULL, remove_dir);
}
