/* The small parts around the dispatcher: options, identity files, users file, timers. */
#include <string.h>
#include <sys/stat.h>

#include "rpc/base/lock.h"
#include "rpc/base/uuid.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"
#include "xapi/core/identity.h"
#include "xapi/core/options.h"
#include "xapi/core/timers.h"
#include "xapi/core/users.h"

#define W(s) ((char[]){ s }) /* a word of a command line */

/* --- options ---------------------------------------------------------------------------------------------- */

static void test_options(void **state)
{
    AUTO_ARENA a = arena_new();
    struct tempdir dir;
    struct options o;

    tempdir_make(&dir);
    const char *file = tempdir_write(&dir, "conf", "http-port = 8080 # test\n sim-memory-mib = 512\nsim-x=1\n#sim-no = 1\n");
    char *argv[] = { W("xapi"), W("--config"), arena_strdup(a, file), W("--set"), W("https-port=1234"), W("--set"),
                     W("sim-memory-mib=64"), W("--foreground"), W("status"), W("now") };
    must(options_read(a, ARRAY_LEN(argv), argv, &o));
    assert_int_equal(config_int(o.config, "http-port"), 8080);
    assert_int_equal(config_int(o.config, "https-port"), 1234);
    assert_true(o.foreground);
    assert_int_equal(o.n_rest, 2);
    assert_string_equal(o.rest[0], "status");
    struct value sim = options_sim(a, &o);
    assert_int_equal(sim.len, 2);
    assert_string_equal(value_get_string(&sim, "sim-memory-mib", ""), "64");
    assert_string_equal(value_get_string(&sim, "sim-x", ""), "1");
    options_release(&o);
    tempdir_remove(&dir);
}

static void test_options_refused(void **state)
{
    static const char *const bad[][2] = { { "--nonsense", NULL }, { "--set", "novalue" }, { "--set", NULL }, { "--config", "/no/such/file" }, { "--set", "http-port=x" } };
    AUTO_ARENA a = arena_new();

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        char *argv[] = { W("xapi"), arena_strdup(a, bad[i][0]), bad[i][1] != NULL ? arena_strdup(a, bad[i][1]) : NULL };
        struct options o;
        assert_non_null(options_read(a, bad[i][1] != NULL ? 3 : 2, argv, &o));
        options_release(&o);
    }
}

/* --- identity ------------------------------------------------------------------------------------------------ */

static void test_identity(void **state)
{
    AUTO_ARENA a = arena_new();
    struct identity first, second;
    struct tempdir dir;
    struct stat st;

    tempdir_make(&dir);
    must(identity_load(a, dir.path, &first));
    assert_true(first.is_coordinator);
    assert_true(uuid_valid(first.host_uuid));
    assert_int_equal(strlen(first.secret), 3 * UUID_LEN + 2);
    assert_int_equal(stat(tempdir_file(&dir, "ptoken"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    must(identity_set_role(a, dir.path, "127.0.1.1"));
    must(identity_set_secret(a, dir.path, "new"));
    must(identity_load(a, dir.path, &second));
    assert_false(second.is_coordinator);
    assert_string_equal(second.coordinator_address, "127.0.1.1");
    assert_string_equal(second.secret, "new");
    assert_string_equal(second.host_uuid, first.host_uuid);
    tempdir_write(&dir, "pool.conf", "slave:");
    assert_non_null(identity_load(a, dir.path, &second));
    tempdir_write(&dir, "pool.conf", "broken\n");
    assert_non_null(identity_load(a, dir.path, &second));
    tempdir_remove(&dir);
}

/* --- users ----------------------------------------------------------------------------------------------------- */

static bool right(struct arena *a, const char *path, const char *user, const char *password)
{
    bool ok;

    must(users_check(a, path, user, password, &ok));
    return ok;
}

static void test_users(void **state)
{
    AUTO_ARENA a = arena_new();
    struct tempdir dir;

    tempdir_make(&dir);
    const char *path = tempdir_file(&dir, "users");
    assert_false(right(a, path, "root", "x")); /* no file: nobody */
    must(users_set(a, path, "root", "one"));
    must(users_set(a, path, "ann", "two"));
    must(users_set(a, path, "root", "three"));
    assert_true(right(a, path, "root", "three"));
    assert_false(right(a, path, "root", "one"));
    assert_false(right(a, path, "root", ""));
    assert_true(right(a, path, "ann", "two"));
    assert_false(right(a, path, "bob", "two"));
    assert_non_null(users_set(a, path, "a:b", "x"));
    assert_non_null(users_set(a, path, "", "x"));
    tempdir_write(&dir, "users", "empty:\nodd\nlocked:!\n");
    assert_false(right(a, path, "empty", ""));
    assert_false(right(a, path, "locked", "!"));
    assert_false(right(a, path, "odd", ""));
    tempdir_remove(&dir);
}

/* --- timers -------------------------------------------------------------------------------------------------------- */

struct counter { struct lock lock; struct cond moved; unsigned n; };

static void count(void *ctx)
{
    struct counter *c = ctx;

    lock_take(&c->lock);
    c->n++;
    cond_signal(&c->moved);
    lock_drop(&c->lock);
}

static void wait_for(struct counter *c, unsigned n)
{
    lock_take(&c->lock);
    while (c->n < n)
        assert_true(cond_wait_ms(&c->moved, &c->lock, 10000));
    lock_drop(&c->lock);
}

static void test_timers(void **state)
{
    struct counter often = { 0 }, once = { 0 }, late = { 0 };
    struct counter *all[] = { &often, &once, &late };
    struct timers *t = timers_new(&clock_real);

    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        lock_init(&all[i]->lock, LOCK_LEAF);
        cond_init(&all[i]->moved);
    }
    timers_every(t, 1, count, &often);
    timers_after(t, 5, count, &once);
    timers_after(t, 3600 * 1000, count, &late);
    wait_for(&often, 5);
    wait_for(&once, 1);
    assert_int_equal(late.n, 0);
    timers_stop(t);
    assert_int_equal(late.n, 1); /* an answer that was to come later comes now */
    timers_after(t, 3600 * 1000, count, &late);
    assert_int_equal(late.n, 2);
    assert_int_equal(once.n, 1);
    timers_free(t);
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        cond_release(&all[i]->moved);
        lock_release(&all[i]->lock);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_options_refused),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_timers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
