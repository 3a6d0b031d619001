#include "rpc/base/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "rpc/base/child.h"
#include "rpc/base/work.h"
#include "tests/lib/unit.h"

static int disarm(void **state)
{
    fault_disarm(NULL);
    return 0;
}

static void test_fault_nothing_armed(void **state)
{
    assert_false(fault_hit("db.commit"));
    assert_null(fault_word("db.commit"));
}

static void test_fault_error_each_visit(void **state)
{
    assert_true(fault_arm("db.commit=error"));
    assert_true(fault_hit("db.commit"));
    assert_true(fault_hit("db.commit"));
    assert_false(fault_hit("db.commit2"));
    assert_false(fault_hit("db"));
    fault_disarm("db.commit");
    assert_false(fault_hit("db.commit"));
}

static void test_fault_nth_visit(void **state)
{
    assert_true(fault_arm("a=error@3,b=flip-page@1"));
    for (unsigned i = 1; i <= 5; i++)
        assert_int_equal(fault_hit("a"), i == 3);
    assert_string_equal(fault_word("b"), "flip-page");
    assert_true(fault_hit("b"));
    assert_false(fault_hit("b"));
}

static void test_fault_arm_adds(void **state)
{
    assert_true(fault_arm("a=error@1"));
    assert_true(fault_arm("a=other@2"));
    assert_true(fault_hit("a"));
    assert_true(fault_hit("a"));
    assert_false(fault_hit("a"));
}

static void test_fault_word_outlives_disarm(void **state)
{
    assert_true(fault_arm("a=word"));
    const char *word = fault_word("a");
    fault_disarm("a");
    assert_true(fault_arm("a=xxxx"));
    assert_string_equal(word, "word");
}

static void test_fault_malformed(void **state)
{
    static const char *const bad[] = { "",     "a",    "=error", "a=",      "a=@1",           "a=error@",  "a=error@0",
                                       "a=e,", ",a=e", "a=e@x",  "a=e@1.5", "a=e@9999999999", "good=e,bad" };

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        if (fault_arm(bad[i]))
            fail_msg("accepted '%s'", bad[i]);
        assert_false(fault_armed_); /* nor is a part of it armed */
    }
    for (unsigned i = 0; i < 1000; i++) /* the table is finite */
        if (!fault_arm("a=e"))
            return;
    fail();
}

static unsigned n_passed;

static void *pass_through(void *arg)
{
    bool fails = fault_hit("gate");

    __atomic_add_fetch(&n_passed, 1, __ATOMIC_SEQ_CST);
    return fails ? &n_passed : NULL;
}

static void test_fault_stop_until_disarmed(void **state)
{
    void *fails;

    n_passed = 0;
    assert_true(fault_arm("gate=stop,other=error"));
    pthread_t stopped = thread_start("stopped", pass_through, NULL);
    fault_disarm("other");
    assert_int_equal(__atomic_load_n(&n_passed, __ATOMIC_SEQ_CST), 0);
    fault_disarm("gate");
    pthread_join(stopped, &fails);
    assert_null(fails);
    assert_int_equal(n_passed, 1);
}

static void test_fault_from_environment_crashes(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *const argv[] = { "/proc/self/exe", "--visit", NULL };
    const char *const env[] = { "FAULTS=demo=crash@2", NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output;
    int status;

    spec.argv = argv;
    spec.env = env;
    assert_int_equal(child_run(a, &spec, 20000, 1000, &status, &output), 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void test_fault_list(void **state)
{
    AUTO_TEXT text = TEXT_INIT;

    fault_list(&text);
    assert_int_equal(text.len, 0);
    assert_true(fault_arm("demo=error@2,other=odd"));
    assert_false(fault_hit("demo"));
    fault_list(&text);
    assert_string_equal(text.bytes, "demo=error 1\nother=odd 0\n");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_fault_nothing_armed, disarm),
        cmocka_unit_test_teardown(test_fault_error_each_visit, disarm),
        cmocka_unit_test_teardown(test_fault_nth_visit, disarm),
        cmocka_unit_test_teardown(test_fault_arm_adds, disarm),
        cmocka_unit_test_teardown(test_fault_word_outlives_disarm, disarm),
        cmocka_unit_test_teardown(test_fault_malformed, disarm),
        cmocka_unit_test_teardown(test_fault_list, disarm),
        cmocka_unit_test_teardown(test_fault_stop_until_disarmed, disarm),
        cmocka_unit_test_teardown(test_fault_from_environment_crashes, disarm),
    };

    if (argc == 2 && strcmp(argv[1], "--visit") == 0) {
        fault_init_from_env();
        return fault_hit("demo") || fault_hit("demo") ? 3 : 4;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
