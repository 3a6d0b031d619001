#include "rpc/wire/json.h"

#include <math.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/unit.h"

static const struct {
    const char *json;
    const char *back; /* as we write it */
} good[] = {
    { "0", "0" },
    { "-0", "0" },
    { " [1, 2 ,\t3\r\n] ", "[1,2,3]" },
    { "9007199254740993", "9007199254740993" },
    { "[9223372036854775807,-9223372036854775808]", "[9223372036854775807,-9223372036854775808]" },
    { "{\"a\":9007199254740993,\"b\":[1.5,9007199254740995],\"c\":-9007199254740997}",
      "{\"a\":9007199254740993,\"b\":[1.5,9007199254740995],\"c\":-9007199254740997}" },
    { "{\"9007199254740993\":\"9007199254740993\",\"x\":1}", "{\"9007199254740993\":\"9007199254740993\",\"x\":1}" },
    { "[1.5,-2.25e3,1E2,0.1]", "[1.5,-2250,100,0.1]" },
    { "[true,false,null]", "[true,false,null]" },
    { "\"\"", "\"\"" },
    { "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"", "\"a\\\"\\\\/\\b\\f\\n\\r\\tA\"" },
    { "\"\\u0001\\u001f\\u007f\"", "\"\\u0001\\u001f\x7f\"" },
    { "\"\\u00e4\\u20ac\\ud83d\\ude00\"", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"" },
    { "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"" },
    { "[]", "[]" },
    { "{}", "{}" },
    { "[[],{},[{}]]", "[[],{},[{}]]" },
    { "{\"a\":1,\"b\":2,\"a\":3}", "{\"b\":2,\"a\":3}" },
    { "{\"a\":1,\"\\u0061\":[2,{\"a\":1,\"a\":2}]}", "{\"a\":[2,{\"a\":2}]}" },
    { "{\"\":1}", "{\"\":1}" },
};

static void test_json_parse_good(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT t = TEXT_INIT;
        const char *reason = NULL;
        struct value v;

        if (!json_parse(a, good[i].json, strlen(good[i].json), &v, &reason))
            fail_msg("row %u: %s: %s", i, good[i].json, reason);
        json_write(&t, &v);
        if (strcmp(t.bytes, good[i].back) != 0)
            fail_msg("row %u: %s: %s", i, good[i].json, t.bytes);
    }
}

static void test_json_parse_kinds(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *reason;
    struct value v;

    assert_true(json_parse(a, "[1,1.0,1e0,\"1\",true,null,{},[]]", 31, &v, &reason));
    static const int kinds[] = { VALUE_INT,  VALUE_FLOAT, VALUE_FLOAT, VALUE_STRING,
                                 VALUE_BOOL, VALUE_NIL,   VALUE_MAP,   VALUE_SET };
    assert_int_equal(v.len, ARRAY_LEN(kinds));
    for (unsigned i = 0; i < v.len; i++)
        assert_int_equal(v.items[i].kind, kinds[i]);
    assert_true(v.items[1].f == 1.0);
}

static const struct {
    const char *json;
    const char *reason; /* part of it */
} bad[] = {
    { "", "empty" },
    { "   ", "truncated" },
    { "x", "JSON" },
    { "[", "truncated" },
    { "[1", "truncated" },
    { "[1,", "truncated" },
    { "{\"a\"", "truncated" },
    { "{\"a\":", "truncated" },
    { "\"abc", "truncated" },
    { "\"abc\\", "truncated" },
    { "]", "JSON" },
    { "[1}", "JSON" },
    { "{\"a\":1]", "JSON" },
    { "[1,]", "JSON" },
    { "[,1]", "JSON" },
    { "[1 2]", "JSON" },
    { "{\"a\":1,}", "JSON" },
    { "{a:1}", "JSON" },
    { "{1:1}", "JSON" },
    { "{\"a\" 1}", "JSON" },
    { "{\"a\":1 \"b\":2}", "JSON" },
    { "'a'", "JSON" },
    { "[1]x", "follows" },
    { "[1][2]", "follows" },
    { "1 2", "follows" },
    { "{} ,", "follows" },
    { "tru", "JSON" },
    { "True", "JSON" },
    { "nul", "JSON" },
    { "NaN", "JSON" },
    { "[NaN]", "JSON" },
    { "Infinity", "JSON" },
    { "-Infinity", "number" },
    { "[-]", "number" },
    { "01", "number" },
    { "-01", "number" },
    { "+1", "JSON" },
    { "1.", "number" },
    { ".5", "JSON" },
    { "1e", "number" },
    { "1e+", "number" },
    { "0x10", "" },
    { "1e400", "range" },
    { "-1e400", "range" },
    { "9223372036854775808", "64 bits" },
    { "-9223372036854775809", "64 bits" },
    { "99999999999999999999999", "64 bits" },
    { "0.0000000000000000000000000000000000000000000000000000000000000000001", "long" },
    { "\"\\u0000\"", "u0000" },
    { "{\"a\\u0000b\":1}", "u0000" },
    { "\"\\u00\"", "malformed" },
    { "\"\\u00g0\"", "malformed" },
    { "\"\\x41\"", "JSON" },
    { "\"\\ud800\"", "JSON" },
    { "\"\\ude00\"", "JSON" },
    { "\"\\ud800\\u0041\"", "JSON" },
    { "\"\\uffff\"", "noncharacter" },
    { "\"\\ufdd0\"", "noncharacter" },
    { "\"\xef\xb7\x90\"", "noncharacter" },
    { "\"a\nb\"", "control" },
    { "\"a\tb\"", "control" },
    { "[1,\x0b 2]", "JSON" },
    { "\"\xff\"", "UTF-8" },
    { "\"\xc0\xaf\"", "UTF-8" },
    { "\"\xed\xa0\x80\"", "UTF-8" },
    { "/* c */ 1", "JSON" },
    { "[1] // c", "follows" },
};

