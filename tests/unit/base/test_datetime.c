#include "rpc/base/datetime.h"

#include <string.h>
#include <time.h>

#include "rpc/base/attributes.h"
#include "tests/lib/unit.h"

static void test_datetime_format_table(void **state)
{
    static const struct {
        int64_t epoch;
        const char *s;
    } cases[] = {
        { 0, "19700101T00:00:00Z" },
        { -1, "19691231T23:59:59Z" },
        { 951782400, "20000229T00:00:00Z" },
        { 4107542399, "21000228T23:59:59Z" },
        { 4107542400, "21000301T00:00:00Z" },
        { 1795329601, "20261122T06:40:01Z" },
        { 253402300799, "99991231T23:59:59Z" },
        { INT64_MAX, "99991231T23:59:59Z" },
        { INT64_MIN, "00000101T00:00:00Z" },
    };
    char s[DATETIME_LEN + 1];

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        datetime_format(cases[i].epoch, s);
        assert_string_equal(s, cases[i].s);
    }
}

/* Against libc, over 400 years in steps that hit every hour, and back. */
static void test_datetime_format_agrees_with_libc(void **state)
{
    char ours[DATETIME_LEN + 1], theirs[32];

    for (int64_t t = -6000000000; t < 7000000000; t += 999983) {
        time_t at = t;
        struct tm tm;
        int64_t back;
        strftime(theirs, sizeof(theirs), "%Y%m%dT%H:%M:%SZ", gmtime_r(&at, &tm));
        datetime_format(t, ours);
        assert_string_equal(ours, theirs);
        assert_true(datetime_parse(ours, strlen(ours), &back));
        assert_int_equal(back, t);
    }
}

static void test_datetime_parse_forms(void **state)
{
    static const char *const forms[] = {
        "20261122T06:40:01Z",         "2026-11-22T06:40:01Z",      "20261122T06:40:01",
        "2026-11-22T06:40:01.123Z",   "20261122T06:40:01.9999999", "20261122T064001Z",
        "20261122T08:40:01+02:00",    "20261122T08:40:01+0200",    "20261122T08:40:01+02",
        "2026-11-22T01:10:01.5-0530", "20261122T06:40:01,25Z",     "20261122T06:40:01-00:00",
    };
    int64_t epoch;

    for (unsigned i = 0; i < ARRAY_LEN(forms); i++) {
        epoch = 0;
        assert_true(datetime_parse(forms[i], strlen(forms[i]), &epoch));
        assert_int_equal(epoch, 1795329601);
    }
    assert_true(datetime_parse("20161231T23:59:60Z", 18, &epoch)); /* a leap second */
    assert_int_equal(epoch, 1483228800);
}

static void test_datetime_parse_refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "T",
        "20261122",
        "20261122 06:40:01Z",
        "2026112206:40:01Z",
        "20261322T06:40:01Z",
        "20260022T06:40:01Z",
        "20260229T06:40:01Z",
        "21000229T06:40:01Z",
        "20261100T06:40:01Z",
        "20261131T06:40:01Z",
        "20261122T24:00:00Z",
        "20261122T06:60:01Z",
        "20261122T06:40:61Z",
        "20261122T06:40Z",
        "20261122T06:4001Z",
        "20261122T0640:01Z",
        "2026-1122T06:40:01Z",
        "202611-22T06:40:01Z",
        "20261122T06:40:01Zx",
        "20261122T06:40:01 ",
        "20261122T06:40:01.Z",
        "20261122T06:40:01+",
        "20261122T06:40:01+2",
        "20261122T06:40:01+02:",
        "20261122T06:40:01+02:0",
        "20261122T06:40:01+24:00",
        "20261122T06:40:01+02:60",
        "20261122T06:40:01+02:00Z",
        "-0261122T06:40:01Z",
        "+2026-11-22T06:40:01Z",
        "2026\xc2\xb2-11-22T06:40:01Z",
    };
    int64_t epoch = 77;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        if (datetime_parse(bad[i], strlen(bad[i]), &epoch))
            fail_msg("accepted '%s'", bad[i]);
        assert_int_equal(epoch, 77);
    }
}

/* Never looks past the length it was given. */
static void test_datetime_parse_respects_length(void **state)
{
    static const char s[] = "20261122T06:40:01Z";
    int64_t epoch;

    for (size_t len = 0; len < sizeof(s) - 1; len++)
        assert_int_equal(datetime_parse(s, len, &epoch), len == 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datetime_format_table),          cmocka_unit_test(test_datetime_format_agrees_with_libc),
        cmocka_unit_test(test_datetime_parse_forms),           cmocka_unit_test(test_datetime_parse_refuses),
        cmocka_unit_test(test_datetime_parse_respects_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
