/* storage/tap.c against tapds that behave and that do not (tests/lib/fake_tapd.py). */
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "storage/tap.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define FAKE "tests/lib/fake_tapd.py"
#define ANSWER_MS 2000

struct world {
    struct fakecall fake;
    struct tempdir dir;
    struct call *c;
    struct taps *taps;
};

static void world_open(struct world *w)
{
    const struct taps_options options = { .dir = tempdir_file(&w->dir, "t"), .program = FAKE, .clock = &clock_real, .answer_ms = ANSWER_MS };

    w->taps = taps_new(&options);
}

static void world_init(struct world *w)
{
    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
    w->c = &w->fake.call;
    world_open(w);
}

static void ok(struct world *w, struct error *error)
{
    if (error != NULL)
        fail_msg("%s", error_text(w->c->arena, error));
}

static void fails(struct error *error, const char *text)
{
    assert_non_null(error);
    assert_string_equal(error->code, "SR_BACKEND_FAILURE");
    assert_string_equal(error->params[0], "tapd");
    if (strstr(error->params[2], text) == NULL)
        fail_msg("'%s' does not say '%s'", error->params[2], text);
}

/* Nothing may be left, neither a process nor a directory. */
static void world_release(struct world *w)
{
    struct value list = taps_list(w->taps, w->c->arena);

    for (unsigned i = 0; i < list.len; i++) {
        const struct value *users = value_get(&list.items[i], "users");
        for (unsigned k = 0; k < users->len; k++)
            ok(w, tap_detach(w->c, w->taps, value_get_string(&list.items[i], "key", ""), users->items[k].s));
    }
    assert_int_equal(taps_list(w->taps, w->c->arena).len, 0);
    taps_free(w->taps);
    assert_int_not_equal(access(tempdir_file(&w->dir, "t/1"), F_OK), 0);
    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
}

static struct error *try_attach(struct world *w, const char *key, const char *path, bool read_only, const char *user, const char **uri_r)
{
    const struct tap_spec spec = { .key = key, .format = "raw", .path = path, .read_only = read_only, .size = 4096, .cbt = "" };

    return tap_attach(w->c, w->taps, &spec, user, uri_r);
}

static const char *attach(struct world *w, const char *key, const char *path, const char *user)
{
    const char *uri = NULL;

    ok(w, try_attach(w, key, path, false, user, &uri));
    return uri;
}

static const char *ask(struct world *w, const char *key, const char *word)
{
    struct value status;

    ok(w, tap_call(w->c, w->taps, key, "status", NULL, -1, &status));
    return value_get_string(&status, word, "");
}

static pid_t pid_of(struct world *w, const char *key)
{
    struct value list = taps_list(w->taps, w->c->arena);

    for (unsigned i = 0; i < list.len; i++)
        if (strcmp(value_get_string(&list.items[i], "key", ""), key) == 0)
            return (pid_t)value_get_int(&list.items[i], "pid", 0);
    return 0;
}

static bool lives(pid_t pid) { return pid > 0 && child_is(pid, child_start_time(pid)); }

static void test_life(void **state)
{
    struct world w;

    world_init(&w);
    const char *uri = attach(&w, "sr/a", "disk", "vbd-1");
    assert_non_null(strstr(uri, "nbd+unix://"));
    assert_true(tap_exists(w.taps, "sr/a"));
    assert_false(tap_exists(w.taps, "sr/b"));
    assert_string_equal(ask(&w, "sr/a", "state"), "inactive");
    pid_t pid = pid_of(&w, "sr/a");
    assert_true(lives(pid));
    ok(&w, tap_call(w.c, w.taps, "sr/a", "activate", NULL, -1, NULL));
    assert_string_equal(ask(&w, "sr/a", "state"), "active");
    assert_string_equal(attach(&w, "sr/a", "disk", "vbd-1"), uri); /* again */
    assert_string_equal(attach(&w, "sr/a", "disk", "vbd-2"), uri);
    ok(&w, tap_detach(w.c, w.taps, "sr/a", "vbd-1"));
    ok(&w, tap_detach(w.c, w.taps, "sr/a", "vbd-3")); /* unknown */
    ok(&w, tap_detach(w.c, w.taps, "sr/z", "vbd-3"));
    assert_true(lives(pid));
    ok(&w, tap_detach(w.c, w.taps, "sr/a", "vbd-2"));
    assert_false(tap_exists(w.taps, "sr/a"));
    assert_false(lives(pid));
    fails(tap_call(w.c, w.taps, "sr/a", "status", NULL, -1, NULL), "no tapd serves sr/a");
    world_release(&w);
}

static void test_one_that_does_not_start_leaves_nothing(void **state)
{
    struct world w;
    const char *uri;

    world_init(&w);
    fails(try_attach(&w, "sr/a", "fail", false, "vbd-1", &uri), "told to fail");
    assert_false(tap_exists(w.taps, "sr/a"));
    assert_true(fault_arm("tap.start=error"));
    fails(try_attach(&w, "sr/a", "disk", false, "vbd-1", &uri), "fault injected");
    fault_disarm(NULL);
    attach(&w, "sr/a", "disk", "vbd-1");
    world_release(&w);
}

