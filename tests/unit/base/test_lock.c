#include "rpc/base/lock.h"

#include "rpc/base/clock.h"
#include "rpc/base/work.h"
#include "tests/lib/death.h"
#include "tests/lib/unit.h"

#if defined(SANITIZED) || defined(LOCK_CHECK)
#define ORDER_CHECKED 1
#else
#define ORDER_CHECKED 0
#endif

struct shared {
    struct lock lock;
    struct cond cond;
    struct rwlock rwlock;
    int n;
};

static void shared_init(struct shared *s)
{
    lock_init(&s->lock, LOCK_TASK);
    cond_init(&s->cond);
    rwlock_init(&s->rwlock, LOCK_DB_STORE);
    s->n = 0;
}

static void shared_release(struct shared *s)
{
    lock_release(&s->lock);
    cond_release(&s->cond);
    rwlock_release(&s->rwlock);
}

static void *add(void *arg)
{
    struct shared *s = arg;

    for (unsigned i = 0; i < 10000; i++) {
        LOCK_SCOPE(&s->lock);
        s->n++;
    }
    return NULL;
}

static void *write_add(void *arg)
{
    struct shared *s = arg;

    for (unsigned i = 0; i < 10000; i++) {
        rwlock_write(&s->rwlock);
        s->n++;
        rwlock_drop(&s->rwlock);
        rwlock_read(&s->rwlock);
        int seen = s->n;
        rwlock_drop(&s->rwlock);
        if (seen == 0)
            return s;
    }
    return NULL;
}

static void run_four(struct shared *s, void *(*fn)(void *))
{
    pthread_t threads[4];
    void *result;

    for (unsigned i = 0; i < 4; i++)
        threads[i] = thread_start("lock", fn, s);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_int_equal(s->n, 40000);
}

static void test_lock_excludes(void **state)
{
    struct shared s;

    shared_init(&s);
    run_four(&s, add);
    shared_release(&s);
}

static void test_rwlock_excludes(void **state)
{
    struct shared s;

    shared_init(&s);
    run_four(&s, write_add);
    shared_release(&s);
}

static void *set_and_signal(void *arg)
{
    struct shared *s = arg;

    LOCK_SCOPE(&s->lock);
    s->n = 1;
    cond_signal(&s->cond);
    return NULL;
}

static void test_cond_wait_wakes(void **state)
{
    struct shared s;

    shared_init(&s);
    lock_take(&s.lock);
    pthread_t other = thread_start("signal", set_and_signal, &s);
    while (s.n == 0)
        cond_wait(&s.cond, &s.lock);
    lock_drop(&s.lock);
    pthread_join(other, NULL);
    shared_release(&s);
}

static void test_cond_wait_ms_times_out(void **state)
{
    struct shared s;
    int64_t start = clock_us(&clock_real);

    shared_init(&s);
    lock_take(&s.lock);
    assert_false(cond_wait_ms(&s.cond, &s.lock, -5));
    assert_false(cond_wait_ms(&s.cond, &s.lock, 0));
    assert_false(cond_wait_ms(&s.cond, &s.lock, 3));
    assert_true(clock_us(&clock_real) - start >= 3000);
    lock_drop(&s.lock);
    shared_release(&s);
}

static void test_lock_order_kept(void **state)
{
    struct lock task, leaf;

    lock_init(&task, LOCK_TASK);
    lock_init(&leaf, LOCK_LEAF);
    lock_take(&task);
    lock_take(&leaf);
    lock_drop(&task); /* not in reverse: allowed */
    lock_drop(&leaf);
    lock_take(&leaf);
    lock_drop(&leaf);
    lock_take(&task);
    lock_drop(&task);
    lock_release(&task);
    lock_release(&leaf);
}

static void take_upward(void)
{
    struct lock task, leaf;

    lock_init(&task, LOCK_TASK);
    lock_init(&leaf, LOCK_LEAF);
    lock_take(&leaf);
    lock_take(&task);
}

static void take_same_class(void)
{
    struct lock first, second;

    lock_init(&first, LOCK_TASK);
    lock_init(&second, LOCK_TASK);
    lock_take(&first);
    lock_take(&second);
}

static void wait_holding_another(void)
{
    struct shared s;
    struct lock outer;

    shared_init(&s);
    lock_init(&outer, LOCK_POOL);
    lock_take(&outer);
    lock_take(&s.lock);
    cond_wait_ms(&s.cond, &s.lock, 1);
}

static void drop_what_is_not_held(void)
{
    struct lock task;

    lock_init(&task, LOCK_TASK);
    lock_drop(&task);
}

static void test_lock_order_broken(void **state)
{
    if (!ORDER_CHECKED)
        skip();
    assert_true(death_of("upward", "takes lock TASK while holding LEAF"));
    assert_true(death_of("same class", "takes lock TASK while holding TASK"));
    assert_true(death_of("wait", "waits on TASK while holding POOL"));
    assert_true(death_of("drop", "check failed"));
}

static const struct deed deeds[] = {
    { "upward", take_upward },
    { "same class", take_same_class },
    { "wait", wait_holding_another },
    { "drop", drop_what_is_not_held },
    { 0 },
};

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock_excludes),   cmocka_unit_test(test_rwlock_excludes),
        cmocka_unit_test(test_cond_wait_wakes), cmocka_unit_test(test_cond_wait_ms_times_out),
        cmocka_unit_test(test_lock_order_kept), cmocka_unit_test(test_lock_order_broken),
    };

    death_main(argc, argv, deeds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
