#include "rpc/base/call.h"

#include <poll.h>

#include "rpc/base/work.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"

static bool readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

static void test_cancel_fd_before_raise(void **state)
{
    struct cancel *c = cancel_new();
    int fd = cancel_fd(c);

    assert_true(fd >= 0);
    assert_int_equal(cancel_fd(c), fd);
    assert_false(cancel_raised(c));
    assert_false(readable(fd));
    cancel_raise(c);
    cancel_raise(c);
    assert_true(cancel_raised(c));
    assert_true(readable(fd));
    assert_true(readable(fd)); /* and stays so */
    cancel_unref(c);
}

static void test_cancel_fd_after_raise(void **state)
{
    struct cancel *c = cancel_new();

    cancel_raise(c);
    assert_true(readable(cancel_fd(c)));
    cancel_unref(c);
    cancel_unref(NULL);
}

static void *raise_it(void *c)
{
    cancel_raise(c);
    cancel_unref(c);
    return NULL;
}

static void *ask_fd(void *c) { return (void *)(intptr_t)cancel_fd(c); }

/* Raising while two threads ask for the fd: everyone gets the same one, and it ends up readable. */
static void test_cancel_race(void **state)
{
    for (unsigned i = 0; i < 200; i++) {
        struct cancel *c = cancel_new();
        void *fd;
        pthread_t other = thread_start("raise", raise_it, cancel_ref(c));
        pthread_t third = thread_start("ask", ask_fd, c);
        int mine = cancel_fd(c);
        pthread_join(other, NULL);
        pthread_join(third, &fd);
        assert_int_equal((intptr_t)fd, mine);
        assert_true(readable(mine));
        cancel_unref(c);
    }
}

static void test_call_cancelled_by_flag_or_deadline(void **state)
{
    AUTO_FAKECALL f;
    fakecall_init(&f);

    assert_false(call_cancelled(&f.call));
    f.call.deadline_ms = 50;
    clock_fake_advance_ms(&f.clock, 49);
    assert_false(call_cancelled(&f.call));
    clock_fake_advance_ms(&f.clock, 1);
    assert_true(call_cancelled(&f.call));
    f.call.deadline_ms = 0;
    assert_false(call_cancelled(&f.call));
    cancel_raise(f.call.cancel);
    assert_true(call_cancelled(&f.call));
}

static void test_call_without_cancel(void **state)
{
    struct call c = { .clock = &clock_real };

    assert_false(call_cancelled(&c));
    call_progress(&c, 0.5); /* nobody listens */
}

static void test_call_progress(void **state)
{
    AUTO_FAKECALL f;
    fakecall_init(&f);

    call_progress(&f.call, 0.25);
    assert_int_equal(f.n_progress, 1);
    assert_true(f.progress == 0.25);
}

static void *current_of_thread(void *arg) { return call_current(); }

static void test_call_enter_is_per_thread(void **state)
{
    void *other;
    AUTO_FAKECALL f;
    fakecall_init(&f);

    assert_ptr_equal(call_current(), &f.call);
    pthread_join(thread_start("other", current_of_thread, NULL), &other);
    assert_null(other);
    assert_ptr_equal(call_enter(NULL), &f.call);
    assert_null(call_current());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel_fd_before_raise),
        cmocka_unit_test(test_cancel_fd_after_raise),
        cmocka_unit_test(test_cancel_race),
        cmocka_unit_test(test_call_cancelled_by_flag_or_deadline),
        cmocka_unit_test(test_call_without_cancel),
        cmocka_unit_test(test_call_progress),
        cmocka_unit_test(test_call_enter_is_per_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
