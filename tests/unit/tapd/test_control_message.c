#include "storage/tapd/control_protocol.h"

#include <string.h>

#include "tests/lib/unit.h"

static bool parse(struct arena *a, const char *line, const char **verb_r, struct value *v) { return control_message_parse(a, line, strlen(line), verb_r, v); }

static void test_there_and_back(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    const struct member members[] = {
        member_of("path", value_string("/a b%c=d\n\x7f\xc3\xa9")), member_of("empty", value_string("")), member_of("n", value_int(-5)),
        member_of("yes", value_bool(true)),                       member_of("no", value_bool(false)),
    };
    struct value v = value_map(members, 5), got;
    const char *verb;

    control_message_write(&t, "mirror-start", &v);
    assert_string_equal(t.bytes, "mirror-start path=/a%20b%25c%3Dd%0A%7F%C3%A9 empty= n=-5 yes=1 no=0");
    assert_true(parse(a, t.bytes, &verb, &got));
    assert_string_equal(verb, "mirror-start");
    assert_string_equal(value_get_string(&got, "path", ""), "/a b%c=d\n\x7f\xc3\xa9");
    assert_string_equal(value_get_string(&got, "empty", "x"), "");
    assert_int_equal(value_get_int(&got, "n", 0), -5);
    assert_string_equal(value_get_string(&got, "yes", ""), "1");
    assert_int_equal(got.len, 5);
}

static void test_a_verb_alone(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    const char *verb;
    struct value v;

    control_message_write(&t, "ok", NULL);
    assert_string_equal(t.bytes, "ok");
    assert_true(parse(a, "ok", &verb, &v));
    assert_string_equal(verb, "ok");
    assert_int_equal(v.kind, VALUE_MAP);
    assert_int_equal(v.len, 0);
}

static void test_malformed(void **state)
{
    static const char *const bad[] = {
        "",         " ",          "verb ",      "verb  a=b", " verb",    "verb a",     "verb =b",     "verb a=b c",  "ve=rb",
        "Verb",     "verb a=b=c", "verb a=%",   "verb a=%4", "verb a=%zz", "verb a=%00", "verb a=\x01", "verb a=\xc3", "verb a=b a=c",
        "verb A=b", "verb a=b\n", "verb\ta=b",
    };
    AUTO_ARENA a = arena_new();
    const char *verb;
    struct value v;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (parse(a, bad[i], &verb, &v))
            fail_msg("taken: '%s'", bad[i]);
    assert_false(control_message_parse(a, "verb a=\0", 8, &verb, &v));
    assert_false(control_message_parse(a, "verb a=%41", 9, &verb, &v)); /* cut within the escape */
    assert_true(parse(a, "verb a=%41%7e%0a", &verb, &v));
    assert_string_equal(value_get_string(&v, "a", ""), "A~\n");
}

static void test_longest_line(void **state)
{
    AUTO_ARENA a = arena_new();
    char *line = arena_alloc(a, CONTROL_LINE_MAX + 2);
    const char *verb;
    struct value v;

    memset(line, 'x', CONTROL_LINE_MAX + 1);
    memcpy(line, "v a=", 4);
    assert_true(control_message_parse(a, line, CONTROL_LINE_MAX, &verb, &v));
    assert_false(control_message_parse(a, line, CONTROL_LINE_MAX + 1, &verb, &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_a_verb_alone),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_longest_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
