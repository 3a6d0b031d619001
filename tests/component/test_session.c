/* Logging in and out, who is who, ages and limits. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/session.h"
#include "xapi/core/users.h"

static int setup(void **state)
{
    static struct core_world w;
    const char *users;

    core_world_init_fake(&w);
    users = tempdir_file(&w.dir, "users");
    must(users_set(w.arena, users, "root", "right"));
    must(users_set(w.arena, users, "ann", "annpw"));
    must(config_set(w.arena, w.xapi.config, "users-file", users));
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    core_world_release(*state);
    return 0;
}

static struct error *login(struct core_world *w, const char *user, const char *password, bool trusted, const char **session_r)
{
    struct value items[] = { S(user), S(password) }, params = value_set(items, 2), result;
    struct error *e = core_call_raw(w, "session.login_with_password", &params, trusted, &result);

    *session_r = e == NULL ? result.s : NULL;
    return e;
}

static void test_login_root(void **state)
{
    struct core_world *w = *state;
    const char *session;

    must(login(w, "root", "right", false, &session));
    assert_int_equal(core_ok_as(w, session, "session.get_is_local_superuser", 1, S(session)).i, 1);
    core_is_string(core_ok_as(w, session, "session.get_this_host", 1, S(session)), w->host);
    assert_int_equal(core_ok_as(w, session, "session.get_rbac_permissions", 1, S(session)).len, 0);
    core_ok_as(w, session, "session.logout", 0);
    core_fails_as(w, session, "SESSION_INVALID", "VM.get_all", 0);
}

static void test_login_takes_two_to_four_parameters(void **state)
{
    struct core_world *w = *state;
    struct value items[] = { S("root"), S("right"), S("2.20"), S("me"), S("too much") }, result;

    for (unsigned n = 0; n <= 5; n++) {
        struct value params = value_set(items, n);
        struct error *e = core_call_raw(w, "session.login_with_password", &params, false, &result);
        if (n >= 2 && n <= 4)
            assert_null(e);
        else
            assert_true(error_is(e, "MESSAGE_PARAMETER_COUNT_MISMATCH"));
    }
    struct value params = value_set(items, 4);
    must(core_call_raw(w, "session.login_with_password", &params, false, &result));
    core_is_string(core_ok(w, "session.get_originator", 1, result), "me");
}

static void test_login_wrong_password(void **state)
{
    struct core_world *w = *state;
    const char *session;
    struct error *e = login(w, "root", "wrong", false, &session);

    assert_true(error_is(e, "SESSION_AUTHENTICATION_FAILED"));
    assert_int_equal(e->n_params, 2);
    assert_string_equal(e->params[0], "root");
    assert_true(error_is(login(w, "nobody", "right", false, &session), "SESSION_AUTHENTICATION_FAILED"));
    assert_true(error_is(login(w, "", "", false, &session), "SESSION_AUTHENTICATION_FAILED"));
}

static void test_login_on_the_unix_socket_is_root(void **state)
{
    struct core_world *w = *state;
    const char *session;

    must(login(w, "", "", true, &session));
    assert_int_equal(core_ok(w, "session.get_is_local_superuser", 1, S(session)).i, 1);
}

static void test_login_subject(void **state)
{
    struct core_world *w = *state;
    const char *session;
    struct value identifier = core_ok(w, "auth.get_subject_identifier", 1, S("ann"));
    const struct member record[] = { member_of("subject_identifier", identifier) };

    assert_true(error_is(login(w, "ann", "annpw", false, &session), "SESSION_AUTHORIZATION_FAILED"));
    struct value subject = core_ok(w, "subject.create", 1, value_map(record, 1));
    must(login(w, "ann", "annpw", false, &session));
    assert_int_equal(core_ok(w, "session.get_is_local_superuser", 1, S(session)).i, 0);
    core_is_string(core_ok(w, "session.get_subject", 1, S(session)), subject.s);
    core_is_string(core_ok(w, "session.get_auth_user_sid", 1, S(session)), identifier.s);
    assert_true(core_ok_as(w, session, "session.get_rbac_permissions", 1, S(session)).len > 1000);
    struct value all = core_ok(w, "session.get_all_subject_identifiers", 0);
    assert_true(value_set_has(&all, identifier.s));
    core_ok(w, "session.logout_subject_identifier", 1, identifier);
    core_fails_as(w, session, "SESSION_INVALID", "VM.get_all", 0);
    core_ok(w, "subject.remove_from_roles", 2, subject, S("OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba"));
    assert_true(error_is(login(w, "ann", "annpw", false, &session), "RBAC_PERMISSION_DENIED"));
    core_ok(w, "subject.destroy", 1, subject);
}

static void test_pool_secret(void **state)
{
    struct core_world *w = *state;
    struct value items[] = { S(w->host), S("secret/of/pool") }, params = value_set(items, 2), local = value_set(items + 1, 1), result;

    must(core_call_raw(w, "session.slave_login", &params, false, &result));
    assert_int_equal(core_ok_as(w, result.s, "session.get_pool", 1, result).i, 1);
    must(core_call_raw(w, "session.slave_local_login", &local, false, &result));
    assert_null(db_get(w->xapi.db, w->arena, &model_classes[CLASS_session], result.s)); /* without the database */
    core_ok_as(w, result.s, "session.local_logout", 0);
    items[1] = S("secret/of/pooL");
    struct error *e = core_call_raw(w, "session.slave_login", &params, false, &result);
    assert_true(error_is(e, "SESSION_AUTHENTICATION_FAILED"));
    assert_string_equal(e->params[0], w->host);
    assert_string_equal(e->params[1], "Pool credentials invalid");
    e = core_call_raw(w, "session.slave_local_login", &local, false, &result);
    assert_string_equal(e->params[0], "localhost");
}

