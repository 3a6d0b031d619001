#include "storage/tapd/spec.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

static int read_text(struct tempdir *d, const char *text, struct spec *s) { return spec_read(tempdir_write(d, "spec", text), s); }

static void test_defaults_and_all_words(void **state)
{
    AUTO_TEMPDIR d;
    struct spec s;

    tempdir_make(&d);
    assert_int_equal(read_text(&d, "spec format=raw path=/x\n", &s), 0);
    assert_string_equal(s.key, "");
    assert_int_equal(s.state, SPEC_INACTIVE);
    assert_false(s.read_only || s.cached);
    assert_int_equal(s.size, 0);
    spec_release(&s);
    assert_int_equal(read_text(&d, "spec key=a/b format=vhd path=/with%20blank read_only=1 cached=true size=1024 state=paused cbt=/log "
                                   "mirror=raw:/y mirror_options=copy%20proof%3D1 users=a,b throttle_bytes=5 unknown=word",
                               &s),
                     0);
    assert_string_equal(s.path, "/with blank");
    assert_string_equal(s.mirror_options, "copy proof=1");
    assert_int_equal(s.state, SPEC_PAUSED);
    assert_true(s.read_only && s.cached);
    assert_int_equal(s.throttle_bytes, 5);
    spec_release(&s);
}

static void test_written_is_read(void **state)
{
    AUTO_TEMPDIR d;
    struct spec s, again, copy;

    tempdir_make(&d);
    assert_int_equal(read_text(&d, "spec key=k format=vhd path=%25%0A%20 size=512 state=active users=u cbt=c", &s), 0);
    for (int durable = 0; durable < 2; durable++) {
        const char *path = tempdir_file(&d, durable ? "one" : "two");
        assert_int_equal(spec_write(path, &s, durable), 0);
        assert_int_equal(spec_read(path, &again), 0);
        assert_string_equal(again.path, "%\n ");
        assert_int_equal(again.state, SPEC_ACTIVE);
        assert_string_equal(again.cbt, "c");
        spec_release(&again);
    }
    spec_copy(&copy, &s);
    spec_set_string(&copy.path, "/other");
    assert_string_equal(s.path, "%\n ");
    spec_release(&copy);
    spec_release(&s);
}

static void test_malformed(void **state)
{
    static const char *const bad[] = {
        "",
        "spec",
        "spec format=raw",
        "spec path=/x",
        "spec format= path=/x",
        "status format=raw path=/x",
        "spec format=raw path=/x size=-512",
        "spec format=raw path=/x size=100",
        "spec format=raw path=/x size=many",
        "spec format=raw path=/x state=asleep",
        "spec format=raw path=/x\nspec format=raw path=/y\n",
    };
    AUTO_TEMPDIR d;
    struct spec s;

    tempdir_make(&d);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (read_text(&d, bad[i], &s) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(spec_read(tempdir_file(&d, "none"), &s), -ENOENT);
}

/* What cannot be written whole leaves the old one. */
static void test_a_failed_write_keeps_the_old(void **state)
{
    AUTO_TEMPDIR d;
    struct spec s;
    AUTO_FREE char *huge = xcalloc(1, 20000);

    tempdir_make(&d);
    const char *path = tempdir_write(&d, "spec", "spec format=raw path=/x");
    assert_int_equal(spec_read(path, &s), 0);
    memset(huge, 'x', 19999);
    spec_set_string(&s.path, huge);
    assert_int_equal(spec_write(path, &s, false), -E2BIG);
    assert_string_equal(tempdir_read(&d, "spec"), "spec format=raw path=/x");
    assert_int_equal(spec_write("/proc/none/spec", &s, true), -E2BIG);
    spec_set_string(&s.path, "/y");
    assert_true(spec_write("/proc/none/spec", &s, true) < 0);
    assert_true(spec_write("/proc/none/spec", &s, false) < 0);
    spec_release(&s);
}

static void test_arguments(void **state)
{
    const struct member members[] = { member_of("a", value_string("12")), member_of("b", value_string("x")), member_of("c", value_string("")),
                                      member_of("d", value_string("0")) };
    struct value v = value_map(members, 4);

    assert_int_equal(argument_int(&v, "a", 0), 12);
    assert_true(argument_int(&v, "b", 0) == INT64_MIN);
    assert_int_equal(argument_int(&v, "c", 7), 7);
    assert_int_equal(argument_int(&v, "none", 8), 8);
    assert_false(argument_bool(&v, "d", true));
    assert_true(argument_bool(&v, "c", true));
    assert_true(argument_bool(&v, "none", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_and_all_words),
        cmocka_unit_test(test_written_is_read),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_a_failed_write_keeps_the_old),
        cmocka_unit_test(test_arguments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
