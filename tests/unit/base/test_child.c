#include "rpc/base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/fd.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define TIMEOUT_MS 20000

/* Runs a line of shell. */
static const char *shell(struct arena *a, struct child_spec spec, const char *line, int *status_r)
{
    const char *const argv[] = { "sh", "-c", line, NULL };
    char *output;

    spec.argv = argv;
    assert_int_equal(child_run(a, &spec, TIMEOUT_MS, 65536, status_r, &output), 0);
    return output;
}

static const struct child_spec plain = CHILD_SPEC_INIT;

static void test_child_run_output_and_status(void **state)
{
    AUTO_ARENA a = arena_new();
    int status;

    assert_string_equal(shell(a, plain, "echo out; echo err >&2; exit 3", &status), "out\nerr\n");
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_string_equal(shell(a, plain, "cat", &status), ""); /* its input is empty */
    assert_int_equal(status, 0);
}

static void test_child_run_limits_output(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *const argv[] = { "head", "-c", "1000000", "/dev/zero", NULL };
    struct child_spec spec = plain;
    char *output;
    int status;

    spec.argv = argv;
    spec.stderr_fd = STDERR_FILENO;
    assert_int_equal(child_run(a, &spec, TIMEOUT_MS, 10, &status, &output), 0);
    assert_int_equal(status, 0);
    assert_memory_equal(output, "\0\0\0\0\0\0\0\0\0\0", 11);
}

static void test_child_run_kills_the_group(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *const argv[] = { "sh", "-c", "echo begun; sh -c 'echo $$; while :; do :; done'", NULL };
    struct child_spec spec = plain;
    char *output;
    int status;

    spec.argv = argv;
    assert_int_equal(child_run(a, &spec, 200, 1000, &status, &output), -ETIMEDOUT);
    assert_true(WIFSIGNALED(status));
    assert_memory_equal(output, "begun\n", 6);
    pid_t grandchild = (pid_t)strtol(output + 6, NULL, 10);
    assert_true(grandchild > 1);
    while (child_is(grandchild, child_start_time(grandchild)))
        ; /* it was killed too, and init takes it */
}

/* A daemon that keeps our pipe must not keep us. */
static void test_child_run_ends_with_the_child(void **state)
{
    AUTO_ARENA a = arena_new();
    int64_t start = clock_ms(&clock_real);
    int status;

    const char *output = shell(a, plain, "(exec 5<&0; sleep 60) & echo $!", &status);
    assert_true(clock_ms(&clock_real) - start < 15000);
    pid_t left = (pid_t)strtol(output, NULL, 10);
    assert_true(left > 1);
    kill(left, SIGKILL);
}

static void test_child_start_unknown_program(void **state)
{
    const char *const argv[] = { "/nonexistent/program", NULL };
    struct child_spec spec = plain;
    pid_t pid;

    spec.argv = argv;
    assert_int_equal(child_start(&spec, &pid), -ENOENT);
}

static void test_child_passes_only_what_it_should(void **state)
{
    AUTO_TEMPDIR t;
    struct child_spec spec = plain;
    int status;

    tempdir_make(&t);
    AUTO_FD one = open(tempdir_write(&t, "one", "1"), O_RDONLY | O_CLOEXEC);
    AUTO_FD two = open(tempdir_write(&t, "two", "2"), O_RDONLY | O_CLOEXEC);
    const int fds[] = { two, one, two };
    spec.pass_fds = fds;
    spec.n_pass = 3;
    spec.stdin_fd = one;
    const char *output = shell(t.arena, spec,
                               "readlink /proc/self/fd/0 /proc/self/fd/3 /proc/self/fd/4 /proc/self/fd/5; "
                               "for f in /proc/$$/fd/*; do echo ${f##*/}; done",
                               &status);
    const char *expected = arena_printf(t.arena, "%s/one\n%s/two\n%s/one\n%s/two\n0\n1\n2\n3\n4\n5\n", t.path, t.path,
                                        t.path, t.path);
    assert_memory_equal(output, expected, strlen(expected));
}