static void test_change_password(void **state)
{
    struct core_world *w = *state;
    const char *session;

    must(login(w, "root", "right", false, &session));
    core_fails_as(w, session, "SESSION_AUTHENTICATION_FAILED", "session.change_password", 2, S("bad"), S("new"));
    core_ok_as(w, session, "session.change_password", 2, S("right"), S("new"));
    assert_true(error_is(login(w, "root", "right", false, &session), "SESSION_AUTHENTICATION_FAILED"));
    must(login(w, "root", "new", false, &session));
    core_ok_as(w, session, "session.change_password", 2, S("new"), S("right"));
}

static void test_inactivity(void **state)
{
    struct core_world *w = *state;
    const char *idle, *busy;

    must(login(w, "root", "right", false, &idle));
    must(login(w, "root", "right", false, &busy));
    int64_t before = core_ok(w, "session.get_last_active", 1, S(busy)).i;
    for (unsigned hour = 0; hour < 25; hour++) {
        clock_fake_advance_ms(&w->fake, 3600 * 1000);
        core_ok_as(w, busy, "VM.get_all", 0);
        core_ok(w, "VM.get_all", 0);
        session_gc(&w->xapi, clock_ms(w->xapi.clock));
    }
    core_fails_as(w, idle, "SESSION_INVALID", "VM.get_all", 0);
    core_fails(w, "HANDLE_INVALID", "session.get_last_active", 1, S(idle));
    assert_int_equal(core_ok_as(w, busy, "session.get_last_active", 1, S(busy)).i - before, 25 * 3600);
}

static void test_limit_per_user(void **state)
{
    struct core_world *w = *state;
    const struct session_spec spec = { .kind = SESSION_NORMAL, .user = "many", .superuser = true };
    const char *sessions[4];

    must(config_set(w->arena, w->xapi.config, "sessions-per-user", "3"));
    for (unsigned i = 0; i < 4; i++) {
        must(session_create(&w->xapi, w->arena, &spec, &sessions[i]));
        clock_fake_advance_ms(&w->fake, 1000);
        if (i == 2)
            core_ok_as(w, sessions[0], "VM.get_all", 0); /* now sessions[1] is idle longest */
    }
    must(config_set(w->arena, w->xapi.config, "sessions-per-user", "5000"));
    core_ok_as(w, sessions[0], "VM.get_all", 0);
    core_fails_as(w, sessions[1], "SESSION_INVALID", "VM.get_all", 0);
    core_ok_as(w, sessions[2], "VM.get_all", 0);
    core_ok_as(w, sessions[3], "VM.get_all", 0);
}

static void test_secret_equal(void **state)
{
    assert_true(secret_equal("", ""));
    assert_true(secret_equal("abc", "abc"));
    assert_false(secret_equal("abc", "abd"));
    assert_false(secret_equal("abc", ""));
    assert_false(secret_equal("", "abc"));
    assert_false(secret_equal("abcabc", "abc"));
    assert_false(secret_equal("abc", "abcabc"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_login_root),
        cmocka_unit_test(test_login_takes_two_to_four_parameters),
        cmocka_unit_test(test_login_wrong_password),
        cmocka_unit_test(test_login_on_the_unix_socket_is_root),
        cmocka_unit_test(test_login_subject),
        cmocka_unit_test(test_pool_secret),
        cmocka_unit_test(test_change_password),
        cmocka_unit_test(test_inactivity),
        cmocka_unit_test(test_limit_per_user),
        cmocka_unit_test(test_secret_equal),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
