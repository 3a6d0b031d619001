#include "rpc/base/memory.h"

#include <errno.h>
#include <string.h>

#include "tests/lib/death.h"
#include "tests/lib/unit.h"

static void test_memory_xcalloc_zeroed(void **state)
{
    AUTO_FREE char *p = xcalloc(100, 10);

    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(p[i], 0);
    AUTO_FREE char *none = xcalloc(0, 10);
    assert_non_null(none);
}

static void test_memory_xrealloc(void **state)
{
    char *p = xrealloc(NULL, 4);

    memcpy(p, "abc", 4);
    p = xrealloc(p, 100000);
    assert_string_equal(p, "abc");
    p = xrealloc(p, 0);
    assert_non_null(p);
    xfree(p);
}

static void test_memory_strings(void **state)
{
    AUTO_FREE char *whole = xstrdup("hello"), *part = xstrndup("hello", 2), *longer = xstrndup("he", 10);
    AUTO_FREE char *printed = xprintf("%s %d", "a", 5);

    assert_string_equal(whole, "hello");
    assert_string_equal(part, "he");
    assert_string_equal(longer, "he");
    assert_string_equal(printed, "a 5");
}

static void test_memory_xfree_keeps_errno(void **state)
{
    errno = EXDEV;
    xfree(xstrdup("x"));
    xfree(NULL);
    assert_int_equal(errno, EXDEV);
}

#if defined(__clang__)
#define NO_SIZE_WARNING
#else
#define NO_SIZE_WARNING _Pragma("GCC diagnostic ignored \"-Walloc-size-larger-than=\"")
#endif

NO_SIZE_WARNING
static void exhaust(void) { xcalloc(SIZE_MAX / 4, 8); }

static void test_memory_exhausted(void **state)
{
#if defined(SANITIZED)
    skip(); /* the sanitizer stops the process in its own way */
#endif
    assert_true(death_of("exhaust", "out of memory"));
}

static const struct deed deeds[] = { { "exhaust", exhaust }, { 0 } };

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_xcalloc_zeroed), cmocka_unit_test(test_memory_xrealloc),
        cmocka_unit_test(test_memory_strings),        cmocka_unit_test(test_memory_xfree_keeps_errno),
        cmocka_unit_test(test_memory_exhausted),
    };

    death_main(argc, argv, deeds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