/* Sources that are themselves targets of another: 3 and 4 change places. */
static void test_child_swaps_fds(void **state)
{
    AUTO_TEMPDIR t;
    struct child_spec spec = plain;
    int status;

    tempdir_make(&t);
    AUTO_FD one = open(tempdir_write(&t, "one", "1"), O_RDONLY | O_CLOEXEC);
    AUTO_FD two = open(tempdir_write(&t, "two", "2"), O_RDONLY | O_CLOEXEC);
    const int fds[] = { two, one };
    spec.pass_fds = fds;
    spec.n_pass = 2;
    const char *output = shell(t.arena, spec, "cat <&3; cat <&4", &status);
    assert_string_equal(output, "21");
}

static void test_child_environment_cwd_session(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *const env[] = { "PATH=/usr/bin:/bin", "WHAT=this", NULL };
    struct child_spec spec = plain;
    int status;

    spec.env = env;
    spec.cwd = "/proc";
    spec.own_session = true;
    const char *output = shell(a, spec, "echo $WHAT; pwd; echo $$; cut -d' ' -f6 /proc/self/stat", &status);
    char what[16], cwd[16];
    int pid, session;
    assert_int_equal(sscanf(output, "%15s %15s %d %d", what, cwd, &pid, &session), 4);
    assert_string_equal(what, "this");
    assert_string_equal(cwd, "/proc");
    assert_int_equal(pid, session);
}

static void test_child_signals_are_fresh(void **state)
{
    AUTO_ARENA a = arena_new();
    sigset_t all, before;
    int status;

    sigfillset(&all);
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const char *output = shell(a, plain, "grep -E 'SigBlk|SigIgn' /proc/self/status", &status);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    unsigned long long blocked, ignored;
    assert_int_equal(sscanf(output, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
    assert_int_equal(blocked, 0);
    assert_int_equal(ignored & 0x7fffffff, 0); /* 32 and 33 are libc's own */
}

static void test_child_wait_times_out(void **state)
{
    const char *const argv[] = { "sleep", "60", NULL };
    struct child_spec spec = plain;
    pid_t pid;
    int status;

    spec.argv = argv;
    assert_int_equal(child_start(&spec, &pid), 0);
    unsigned long long started = child_start_time(pid);
    assert_true(started > 0);
    assert_true(child_is(pid, started));
    assert_false(child_is(pid, started + 1));
    assert_int_equal(child_wait(pid, 1, &status), -ETIMEDOUT);
    kill(pid, SIGKILL);
    assert_int_equal(child_wait(pid, TIMEOUT_MS, &status), 0);
    assert_true(WIFSIGNALED(status));
    assert_false(child_is(pid, started));
    assert_int_equal(child_start_time(pid), 0);
    assert_int_equal(child_wait(pid, -1, &status), -ECHILD);
    assert_int_equal(child_wait(pid, 1, &status), -ECHILD);
}

static void test_child_is_self(void **state)
{
    assert_true(child_is(getpid(), child_start_time(getpid())));
    assert_false(child_is(0, 0));
    assert_int_equal(child_start_time(-1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_child_run_output_and_status),
        cmocka_unit_test(test_child_run_limits_output),
        cmocka_unit_test(test_child_run_kills_the_group),
        cmocka_unit_test(test_child_run_ends_with_the_child),
        cmocka_unit_test(test_child_start_unknown_program),
        cmocka_unit_test(test_child_passes_only_what_it_should),
        cmocka_unit_test(test_child_swaps_fds),
        cmocka_unit_test(test_child_environment_cwd_session),
        cmocka_unit_test(test_child_signals_are_fresh),
        cmocka_unit_test(test_child_wait_times_out),
        cmocka_unit_test(test_child_is_self),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