static bool parses(const char *bytes, size_t len)
{
    AUTO_ARENA a = arena_new();
    const char *reason = NULL;
    struct value v;

    return json_parse(a, bytes, len, &v, &reason);
}

static void test_json_parse_bad(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ARENA a = arena_new();
        const char *reason = NULL;
        struct value v;

        if (json_parse(a, bad[i].json, strlen(bad[i].json), &v, &reason))
            fail_msg("row %u was accepted: %s", i, bad[i].json);
        assert_non_null(reason);
        if (strstr(reason, bad[i].reason) == NULL)
            fail_msg("row %u: %s: %s", i, bad[i].json, reason);
    }
    assert_false(parses("\"a\0b\"", 5));
    assert_false(parses("1\0", 2));
}

static bool nested_parses(unsigned n)
{
    AUTO_TEXT t = TEXT_INIT;

    for (unsigned i = 0; i < n; i++)
        text_add(&t, "[");
    for (unsigned i = 0; i < n; i++)
        text_add(&t, "]");
    return parses(t.bytes, t.len);
}

static void test_json_parse_nesting(void **state)
{
    assert_true(nested_parses(64));
    assert_false(nested_parses(65));
    assert_false(nested_parses(1000000));
}

static void test_json_parse_damaged(void **state)
{
    const char *json = "{\"a\\u00e4\":[1.5,-20,true,null,\"x\\n\xf0\x9f\x98\x80\"],\"b\":{\"c\":[]},\"d\":9007199254740993}";
    size_t len = strlen(json);

    assert_true(parses(json, len));
    for (size_t i = 0; i < len; i++) {
        AUTO_FREE char *copy = xstrndup(json, i);
        assert_false(parses(copy, i));
    }
    for (size_t i = 0; i < len; i++) {
        AUTO_FREE char *copy = xstrndup(json, len);
        for (unsigned k = 0; k < 8; k++) {
            copy[i] = (char)((unsigned char)json[i] ^ 1u << k);
            (void)parses(copy, len);
        }
    }
}

/* Many equal names must not take quadratic time, and the last one counts. */
static void test_json_parse_many_names(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    const char *reason;
    struct value v;

    text_add(&t, "{\"first\":0");
    for (unsigned i = 0; i < 100000; i++)
        text_printf(&t, ",\"k%u\":%u", i % 50000, i);
    text_add(&t, "}");
    assert_true(json_parse(a, t.bytes, t.len, &v, &reason));
    assert_int_equal(v.len, 50001);
    assert_int_equal(value_get_int(&v, "k7", -1), 50007);
    assert_int_equal(value_get_int(&v, "first", -1), 0);
}

static void assert_written(struct value v, const char *json)
{
    AUTO_TEXT t = TEXT_INIT;

    json_write(&t, &v);
    assert_string_equal(t.bytes, json);
}

static void test_json_write_scalars(void **state)
{
    assert_written(value_void(), "\"\"");
    assert_written(value_string("a/b <c> & 'd'"), "\"a/b <c> & 'd'\"");
    assert_written(value_string("\"\\\b\f\n\r\t\x01\x1f\x7f"), "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"");
    assert_written(value_int(INT64_MIN), "-9223372036854775808");
    assert_written(value_int(10), "10");
    assert_written(value_int(100), "100");
    assert_written(value_int32(4), "4");
    assert_written(value_bool(true), "true");
    assert_written(value_bool(false), "false");
    assert_written(value_float(0.5), "0.5");
    assert_written(value_float(60.1), "60.1");
    assert_written(value_float(1), "1");
    assert_written(value_float(1e300), "1e+300");
    assert_written(value_float(NAN), "\"NaN\"");
    assert_written(value_float(INFINITY), "\"Infinity\"");
    assert_written(value_float(-INFINITY), "\"-Infinity\"");
    assert_written(value_datetime(0), "\"19700101T00:00:00Z\"");
    assert_written((struct value){ .kind = VALUE_NIL }, "null");
}

/* Each special byte at each place of strings of each length around the vector width. */
static void test_json_write_escapes_everywhere(void **state)
{
    for (size_t len = 1; len <= 70; len++) {
        for (size_t at = 0; at < len; at++) {
            AUTO_ARENA a = arena_new();
            AUTO_TEXT t = TEXT_INIT;
            const char *reason;
            char s[80];
            struct value back;

            memset(s, 'x', len);
            s[len] = '\0';
            s[at] = "\\\"\x01\n\x1f\r"[(at + len) % 6];
            s[len - 1 - at] = "\"\\\t"[at % 3];
            struct value v = value_string_len(s, len);
            json_write(&t, &v);
            assert_true(json_parse(a, t.bytes, t.len, &back, &reason));
            assert_true(value_equal(&v, &back));
        }
    }
}

static void test_json_write_string(void **state)
{
    AUTO_TEXT t = TEXT_INIT;

    text_add(&t, "x=");
    json_write_string(&t, "a\"b", 3);
    assert_string_equal(t.bytes, "x=\"a\\\"b\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_parse_good),
        cmocka_unit_test(test_json_parse_kinds),
        cmocka_unit_test(test_json_parse_bad),
        cmocka_unit_test(test_json_parse_nesting),
        cmocka_unit_test(test_json_parse_damaged),
        cmocka_unit_test(test_json_parse_many_names),
        cmocka_unit_test(test_json_write_scalars),
        cmocka_unit_test(test_json_write_escapes_everywhere),
        cmocka_unit_test(test_json_write_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
