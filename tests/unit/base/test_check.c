#include "rpc/base/check.h"

#include "tests/lib/death.h"
#include "tests/lib/unit.h"

static void fail_check(void) { CHECK(1 + 1 == 3); }
static void hit_bug(void) { BUG("cannot be"); }

static void test_check_true_goes_on(void **state) { CHECK(1 + 1 == 2); }
static void test_check_false_stops(void **state) { assert_true(death_of("check", "check failed: 1 + 1 == 3")); }
static void test_check_prints_backtrace(void **state) { assert_true(death_of("bug", "check_failed+0x")); }
static void test_bug_stops(void **state) { assert_true(death_of("bug", "test_check.c:")); }

static const struct deed deeds[] = { { "check", fail_check }, { "bug", hit_bug }, { 0 } };

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_true_goes_on),
        cmocka_unit_test(test_check_false_stops),
        cmocka_unit_test(test_check_prints_backtrace),
        cmocka_unit_test(test_bug_stops),
    };

    death_main(argc, argv, deeds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
