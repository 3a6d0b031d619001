#include "rpc/base/value.h"

#include <math.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "tests/lib/unit.h"

static const char *const names[] = { "uuid", "secret", "tags" };
static const uint8_t published[] = { 1, 0, 1 };
static const struct record_shape shape = {
    .class_name = "thing", .n_fields = 3, .names = names, .published = published
};

/* { "n": 5, "s": "a<b", "empty": "", "set": ["x", "y"], "none": [], "map": {"k": true, "f": 1.5}, "at": …} */
static struct value sample(struct arena *a)
{
    struct value_dict d = { 0 }, inner = { 0 };
    struct value_list l = { 0 };

    value_list_add(a, &l, value_string("x"));
    value_list_add(a, &l, value_string("y"));
    value_dict_add(a, &inner, "k", value_bool(true));
    value_dict_add(a, &inner, "f", value_float(1.5));
    value_dict_add(a, &d, "n", value_int(5));
    value_dict_add(a, &d, "s", value_string("a<b"));
    value_dict_add(a, &d, "empty", value_string(""));
    value_dict_add(a, &d, "set", value_list_value(&l));
    value_dict_add(a, &d, "none", value_set(NULL, 0));
    value_dict_add(a, &d, "map", value_dict_value(&inner));
    value_dict_add(a, &d, "at", value_datetime(1700000000));
    value_dict_add(a, &d, "i4", value_int32(-1));
    value_dict_add(a, &d, "void", value_void());
    value_dict_add(a, &d, "decimal", value_string("-12"));
    return value_dict_value(&d);
}

static void test_value_get_kinds(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value v = sample(a);

    assert_int_equal(value_get_int(&v, "n", 0), 5);
    assert_int_equal(value_get_int(&v, "i4", 0), -1);
    assert_int_equal(value_get_int(&v, "decimal", 0), -12);
    assert_int_equal(value_get_int(&v, "s", 9), 9);
    assert_int_equal(value_get_int(&v, "empty", 9), 9);
    assert_int_equal(value_get_int(&v, "absent", 9), 9);
    assert_string_equal(value_get_string(&v, "s", ""), "a<b");
    assert_string_equal(value_get_string(&v, "n", "fallback"), "fallback");
    assert_true(value_get_bool(value_get(&v, "map"), "k", false));
    assert_true(value_get_bool(&v, "n", true));
    assert_true(value_get_float(value_get(&v, "map"), "f", 0) == 1.5);
    assert_true(value_get_float(&v, "n", 0) == 5.0);
    assert_true(value_set_has(value_get(&v, "set"), "y"));
    assert_false(value_set_has(value_get(&v, "set"), "z"));
    assert_false(value_set_has(value_get(&v, "n"), "y"));
    assert_false(value_set_has(NULL, "y"));
    assert_null(value_get(&v, "N"));
    assert_null(value_get(value_get(&v, "n"), "x"));
    assert_null(value_get(NULL, "x"));
}

static void test_value_get_int_of_strings(void **state)
{
    static const struct {
        const char *s;
        int64_t i;
    } cases[] = {
        { "0", 0 },
        { "9223372036854775807", INT64_MAX },
        { "-9223372036854775808", INT64_MIN },
        { "9223372036854775808", 77 },
        { " 1", 77 },
        { "+1", 77 },
        { "1 ", 77 },
        { "0x10", 77 },
        { "1.0", 77 },
        { "-", 77 },
    };
    AUTO_ARENA a = arena_new();

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct value_dict d = { 0 };
        value_dict_add(a, &d, "x", value_string(cases[i].s));
        struct value v = value_dict_value(&d);
        assert_int_equal(value_get_int(&v, "x", 77), cases[i].i);
    }
}

static void test_value_dict_set_replaces(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value_dict d = { 0 };

    for (int i = 0; i < 100; i++)
        value_dict_set(a, &d, arena_printf(a, "k%d", i % 20), value_int(i));
    struct value v = value_dict_value(&d);
    assert_int_equal(v.len, 20);
    assert_int_equal(value_get_int(&v, "k3", 0), 83);
    value_dict_add(a, &d, "k3", value_int(1));
    v = value_dict_value(&d);
    assert_int_equal(v.len, 21);
    assert_int_equal(value_get_int(&v, "k3", 0), 83);
}

static void test_value_equal_table(void **state)
{
    const struct member ab[] = { member_of("a", value_int(1)), member_of("b", value_int(2)) };
    const struct member ba[] = { ab[1], ab[0] };
    const struct member ac[] = { ab[0], member_of("c", value_int(2)) };
    const struct value one_two[] = { value_int(1), value_int(2) }, two_one[] = { value_int(2), value_int(1) };
    const struct {
        struct value left, right;
        bool equal;
    } cases[] = {
        { value_void(), value_void(), true },
        { value_void(), value_string(""), false },
        { value_int(1), value_int(1), true },
        { value_int(1), value_int32(1), false },
        { value_int(1), value_bool(true), false },
        { value_string("ab"), value_string_len("abc", 2), true },
        { value_string("ab"), value_string("ac"), false },
        { value_string(NULL), value_string(""), true },
        { value_float(NAN), value_float(NAN), true },
        { value_float(1), value_float(2), false },
        { value_datetime(5), value_datetime(5), true },
        { value_datetime(5), value_int(5), false },
        { value_set(one_two, 2), value_set(one_two, 2), true },
        { value_set(one_two, 2), value_set(two_one, 2), false },
        { value_set(one_two, 2), value_set(one_two, 1), false },
        { value_map(ab, 2), value_map(ba, 2), true },
        { value_map(ab, 2), value_map(ac, 2), false },
        { value_map(ab, 2), value_map(ab, 1), false },
        { value_map(NULL, 0), value_map(NULL, 0), true },
        { value_map(NULL, 0), value_set(NULL, 0), false },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(value_equal(&cases[i].left, &cases[i].right), cases[i].equal);
        assert_int_equal(value_equal(&cases[i].right, &cases[i].left), cases[i].equal);
    }
}

