#include "rpc/base/work.h"

#include "rpc/base/lock.h"
#include "tests/lib/unit.h"

/* Items wait at the gate, so that the pool's state can be looked at. */
static struct gate {
    struct lock lock;
    struct cond changed;
    bool open;
    unsigned n_entered, n_done, most_at_once;
    unsigned order[64];
} gate;

struct ticket {
    unsigned number;
};

static void enter(void *arg)
{
    const struct ticket *t = arg;

    LOCK_SCOPE(&gate.lock);
    gate.order[gate.n_entered++ % ARRAY_LEN(gate.order)] = t->number;
    if (gate.n_entered - gate.n_done > gate.most_at_once)
        gate.most_at_once = gate.n_entered - gate.n_done;
    cond_broadcast(&gate.changed);
    while (!gate.open)
        cond_wait(&gate.changed, &gate.lock);
    gate.n_done++;
}

static void gate_open(void)
{
    LOCK_SCOPE(&gate.lock);
    gate.open = true;
    cond_broadcast(&gate.changed);
}

static void gate_wait_entered(unsigned n)
{
    LOCK_SCOPE(&gate.lock);
    while (gate.n_entered < n)
        cond_wait(&gate.changed, &gate.lock);
}

static int gate_make(void **state)
{
    gate = (struct gate){ .open = false };
    lock_init(&gate.lock, LOCK_LEAF);
    cond_init(&gate.changed);
    return 0;
}

static int gate_release(void **state)
{
    lock_release(&gate.lock);
    cond_release(&gate.changed);
    return 0;
}

static void test_work_limits(void **state)
{
    struct ticket tickets[8];
    struct work_pool *p = work_pool_new("limits", 2, 3);

    for (unsigned i = 0; i < 8; i++) {
        tickets[i].number = i;
        assert_int_equal(work_pool_post(p, enter, &tickets[i]), i < 5);
    }
    gate_wait_entered(2);
    assert_int_equal(work_pool_busy(p), 5);
    gate_open();
    work_pool_free(p); /* waits for what was queued */
    assert_int_equal(gate.n_done, 5);
    assert_int_equal(gate.most_at_once, 2);
}

static void test_work_order_of_one_thread(void **state)
{
    struct ticket tickets[20];
    struct work_pool *p = work_pool_new("order", 1, 100);

    for (unsigned i = 0; i < 20; i++) {
        tickets[i].number = i;
        assert_true(work_pool_post(p, enter, &tickets[i]));
    }
    gate_open();
    work_pool_free(p);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(gate.order[i], i);
}

static void test_work_without_queue(void **state)
{
    struct ticket t = { 0 };
    struct work_pool *p = work_pool_new("no queue", 1, 0);

    assert_true(work_pool_post(p, enter, &t));
    assert_false(work_pool_post(p, enter, &t));
    gate_open();
    while (work_pool_busy(p) > 0)
        ;
    assert_true(work_pool_post(p, enter, &t)); /* by the thread that is idle now */
    work_pool_free(p);
    assert_int_equal(gate.n_done, 2);
}

struct poster {
    struct work_pool *pool;
    unsigned accepted;
};

static void nothing(void *counter) { __atomic_add_fetch((unsigned *)counter, 1, __ATOMIC_RELAXED); }

static unsigned n_done;

static void *post_many(void *arg)
{
    struct poster *p = arg;

    for (unsigned i = 0; i < 3000; i++)
        p->accepted += work_pool_post(p->pool, nothing, &n_done);
    return NULL;
}

static void test_work_many_posters(void **state)
{
    struct work_pool *pool = work_pool_new("many", 4, 16);
    struct poster posters[4];
    pthread_t threads[4];
    unsigned accepted = 0;

    n_done = 0;
    for (unsigned i = 0; i < 4; i++) {
        posters[i] = (struct poster){ .pool = pool };
        threads[i] = thread_start("poster", post_many, &posters[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        accepted += posters[i].accepted;
    }
    work_pool_free(pool);
    assert_int_equal(n_done, accepted);
    assert_true(accepted > 0);
}

static void test_work_free_unused(void **state)
{
    work_pool_free(work_pool_new("unused", 5, 5));
    work_pool_free(NULL);
}

static void *thread_name(void *name)
{
    pthread_getname_np(pthread_self(), name, 16);
    return NULL;
}

static void test_thread_start_names(void **state)
{
    char name[16];

    pthread_join(thread_start("a-name-that-is-too-long", thread_name, name), NULL);
    assert_string_equal(name, "a-name-that-is-");
}

#define GATED(test) cmocka_unit_test_setup_teardown(test, gate_make, gate_release)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GATED(test_work_limits),
        GATED(test_work_order_of_one_thread),
        GATED(test_work_without_queue),
        cmocka_unit_test(test_work_many_posters),
        cmocka_unit_test(test_work_free_unused),
        cmocka_unit_test(test_thread_start_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
