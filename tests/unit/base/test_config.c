#include "rpc/base/config.h"

#include <stdio.h>
#include <string.h>

#include "tests/lib/death.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

static const struct config_option options[] = {
    { .key = "name", .type = CONFIG_STRING, .fallback = "", .help = "What it is called" },
    { .key = "port", .type = CONFIG_INT, .fallback = "443", .help = "Where it listens", .min = 1, .max = 65535 },
    { .key = "offset", .type = CONFIG_INT, .fallback = "-7", .help = "Any number" },
    { .key = "verbose", .type = CONFIG_BOOL, .fallback = "false", .help = "Says more" },
    { 0 },
};

static void test_config_fallbacks(void **state)
{
    struct config *c = config_new(options);

    assert_string_equal(config_string(c, "name"), "");
    assert_int_equal(config_int(c, "port"), 443);
    assert_int_equal(config_int(c, "offset"), -7);
    assert_false(config_bool(c, "verbose"));
    config_free(c);
    config_free(NULL);
}

static void test_config_load_lines(void **state)
{
    AUTO_TEMPDIR t;
    struct config *c = config_new(options);

    tempdir_make(&t);
    const char *path = tempdir_write(&t, "xapi.conf",
                                     "# a comment\n\n   \t\r\n"
                                     "  name\t=  a b=c#d   # why\r\n"
                                     "port=80\n"
                                     "verbose = yes\n"
                                     "unknown = 5\n"
                                     "port = 8080");
    assert_null(config_load(t.arena, c, path, true));
    assert_string_equal(config_string(c, "name"), "a b=c#d");
    assert_int_equal(config_int(c, "port"), 8080);
    assert_true(config_bool(c, "verbose"));
    config_free(c);
}

static void test_config_load_missing_file(void **state)
{
    AUTO_ARENA a = arena_new();
    struct config *c = config_new(options);

    assert_null(config_load(a, c, "/nonexistent/xapi.conf", false));
    struct error *e = config_load(a, c, "/nonexistent/xapi.conf", true);
    assert_string_equal(e->params[0], "/nonexistent/xapi.conf: No such file or directory");
    config_free(c);
}

static void test_config_load_errors_name_the_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        { "\n\nport = 0\n", "xapi.conf:3: option 'port': '0' is not a number from 1 to 65535" },
        { "port = 65536\n", "xapi.conf:1: option 'port'" },
        { "port =\n", "xapi.conf:1: option 'port': '' is not" },
        { "port = 80x\n", "xapi.conf:1: option 'port'" },
        { "port = 99999999999999999999\n", "xapi.conf:1: option 'port'" },
        { "offset = +1\n", "xapi.conf:1: option 'offset'" },
        { "name = x\nverbose = maybe", "xapi.conf:2: option 'verbose': 'maybe' is not a true or false" },
        { "[section]\n", "xapi.conf:1: '[section]' is no \"key = value\"" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_TEMPDIR t;
        struct config *c = config_new(options);
        tempdir_make(&t);
        struct error *e = config_load(t.arena, c, tempdir_write(&t, "xapi.conf", cases[i].text), true);
        assert_non_null(e);
        if (strstr(e->params[0], cases[i].says) == NULL)
            fail_msg("'%s'", e->params[0]);
        config_free(c);
    }
}

static void test_config_set_bools(void **state)
{
    static const char *const yes[] = { "true", "yes", "on", "1" }, *const no[] = { "false", "no", "off", "0" };
    AUTO_ARENA a = arena_new();
    struct config *c = config_new(options);

    for (unsigned i = 0; i < ARRAY_LEN(yes); i++) {
        assert_null(config_set(a, c, "verbose", yes[i]));
        assert_true(config_bool(c, "verbose"));
        assert_null(config_set(a, c, "verbose", no[i]));
        assert_false(config_bool(c, "verbose"));
    }
    assert_non_null(config_set(a, c, "verbose", "TRUE"));
    assert_null(config_set(a, c, "no-such-option", "x"));
    config_free(c);
}

/* The sample is documentation, and a valid file that changes nothing. */
static void test_config_print_is_loadable(void **state)
{
    AUTO_TEMPDIR t;
    AUTO_TEXT sample = TEXT_INIT;
    struct config *c = config_new(options);

    tempdir_make(&t);
    config_print(c, &sample);
    assert_non_null(strstr(sample.bytes, "# Where it listens\n# (number from 1 to 65535)\n#port = 443\n"));
    assert_non_null(strstr(sample.bytes, "#name =\n"));
    assert_null(config_load(t.arena, c, tempdir_write(&t, "xapi.conf", sample.bytes), true));
    assert_int_equal(config_int(c, "port"), 443);
    config_free(c);
}

static void ask_unknown(void) { config_string(config_new(options), "nmae"); }
static void ask_wrong_type(void) { config_bool(config_new(options), "port"); }

static void test_config_misuse_stops(void **state)
{
    assert_true(death_of("unknown", "check failed"));
    assert_true(death_of("type", "check failed"));
}

static const struct deed deeds[] = { { "unknown", ask_unknown }, { "type", ask_wrong_type }, { 0 } };

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_fallbacks),         cmocka_unit_test(test_config_load_lines),
        cmocka_unit_test(test_config_load_missing_file), cmocka_unit_test(test_config_load_errors_name_the_line),
        cmocka_unit_test(test_config_set_bools),         cmocka_unit_test(test_config_print_is_loadable),
        cmocka_unit_test(test_config_misuse_stops),
    };

    death_main(argc, argv, deeds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