static void await_other_process(struct world *w, const char *key, pid_t old)
{
    for (unsigned i = 0; i < 1000; i++) {
        pid_t pid = pid_of(w, key);
        if (pid > 0 && pid != old && lives(pid))
            return;
        assert_int_equal(poll(NULL, 0, 10), 0);
    }
    fail_msg("it was not started again");
}

static void test_a_killed_one_is_started_again_as_it_was(void **state)
{
    struct world w;

    world_init(&w);
    attach(&w, "sr/a", "disk", "vbd-1");
    ok(&w, tap_call(w.c, w.taps, "sr/a", "activate", NULL, -1, NULL));
    for (int i = 0; i < 2; i++) {
        pid_t pid = pid_of(&w, "sr/a");
        kill(pid, SIGKILL);
        await_other_process(&w, "sr/a", pid);
        assert_string_equal(ask(&w, "sr/a", "state"), "active");
    }
    /* a call that comes before the thread has seen it waits for the new one */
    kill(pid_of(&w, "sr/a"), SIGKILL);
    assert_string_equal(ask(&w, "sr/a", "state"), "active");
    world_release(&w);
}

static void test_found_again(void **state)
{
    struct world w;

    world_init(&w);
    attach(&w, "sr/a", "disk", "vbd-1");
    attach(&w, "sr/b", "disk", "vbd-2");
    attach(&w, "sr/b", "disk", "vbd-3");
    pid_t a = pid_of(&w, "sr/a"), b = pid_of(&w, "sr/b");
    taps_free(w.taps);
    assert_true(lives(a) && lives(b));
    kill(b, SIGKILL);
    world_open(&w);
    assert_int_equal(pid_of(&w, "sr/a"), a);
    assert_string_equal(ask(&w, "sr/a", "state"), "inactive");
    await_other_process(&w, "sr/b", b);
    ok(&w, tap_detach(w.c, w.taps, "sr/b", "vbd-2"));
    assert_true(tap_exists(w.taps, "sr/b"));
    ok(&w, tap_detach(w.c, w.taps, "sr/b", "vbd-3"));
    assert_false(tap_exists(w.taps, "sr/b"));
    world_release(&w);
}

static void test_after_a_reboot_nothing_is_started(void **state)
{
    struct world w;

    world_init(&w);
    attach(&w, "sr/a", "disk", "vbd-1");
    attach(&w, "sr/b", "target", "vbd-2"); /* as if its mirror had switched */
    ok(&w, tap_lead(w.c, w.taps, "sr/b", "sr2/c", "target"));
    pid_t a = pid_of(&w, "sr/a"), b = pid_of(&w, "sr/b");
    taps_free(w.taps);
    kill(a, SIGKILL);
    kill(b, SIGKILL);
    tempdir_write(&w.dir, "t/boot", "another");
    world_open(&w);
    assert_int_equal(taps_list(w.taps, w.c->arena).len, 0);
    assert_false(tap_exists(w.taps, "sr/a"));
    assert_string_equal(tap_successor(w.taps, w.c->arena, "sr/b"), "sr2/c");
    attach(&w, "sr2/c", "disk", "vbd-2");
    assert_string_equal(ask(&w, "sr2/c", "path"), "disk");
    world_release(&w);
}

static void test_no_answer_is_an_error_in_time(void **state)
{
    struct world w;

    world_init(&w);
    attach(&w, "sr/a", "mute", "vbd-1");
    pid_t pid = pid_of(&w, "sr/a");
    fails(tap_call(w.c, w.taps, "sr/a", "activate", NULL, -1, NULL), "has not answered 'activate'");
    assert_string_equal(ask(&w, "sr/a", "state"), "inactive"); /* on a new connection */
    assert_int_equal(pid_of(&w, "sr/a"), pid);
    struct call cancelled = *w.c;
    cancelled.cancel = cancel_new();
    cancel_raise(cancelled.cancel);
    struct error *error = tap_call(&cancelled, w.taps, "sr/a", "activate", NULL, -1, NULL);
    assert_true(error_is(error, "TASK_CANCELLED"));
    cancel_unref(cancelled.cancel);
    attach(&w, "sr/n", "nonsense", "vbd-1");
    fails(tap_call(w.c, w.taps, "sr/n", "activate", NULL, -1, NULL), "nonsense");
    world_release(&w);
}

static void test_one_that_lives_without_its_socket_is_replaced(void **state)
{
    struct world w;

    world_init(&w);
    attach(&w, "sr/a", "deaf", "vbd-1");
    pid_t pid = pid_of(&w, "sr/a");
    struct error *error = tap_call(w.c, w.taps, "sr/a", "activate", NULL, -1, NULL);
    assert_non_null(error); /* the new one does the same */
    assert_false(lives(pid));
    world_release(&w);
}

