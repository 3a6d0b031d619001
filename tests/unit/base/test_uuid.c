#include "rpc/base/uuid.h"

#include <string.h>

#include "tests/lib/unit.h"

static void test_uuid_new_shape(void **state)
{
    char first[UUID_LEN + 1], second[UUID_LEN + 1];

    for (unsigned i = 0; i < 1000; i++) {
        uuid_new(first);
        uuid_new(second);
        assert_true(uuid_valid(first));
        assert_int_equal(first[14], '4');
        assert_non_null(strchr("89ab", first[19]));
        assert_string_not_equal(first, second);
    }
}

static void test_ref_make_shape(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *ref = ref_make(a);

    assert_int_equal(strlen(ref), REF_LEN);
    assert_memory_equal(ref, "OpaqueRef:", 10);
    assert_true(uuid_valid(ref + 10));
    assert_false(ref_is_null(ref));
    assert_true(uuid_valid(uuid_make(a)));
}

static void test_uuid_valid_table(void **state)
{
    static const struct {
        const char *s;
        bool valid;
    } cases[] = {
        { "00000000-0000-0000-0000-000000000000", true },
        { "deadBEEF-0123-4567-89ab-cdefCDEF0123", true },
        { "", false },
        { "00000000-0000-0000-0000-00000000000", false },
        { "00000000-0000-0000-0000-0000000000000", false },
        { "00000000-0000-0000-0000-00000000000g", false },
        { "000000000000-0000-0000-0000-00000000", false },
        { "00000000 0000 0000 0000 000000000000", false },
        { "{0000000-0000-0000-0000-000000000000}", false },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(uuid_valid(cases[i].s), cases[i].valid);
}

static void test_ref_is_null_table(void **state)
{
    assert_true(ref_is_null(NULL));
    assert_true(ref_is_null(""));
    assert_true(ref_is_null("OpaqueRef:NULL"));
    assert_false(ref_is_null("OpaqueRef:null"));
    assert_false(ref_is_null("NULL"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uuid_new_shape),
        cmocka_unit_test(test_ref_make_shape),
        cmocka_unit_test(test_uuid_valid_table),
        cmocka_unit_test(test_ref_is_null_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
