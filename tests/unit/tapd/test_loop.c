#include "storage/tapd/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/base/attributes.h"
#include "tests/lib/unit.h"

struct watcher {
    struct loop_fd fd;
    struct loop *loop;
    struct watcher *other; /* is removed in our callback */
    unsigned calls;
    bool nest;
};

static void watched(struct loop_fd *f, uint32_t events)
{
    struct watcher *w = CONTAINER_OF(f, struct watcher, fd);
    uint64_t n;

    assert_true((events & EPOLLIN) != 0);
    w->calls++;
    if (w->nest) {
        w->nest = false;
        loop_turn(w->loop, 0);
    }
    if (w->other != NULL)
        loop_remove(w->loop, &w->other->fd);
    (void)!read(f->fd, &n, sizeof(n));
}

static struct watcher watcher_of(struct loop *l)
{
    struct watcher w = { .fd = { .fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC), .ready = watched, .events = EPOLLIN }, .loop = l };

    return w;
}

static void test_ready_descriptors_are_called(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct watcher w = watcher_of(l);

    loop_add(l, &w.fd);
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_int_equal(w.calls, 1);
    loop_change(l, &w.fd, 0);
    uint64_t one = 1;
    assert_int_equal(write(w.fd.fd, &one, sizeof(one)), sizeof(one));
    loop_turn(l, 0);
    assert_int_equal(w.calls, 1);
    loop_change(l, &w.fd, EPOLLIN);
    loop_turn(l, 0);
    assert_int_equal(w.calls, 2);
    loop_remove(l, &w.fd);
    close(w.fd.fd);
    loop_free(l);
}

static void test_removed_in_the_same_turn_is_not_called(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct watcher a = watcher_of(l), b = watcher_of(l);

    a.other = &b;
    b.other = &a;
    loop_add(l, &a.fd);
    loop_add(l, &b.fd);
    loop_turn(l, 0);
    assert_int_equal(a.calls + b.calls, 1);
    close(a.fd.fd);
    close(b.fd.fd);
    loop_free(l);
}

/* The inner turn serves the other one; what the outer still holds of it comes to nothing when it is removed. */
static void test_turns_nest(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct watcher a = watcher_of(l), b = watcher_of(l);

    a.nest = b.nest = true;
    loop_add(l, &a.fd);
    loop_add(l, &b.fd);
    loop_turn(l, 0);
    assert_true(a.calls >= 1 && b.calls >= 1);
    loop_remove(l, &a.fd);
    loop_remove(l, &b.fd);
    close(a.fd.fd);
    close(b.fd.fd);
    loop_free(l);
}

struct ticker {
    struct loop_timer timer;
    struct loop *loop;
    int64_t again_us;
    unsigned order, fired;
};
static unsigned ticks;

static void ticked(struct loop_timer *t)
{
    struct ticker *k = CONTAINER_OF(t, struct ticker, timer);

    k->fired++;
    k->order = ++ticks;
    if (k->again_us > 0)
        loop_timer_set(k->loop, t, loop_now_us(k->loop) + k->again_us);
}

static void test_timers_fire_in_order_and_once(void **state)
{
    struct clock_fake clock;
    clock_fake_init(&clock, 0);
    clock.now_us = 1000;
    struct loop *l = loop_new(&clock.clock);
    struct ticker late = { .timer.fired = ticked }, early = { .timer.fired = ticked }, never = { .timer.fired = ticked };

    ticks = 0;
    loop_timer_set(l, &late.timer, 5000);
    loop_timer_set(l, &never.timer, 4000);
    loop_timer_set(l, &early.timer, 9000);
    loop_timer_set(l, &early.timer, 3000); /* replaces */
    loop_timer_clear(l, &never.timer);
    loop_turn(l, 0);
    assert_int_equal(ticks, 0);
    clock_fake_advance_ms(&clock, 10);
    loop_turn(l, 0);
    loop_turn(l, 0);
    assert_int_equal(early.order, 1);
    assert_int_equal(late.order, 2);
    assert_int_equal(ticks, 2);
    assert_int_equal(early.timer.at_us, 0);
    loop_free(l);
}

static void test_timer_may_set_itself_again(void **state)
{
    struct clock_fake clock;
    clock_fake_init(&clock, 0);
    clock.now_us = 1;
    struct loop *l = loop_new(&clock.clock);
    struct ticker k = { .timer.fired = ticked, .loop = l, .again_us = 1000 };

    loop_timer_set(l, &k.timer, 1000);
    for (unsigned i = 0; i < 5; i++) {
        clock_fake_advance_ms(&clock, 1);
        loop_turn(l, 0);
    }
    assert_int_equal(k.fired, 5);
    loop_timer_clear(l, &k.timer);
    loop_free(l);
}

static void test_waits_for_the_next_timer(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct ticker k = { .timer.fired = ticked };

    loop_timer_set(l, &k.timer, loop_now_us(l) + 2000);
    while (k.fired == 0)
        loop_turn(l, -1); /* would wait for ever without it */
    loop_free(l);
}

struct worker {
    struct loop_idle idle;
    struct loop *loop;
    unsigned runs, again;
    struct worker *cancels;
};

static void worked(struct loop_idle *i)
{
    struct worker *w = CONTAINER_OF(i, struct worker, idle);

    w->runs++;
    if (w->cancels != NULL)
        loop_not_later(w->loop, &w->cancels->idle);
    if (w->again > 0) {
        w->again--;
        loop_later(w->loop, i);
    }
}

static void test_later_runs_once_before_waiting(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct worker a = { .idle.run = worked, .loop = l }, b = a, c = a;

    a.cancels = &b;
    c.again = 2;
    loop_later(l, &a.idle);
    loop_later(l, &a.idle);
    loop_later(l, &b.idle);
    loop_later(l, &c.idle);
    loop_turn(l, 0);
    while (c.idle.queued)
        loop_turn(l, -1); /* does not wait */
    assert_int_equal(a.runs, 1);
    assert_int_equal(b.runs, 0);
    assert_int_equal(c.runs, 3);
    loop_free(l);
}

/* Work that never ends does not keep the descriptors from being served. */
static void test_endless_work_starves_nobody(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct watcher w = watcher_of(l);
    struct worker busy = { .idle.run = worked, .loop = l, .again = 1000000 };

    loop_add(l, &w.fd);
    loop_later(l, &busy.idle);
    loop_turn(l, -1);
    assert_int_equal(w.calls, 1);
    assert_true(busy.again > 0);
    loop_not_later(l, &busy.idle);
    loop_remove(l, &w.fd);
    close(w.fd.fd);
    loop_free(l);
}

static void stopper(struct loop_idle *i) { loop_stop(CONTAINER_OF(i, struct worker, idle)->loop); }

static void test_run_until_stopped(void **state)
{
    struct loop *l = loop_new(&clock_real);
    struct worker w = { .idle.run = stopper, .loop = l };

    loop_later(l, &w.idle);
    loop_run(l);
    loop_later(l, &w.idle);
    loop_run(l);
    loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_descriptors_are_called),
        cmocka_unit_test(test_removed_in_the_same_turn_is_not_called),
        cmocka_unit_test(test_turns_nest),
        cmocka_unit_test(test_timers_fire_in_order_and_once),
        cmocka_unit_test(test_timer_may_set_itself_again),
        cmocka_unit_test(test_waits_for_the_next_timer),
        cmocka_unit_test(test_later_runs_once_before_waiting),
        cmocka_unit_test(test_endless_work_starves_nobody),
        cmocka_unit_test(test_run_until_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