static void test_a_writer_joins_a_reader(void **state)
{
    struct world w;
    const char *uri, *again;

    world_init(&w);
    ok(&w, try_attach(&w, "sr/a", "disk", true, "reader", &uri));
    ok(&w, tap_call(w.c, w.taps, "sr/a", "activate", NULL, -1, NULL));
    assert_string_equal(ask(&w, "sr/a", "read_only"), "1");
    ok(&w, try_attach(&w, "sr/a", "disk", false, "writer", &again));
    assert_string_equal(uri, again);
    assert_string_equal(ask(&w, "sr/a", "read_only"), "0");
    assert_string_equal(ask(&w, "sr/a", "state"), "active");
    ok(&w, try_attach(&w, "sr/a", "disk", true, "reader 2", &again));
    assert_string_equal(ask(&w, "sr/a", "read_only"), "0");
    world_release(&w);
}

static void test_rekey(void **state)
{
    struct world w;

    world_init(&w);
    const char *uri = attach(&w, "sr/a", "disk", "vbd-1"), *to, *path;
    ok(&w, tap_lead(w.c, w.taps, "sr/a", "sr/b", "where"));
    assert_true(tap_is_target(w.taps, "sr/b"));
    assert_true(tap_leads_to(w.taps, w.c->arena, "sr/a", &to, &path));
    assert_string_equal(path, "where");
    assert_true(fault_arm("tap.rekey=error"));
    fails(tap_rekey(w.c, w.taps, "sr/a", "sr/b"), "fault injected");
    fault_disarm(NULL);
    attach(&w, "sr/c", "disk", "vbd-2");
    fails(tap_rekey(w.c, w.taps, "sr/a", "sr/c"), "has a tapd already");
    ok(&w, tap_rekey(w.c, w.taps, "sr/a", "sr/b"));
    assert_false(tap_exists(w.taps, "sr/a"));
    assert_false(tap_is_target(w.taps, "sr/b"));
    assert_string_equal(tap_successor(w.taps, w.c->arena, "sr/a"), "sr/b");
    assert_string_equal(attach(&w, "sr/b", "disk", "vbd-1"), uri);
    taps_free(w.taps);
    world_open(&w);
    assert_true(tap_exists(w.taps, "sr/b"));
    assert_string_equal(tap_successor(w.taps, w.c->arena, "sr/a"), "sr/b");
    world_release(&w);
}

struct heard { _Atomic int n; };
static void hear(void *ctx, const char *key)
{
    struct heard *h = ctx;

    atomic_fetch_add(&h->n, 1);
}

static void await_heard(struct heard *h, int n)
{
    for (unsigned i = 0; i < 1000 && atomic_load(&h->n) < n; i++)
        assert_int_equal(poll(NULL, 0, 10), 0);
    assert_true(atomic_load(&h->n) >= n);
}

static void test_watch(void **state)
{
    struct world w;
    struct heard heard = { 0 };
    const struct member args[] = { member_of("format", value_string("raw")), member_of("path", value_string("lost")) };
    struct value v = value_map(args, 2);

    world_init(&w);
    taps_watch(w.taps, hear, &heard);
    attach(&w, "sr/a", "disk", "vbd-1");
    kill(pid_of(&w, "sr/a"), SIGKILL);
    await_heard(&heard, 1);
    ok(&w, tap_call(w.c, w.taps, "sr/a", "mirror-start", &v, -1, NULL));
    await_heard(&heard, 2);
    assert_string_equal(ask(&w, "sr/a", "mirror"), "failed");
    world_release(&w);
}

static void test_what_is_half_there_is_cleared_away(void **state)
{
    struct world w;

    world_init(&w);
    taps_free(w.taps);
    assert_int_equal(mkdir(tempdir_file(&w.dir, "t/7"), 0700), 0);
    tempdir_write(&w.dir, "t/7/spec", "spec format=raw path=x\n");
    assert_int_equal(mkdir(tempdir_file(&w.dir, "t/8"), 0700), 0);
    tempdir_write(&w.dir, "t/8/owner", "owner key=sr/a users=\n");
    world_open(&w);
    assert_int_not_equal(access(tempdir_file(&w.dir, "t/7"), F_OK), 0);
    assert_int_not_equal(access(tempdir_file(&w.dir, "t/8"), F_OK), 0);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_one_that_does_not_start_leaves_nothing),
        cmocka_unit_test(test_a_killed_one_is_started_again_as_it_was),
        cmocka_unit_test(test_found_again),
        cmocka_unit_test(test_after_a_reboot_nothing_is_started),
        cmocka_unit_test(test_no_answer_is_an_error_in_time),
        cmocka_unit_test(test_one_that_lives_without_its_socket_is_replaced),
        cmocka_unit_test(test_a_writer_joins_a_reader),
        cmocka_unit_test(test_rekey),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_what_is_half_there_is_cleared_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
