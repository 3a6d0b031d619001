#include "rpc/base/clock.h"

#include <time.h>

#include "tests/lib/unit.h"

static void test_clock_real_moves(void **state)
{
    int64_t us = clock_us(&clock_real), ms = clock_ms(&clock_real);

    assert_true(ms >= us / 1000 && ms < us / 1000 + 10000);
    assert_true(clock_us(&clock_real) >= us);
    assert_true(clock_wall(&clock_real) >= time(NULL) - 5 && clock_wall(&clock_real) <= time(NULL) + 5);
}

static void test_clock_fake_stands_still(void **state)
{
    struct clock_fake f;
    const struct clock *c = &f.clock;

    clock_fake_init(&f, 1000);
    assert_int_equal(clock_us(c), 0);
    assert_int_equal(clock_wall(c), 1000);
    clock_fake_advance_ms(&f, 2500);
    assert_int_equal(clock_us(c), 2500000);
    assert_int_equal(clock_ms(c), 2500);
    assert_int_equal(clock_wall(c), 1002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock_real_moves),
        cmocka_unit_test(test_clock_fake_stands_still),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
