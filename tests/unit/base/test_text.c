#include "rpc/base/text.h"

#include "rpc/base/memory.h"
#include "tests/lib/unit.h"

static void test_text_add_kinds(void **state)
{
    AUTO_TEXT t = TEXT_INIT;

    text_add(&t, "ab");
    text_add_byte(&t, 'c');
    text_add_len(&t, "d\0e", 3);
    text_printf(&t, "-%d", 42);
    assert_int_equal(t.len, 9);
    assert_memory_equal(t.bytes, "abcd\0e-42", 10);
    text_add_len(&t, NULL, 0);
    assert_int_equal(t.len, 9);
}

static void test_text_grows(void **state)
{
    AUTO_TEXT t = TEXT_INIT;

    for (unsigned i = 0; i < 100000; i++)
        text_add_byte(&t, (char)('a' + i % 26));
    assert_int_equal(t.len, 100000);
    assert_int_equal(strlen(t.bytes), 100000);
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(t.bytes[i], 'a' + i % 26);
}

/* Around the room that is left: the second vsnprintf must be needed, and not needed. */
static void test_text_printf_every_length(void **state)
{
    for (int n = 0; n < 300; n++) {
        AUTO_TEXT t = TEXT_INIT;
        text_printf(&t, "%*s", n, "");
        text_printf(&t, "%*s|", n, "");
        assert_int_equal(t.len, 2 * n + 1);
        assert_int_equal(t.bytes[2 * n], '|');
        assert_int_equal(t.bytes[2 * n + 1], '\0');
    }
}

static void test_text_clear_and_steal(void **state)
{
    AUTO_TEXT t = TEXT_INIT;

    text_add(&t, "abc");
    text_clear(&t);
    assert_int_equal(t.len, 0);
    assert_string_equal(t.bytes, "");
    text_add(&t, "x");
    AUTO_FREE char *bytes = text_steal(&t);
    assert_string_equal(bytes, "x");
    assert_null(t.bytes);
    AUTO_FREE char *none = text_steal(&t);
    assert_string_equal(none, "");
}

static void test_text_grow_makes_room(void **state)
{
    AUTO_TEXT t = TEXT_INIT;

    text_grow(&t, 1000);
    assert_true(t.cap > 1000);
    assert_string_equal(t.bytes, "");
}

static void test_text_to_number_table(void **state)
{
    static const struct {
        const char *s;
        bool is_int, is_uint;
        int64_t i;
        uint64_t u;
    } cases[] = {
        { "0", true, true, 0, 0 },
        { "007", true, true, 7, 7 },
        { "-1", true, false, -1, 0 },
        { "-0", true, false, 0, 0 },
        { "9223372036854775807", true, true, INT64_MAX, INT64_MAX },
        { "9223372036854775808", false, true, 0, (uint64_t)INT64_MAX + 1 },
        { "-9223372036854775808", true, false, INT64_MIN, 0 },
        { "-9223372036854775809", false, false, 0, 0 },
        { "18446744073709551615", false, true, 0, UINT64_MAX },
        { "18446744073709551616", false, false, 0, 0 },
        { "99999999999999999999", false, false, 0, 0 },
        { "", false, false, 0, 0 },
        { "-", false, false, 0, 0 },
        { "--1", false, false, 0, 0 },
        { "+1", false, false, 0, 0 },
        { " 1", false, false, 0, 0 },
        { "1 ", false, false, 0, 0 },
        { "0x1", false, false, 0, 0 },
        { "1.5", false, false, 0, 0 },
    };

    for (unsigned k = 0; k < ARRAY_LEN(cases); k++) {
        int64_t i = 0;
        uint64_t u = 0;
        assert_int_equal(text_to_int(cases[k].s, &i), cases[k].is_int);
        assert_int_equal(text_to_uint(cases[k].s, &u), cases[k].is_uint);
        assert_true(i == cases[k].i && u == cases[k].u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_add_kinds),           cmocka_unit_test(test_text_grows),
        cmocka_unit_test(test_text_printf_every_length), cmocka_unit_test(test_text_clear_and_steal),
        cmocka_unit_test(test_text_grow_makes_room),     cmocka_unit_test(test_text_to_number_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
