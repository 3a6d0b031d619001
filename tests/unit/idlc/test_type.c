#include "db/idlc/type.h"

#include <string.h>

#include "tests/lib/unit.h"

static struct idl_type *parse(struct arena *a, const char *text, const char **wrong_r)
{
    struct lexer l;

    assert_null(lexer_cut(&l, a, text, strlen(text)));
    return type_parse(a, &l, wrong_r);
}

static struct idl_literal *literal(struct arena *a, const char *text, const char **wrong_r)
{
    struct lexer l;

    assert_null(lexer_cut(&l, a, text, strlen(text)));
    return literal_parse(a, &l, wrong_r);
}

static void test_type_parse_spelling(void **state)
{
    static const struct {
        const char *text;
        enum type_kind kind;
    } cases[] = {
        { "void", TYPE_VOID },
        { "string", TYPE_STRING },
        { "int", TYPE_INT },
        { "bool", TYPE_BOOL },
        { "float", TYPE_FLOAT },
        { "datetime", TYPE_DATETIME },
        { "enum on_boot", TYPE_ENUM },
        { "VM ref", TYPE_REF },
        { "VM record", TYPE_RECORD },
        { "<class> record", TYPE_RECORD },
        { "an event batch", TYPE_ANY },
        { "string set set", TYPE_SET },
        { "string option", TYPE_OPTION },
        { "sr_stat record option", TYPE_OPTION },
        { "(string -> string) map", TYPE_MAP },
        { "(VM ref -> (string -> string) map) map", TYPE_MAP },
        { "(int -> string set) map", TYPE_MAP },
        { "(string -> enum vm_operations) map", TYPE_MAP },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *wrong = NULL;
        struct idl_type *t = parse(a, cases[i].text, &wrong);

        assert_null(wrong);
        assert_int_equal(t->kind, cases[i].kind);
        assert_string_equal(t->spelling, cases[i].text);
    }
}

static void test_type_parse_refuses(void **state)
{
    static const struct {
        const char *text, *wrong;
    } cases[] = {
        { "", "type expected, not 'end of line'" },
        { "strung", "unknown type 'strung'" },
        { "an event", "unknown type 'an'" },
        { "(string string) map", "a map type is spelt (T -> T) map: '->' expected" },
        { "(string -> string)", "a map type is spelt (T -> T) map: ') map' expected" },
        { "int set set set set set set set set set", "type nested too deeply" },
        { "((((((((((int -> int) map", "type nested too deeply" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *wrong = NULL;

        assert_null(parse(a, cases[i].text, &wrong));
        assert_string_equal(wrong, cases[i].wrong);
    }
}

static void test_literal_check_fits(void **state)
{
    static const struct {
        const char *type, *literal;
    } cases[] = {
        { "string", "\"a b\"" },
        { "int", "-7" },
        { "int", "21474836480" },
        { "bool", "true" },
        { "float", "-1.0" },
        { "float", "3" },
        { "datetime", "19700101T00:00:00Z" },
        { "VM ref", "null" },
        { "string set", "{ \"a\", \"b\" }" },
        { "int set", "{ 0 }" },
        { "role ref set", "{ OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba }" },
        { "(string -> string) map", "{ \"a\" -> \"b\" }" },
        { "(int -> int) map", "{}" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *wrong = NULL;
        struct idl_type *t = parse(a, cases[i].type, &wrong);
        struct idl_literal *l = literal(a, cases[i].literal, &wrong);

        assert_non_null(l);
        assert_null(literal_check(a, t, l));
    }
}

static void test_literal_check_refuses(void **state)
{
    static const struct {
        const char *type, *literal, *wrong;
    } cases[] = {
        { "string", "word", "'word' is no string" },
        { "int", "\"7\"", "\"7\" is no int" },
        { "int", "7.5", "'7.5' is no int" },
        { "int", "99999999999999999999", "'99999999999999999999' is no int" },
        { "bool", "yes", "'yes' is no bool" },
        { "float", "nan", "'nan' is no float" },
        { "float", "1e999", "'1e999' is no float" },
        { "datetime", "yesterday", "'yesterday' is no datetime" },
        { "VM ref", "nothing", "'nothing' is no VM ref" },
        { "string", "{}", "a set is no string" },
        { "string set", "{ a }", "'a' is no string" },
        { "string set", "{ \"a\" -> \"b\" }", "a map is no string set" },
        { "(string -> int) map", "{ \"a\" -> b }", "'b' is no int" },
        { "(int -> int) map", "{ 1 -> 2 }", "only maps with string keys may have a default that is not empty" },
        { "(string -> int) map", "{ \"a\" }", "a set is no (string -> int) map" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *wrong = NULL;
        struct idl_type *t = parse(a, cases[i].type, &wrong);
        struct idl_literal *l = literal(a, cases[i].literal, &wrong);

        assert_non_null(t);
        assert_non_null(l);
        assert_string_equal(literal_check(a, t, l), cases[i].wrong);
    }
}

static void test_literal_parse_refuses(void **state)
{
    static const struct {
        const char *text, *wrong;
    } cases[] = {
        { "", "value expected, not 'end of line'" },
        { "{ \"a\"", "',' or '}' expected in a value" },
        { "{ \"a\" \"b\" }", "',' or '}' expected in a value" },
        { "{ \"a\" -> }", "value expected, not '}'" },
        { "{ \"a\", \"b\" -> \"c\" }", "a value is either { a, b } or { k -> v }, not both" },
        { "{ \"a\" -> \"b\", \"c\" }", "a value is either { a, b } or { k -> v }, not both" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *wrong = NULL;

        assert_null(literal(a, cases[i].text, &wrong));
        assert_string_equal(wrong, cases[i].wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_type_parse_spelling),   cmocka_unit_test(test_type_parse_refuses),
        cmocka_unit_test(test_literal_check_fits),    cmocka_unit_test(test_literal_check_refuses),
        cmocka_unit_test(test_literal_parse_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