/* A client's map in an unfortunate order must not cost time quadratic in its size. */
static void test_value_equal_large_maps(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value_dict forth = { 0 }, back = { 0 };
    const int n = 50000;

    for (int i = 0; i < n; i++) {
        value_dict_add(a, &forth, arena_printf(a, "%d", i), value_int(i));
        value_dict_add(a, &back, arena_printf(a, "%d", n - 1 - i), value_int(n - 1 - i));
    }
    struct value left = value_dict_value(&forth), right = value_dict_value(&back);
    assert_true(value_equal(&left, &right));
    back.members[7].value = value_int(-1);
    assert_false(value_equal(&left, &right));
}

static void test_value_dup_is_deep(void **state)
{
    AUTO_ARENA to = arena_new();
    struct arena *from = arena_new();
    struct value v = sample(from), copy = value_dup(to, &v);

    assert_true(value_equal(&v, &copy));
    arena_free(from);
    assert_string_equal(value_get_string(&copy, "s", ""), "a<b");
    assert_string_equal(value_get(&copy, "set")->items[1].s, "y");
    struct value n = value_int(3), n_copy = value_dup(to, &n);
    assert_true(value_equal(&n, &n_copy));
    struct value empty = value_string_len("xyz", 0), empty_copy = value_dup(to, &empty);
    assert_string_equal(empty_copy.s, "");
}

static void test_value_pack_fills_its_block(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value v = sample(a);
    size_t size = value_pack_size(&v);
    AUTO_FREE char *block = xcalloc(1, size);
    char *at = block;
    struct value packed = value_pack(&v, &at);

    assert_int_equal(at - block, size);
    assert_true(value_equal(&v, &packed));
    assert_true((const char *)packed.members >= block && (const char *)packed.members < at);
    assert_int_equal(value_get(&packed, "s")->flags & VALUE_PLAIN, 0);
    assert_int_equal(value_get(&packed, "decimal")->flags & VALUE_PLAIN, VALUE_PLAIN);
    assert_int_equal(value_get(&packed, "empty")->flags & VALUE_PLAIN, VALUE_PLAIN);
    assert_int_equal(packed.members[0].name_flags & VALUE_PLAIN, VALUE_PLAIN);
}

static void test_value_pack_string_without_nul(void **state)
{
    struct value v = value_string_len("abcdefgh", 5);
    char block[8] = { 1, 1, 1, 1, 1, 1, 1, 1 }, *at = block;

    assert_int_equal(value_pack_size(&v), 8);
    assert_string_equal(value_pack(&v, &at).s, "abcde");
}

static void test_value_record_shows_published(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value fields[] = { value_string("u-1"), value_string("hidden"), value_set(NULL, 0) };
    struct value other_fields[] = { value_string("u-1"), value_string("else"), value_set(NULL, 0) };
    struct record r = { .shape = &shape, .fields = fields }, other = { .shape = &shape, .fields = other_fields };
    struct value v = value_record(&r), o = value_record(&other);

    assert_string_equal(value_get_string(&v, "uuid", ""), "u-1");
    assert_null(value_get(&v, "secret"));
    assert_true(value_equal(&v, &o));
    struct value map = value_dup(a, &v);
    assert_int_equal(map.kind, VALUE_MAP);
    assert_int_equal(map.len, 2);
    assert_string_equal(map.members[0].name, "uuid");
    assert_string_equal(map.members[1].name, "tags");
    other_fields[0] = value_string("u-2");
    assert_false(value_equal(&v, &o));
}

static bool plain_slowly(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20 || strchr("<>&\"\\", s[i]) != NULL)
            return false;
    return true;
}

/* Every byte at every place in strings of every length around the word and vector sizes. */
static void test_text_is_plain_every_byte(void **state)
{
    for (size_t len = 0; len <= 40; len++) {
        AUTO_FREE char *s = xcalloc(len + 1, 1); /* exact, so that a sanitizer sees reads beyond */
        memset(s, 'a', len);
        assert_true(text_is_plain(s, len));
        for (size_t place = 0; place < len; place++) {
            for (int c = 0; c < 256; c++) {
                s[place] = (char)c;
                if (text_is_plain(s, len) != plain_slowly(s, len))
                    fail_msg("byte %#x at %zu of %zu", (unsigned)c, place, len);
            }
            s[place] = (char)(0x7f + place); /* the neighbours of later places: high bytes too */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_get_kinds),
        cmocka_unit_test(test_value_get_int_of_strings),
        cmocka_unit_test(test_value_dict_set_replaces),
        cmocka_unit_test(test_value_equal_table),
        cmocka_unit_test(test_value_equal_large_maps),
        cmocka_unit_test(test_value_dup_is_deep),
        cmocka_unit_test(test_value_pack_fills_its_block),
        cmocka_unit_test(test_value_pack_string_without_nul),
        cmocka_unit_test(test_value_record_shows_published),
        cmocka_unit_test(test_text_is_plain_every_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
