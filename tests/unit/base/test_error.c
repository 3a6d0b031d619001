#include "rpc/base/error.h"

#include <string.h>

#include "tests/lib/unit.h"

static void test_error_make_copies(void **state)
{
    AUTO_ARENA a = arena_new();
    char param[] = "halted";
    struct error *e = error_make(a, "f.c", 7, "VM_BAD_POWER_STATE", 3, "OpaqueRef:1", param, NULL);

    param[0] = 'X';
    assert_true(error_is(e, "VM_BAD_POWER_STATE"));
    assert_false(error_is(e, "VM_BAD"));
    assert_false(error_is(NULL, "VM_BAD"));
    assert_int_equal(e->n_params, 3);
    assert_string_equal(e->params[1], "halted");
    assert_string_equal(e->params[2], "");
    assert_string_equal(error_text(a, e), "VM_BAD_POWER_STATE [OpaqueRef:1; halted; ] (f.c:7)");
}

static void test_error_without_params(void **state)
{
    AUTO_ARENA a = arena_new();
    struct error *e = error_make(a, "f.c", 1, "SESSION_INVALID", 0);

    e->cause = "expired";
    assert_string_equal(error_text(a, e), "SESSION_INVALID [] (f.c:1) expired");
    assert_string_equal(error_text(a, NULL), "success");
}

static void test_error_from_strings(void **state)
{
    static const char *const params[] = { "a", "b" };
    AUTO_ARENA a = arena_new();
    struct error *e = error_from_strings(a, "X", 2, params);

    assert_string_equal(error_text(a, e), "X [a; b]");
}

static void test_error_internal_formats(void **state)
{
    AUTO_ARENA a = arena_new();
    struct error *e = err_internal(a, "%s failed with %d", "open", 5);

    assert_true(error_is(e, "INTERNAL_ERROR"));
    assert_string_equal(e->params[0], "open failed with 5");
    assert_non_null(strstr(e->file, "test_error.c"));
}

static void test_error_dup_outlives(void **state)
{
    AUTO_ARENA to = arena_new();
    struct arena *from = arena_new();
    struct error *e = error_make(from, "f.c", 7, "X", 1, "p");

    e->cause = arena_strdup(from, "why");
    struct error *copy = error_dup(to, e);
    arena_free(from);
    assert_string_equal(error_text(to, copy), "X [p] (f.c:7) why");
    assert_null(error_dup(to, NULL));
}

static struct error *deeper(struct arena *a, bool fails) { return fails ? err_internal(a, "deep") : NULL; }

static struct error *middle(struct arena *a, bool fails, bool *reached_r)
{
    *reached_r = false;
    TRY(deeper(a, fails));
    *reached_r = true;
    return NULL;
}

static void test_error_try(void **state)
{
    AUTO_ARENA a = arena_new();
    bool reached;

    assert_null(middle(a, false, &reached));
    assert_true(reached);
    assert_true(error_is(middle(a, true, &reached), "INTERNAL_ERROR"));
    assert_false(reached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_make_copies),  cmocka_unit_test(test_error_without_params),
        cmocka_unit_test(test_error_from_strings), cmocka_unit_test(test_error_internal_formats),
        cmocka_unit_test(test_error_dup_outlives), cmocka_unit_test(test_error_try),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
