/* One operation at a time for a domain, in order of asking. */
#include "xenops/turns.h"

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/base/work.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"

#define THREADS 8
#define ROUNDS 200

struct contest {
    struct turns turns;
    struct lock lock;
    int inside[2]; /* lock */
    int most;      /* lock */
};
struct contestant { struct contest *contest; unsigned id; pthread_t thread; };

static void *contend(void *arg)
{
    static const char *const uuids[] = { "a", "b" };
    struct contestant *me = arg;
    struct contest *k = me->contest;
    struct call c = { .arena = arena_new(), .clock = &clock_real };
    struct turn t;

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned which = (me->id + i) % 2;
        assert_null(turn_take(&c, &k->turns, &t, uuids[which], TURN_ALONE));
        lock_take(&k->lock);
        k->inside[which]++;
        k->most = k->inside[which] > k->most ? k->inside[which] : k->most;
        lock_drop(&k->lock);
        sched_yield();
        lock_take(&k->lock);
        k->inside[which]--;
        lock_drop(&k->lock);
        turn_drop(&k->turns, &t);
    }
    arena_free(c.arena);
    return NULL;
}

static void test_never_two_at_once(void **state)
{
    struct contestant all[THREADS];
    struct contest k = { .most = 0 };

    turns_init(&k.turns);
    lock_init(&k.lock, LOCK_LEAF);
    for (unsigned i = 0; i < THREADS; i++) {
        all[i] = (struct contestant){ .contest = &k, .id = i };
        all[i].thread = thread_start("contend", contend, &all[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(all[i].thread, NULL);
    assert_int_equal(k.most, 1);
    turns_release(&k.turns);
    lock_release(&k.lock);
}

static void test_waiting_is_cancelled(void **state)
{
    struct turns q;
    struct turn first, other, second, third;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    turns_init(&q);
    assert_null(turn_take(&f.call, &q, &first, "a", TURN_ALONE));
    assert_null(turn_take(&f.call, &q, &other, "b", TURN_ALONE)); /* another domain: at once */
    cancel_raise(f.call.cancel);
    assert_true(error_is(turn_take(&f.call, &q, &second, "a", TURN_ALONE), "TASK_CANCELLED"));
    turn_drop(&q, &first);
    assert_null(turn_take(&f.call, &q, &third, "a", TURN_ALONE)); /* free: not even looked at */
    turn_drop(&q, &third);
    turn_drop(&q, &other);
    turns_release(&q);
}

/* What ends a guest goes beside its save, before those who wait for the save; and is alone after it. */
static void test_into_a_save(void **state)
{
    struct turns q;
    struct turn save, pause, into, second;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    turns_init(&q);
    assert_null(turn_take(&f.call, &q, &save, "a", TURN_SAVE));
    cancel_raise(f.call.cancel);
    assert_true(error_is(turn_take(&f.call, &q, &pause, "a", TURN_ALONE), "TASK_CANCELLED"));
    assert_null(turn_take(&f.call, &q, &into, "a", TURN_INTO));
    assert_true(turn_is_beside(&q, &into));
    assert_true(error_is(turn_alone(&f.call, &q, &into), "TASK_CANCELLED"));
    assert_true(error_is(turn_take(&f.call, &q, &second, "a", TURN_INTO), "TASK_CANCELLED")); /* one at a time all the same */
    turn_drop(&q, &save);
    assert_false(turn_is_beside(&q, &into));
    assert_null(turn_alone(&f.call, &q, &into));
    assert_true(error_is(turn_take(&f.call, &q, &save, "a", TURN_SAVE), "TASK_CANCELLED"));
    turn_drop(&q, &into);
    turns_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_never_two_at_once), cmocka_unit_test(test_waiting_is_cancelled),
                                        cmocka_unit_test(test_into_a_save) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
