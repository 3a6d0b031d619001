/* Who may talk to a host about a migration: POST /services/xenops of a coordinator and of a member, over TLS. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "tests/lib/pool_world.h"
#include "tests/lib/unit.h"
#include "xapi/core/agent.h"
#include "xapi/core/session.h"
#include "xapi/migrate/credentials.h"
#include "xapi/migrate/ledger.h"

static struct pool_world world, *w = &world; /* host 1 is a member of host 0's pool */

static int group_setup(void **state)
{
    log_set_level(NULL, LOG_ERR);
    pool_world_init(w, 2);
    pool_world_option(w, "log-level", "err");
    pool_world_start(w);
    pool_world_join(w, 1);
    return 0;
}

static int group_teardown(void **state)
{
    pool_world_release(w);
    return 0;
}

/* As another pool's host: with nothing but the cookie. */
static struct error *ask(unsigned i, const char *cookie, const char *verb)
{
    struct xapi *xapi = pool_xapi(w, i);
    struct call c = { .arena = w->arena, .clock = &clock_real, .id = "test" };
    struct http_target target = { .address = w->hosts[i].address, .port = w->port, .tls = true, .cookie = cookie };
    struct member members[] = { member_of("migration_id", value_string(uuid_make(w->arena))) };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;

    return agent_call_at(&c, xapi, &target, verb, &args, &ignored);
}

static void lets(unsigned i, const char *cookie)
{
    struct error *e = ask(i, cookie, "migrate.ask");

    if (e != NULL)
        fail_msg("host %u, %s: %s", i, cookie, error_text(w->arena, e));
}

static void refuses(unsigned i, const char *cookie, const char *code)
{
    struct error *e = ask(i, cookie, "migrate.ask");

    if (!error_is(e, code))
        fail_msg("host %u, %s: %s instead of %s", i, cookie, e == NULL ? "let in" : error_text(w->arena, e), code);
}

static const char *cookie_of(const char *name, const char *value)
{
    return arena_printf(w->arena, "%s=%s", name, value);
}

static const char *session_of(unsigned roles)
{
    const struct session_spec spec = { .kind = SESSION_NORMAL, .user = "somebody", .roles = roles };
    const char *ref;

    assert_null(session_create(pool_xapi(w, 0), w->arena, &spec, &ref));
    return cookie_of("session_id", ref);
}

static const char *row_with_key(int64_t ended_ms)
{
    const char *id = uuid_make(w->arena), *key = uuid_make(w->arena);
    const struct ledger_row row = { .id = id, .side = LEDGER_IN, .stage = "open", .kind = "migrate_send", .key = key, .began_ms = 1,
                                    .note = value_map(NULL, 0), .facts = value_map(NULL, 0) };
    struct ledger *ledger = pool_xapi(w, 0)->ledger;

    assert_null(ledger_put(w->arena, ledger, &row));
    if (ended_ms != 0)
        assert_null(ledger_end(w->arena, ledger, id, LEDGER_IN, "success", "", "", ended_ms));
    return credential_cookie(w->arena, key);
}

static void test_sessions(void **state)
{
    const char *admin = session_of(ROLE_VM_POWER_ADMIN), *reader = session_of(ROLE_READ_ONLY), *vm_admin = session_of(ROLE_VM_ADMIN);

    for (unsigned i = 0; i < 2; i++) {
        lets(i, admin);
        lets(i, cookie_of("session_id", w->hosts[0].session)); /* root's */
        refuses(i, reader, "RBAC_PERMISSION_DENIED");
        refuses(i, vm_admin, "RBAC_PERMISSION_DENIED");
        refuses(i, "session_id=OpaqueRef:00000000-0000-4000-8000-000000000000", "SESSION_INVALID");
    }
}

static void test_keys(void **state)
{
    int64_t now_ms = clock_wall(&clock_real) * 1000;
    const char *active = row_with_key(0), *fresh = row_with_key(now_ms - 3600000), *old = row_with_key(now_ms - 2 * 86400000ll);

    for (unsigned i = 0; i < 2; i++) {
        lets(i, active);
        lets(i, active); /* what was remembered */
        lets(i, fresh);
        refuses(i, old, "SESSION_AUTHENTICATION_FAILED");
        refuses(i, credential_cookie(w->arena, uuid_make(w->arena)), "SESSION_AUTHENTICATION_FAILED");
        refuses(i, "migration_key=", "SESSION_AUTHENTICATION_FAILED");
        refuses(i, "migration_key=' OR 1=1", "SESSION_AUTHENTICATION_FAILED");
        refuses(i, "nothing=at_all", "SESSION_AUTHENTICATION_FAILED");
    }
}

static void test_pool_secret(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        lets(i, cookie_of("pool_secret", pool_xapi(w, i)->pool_secret));
        refuses(i, "pool_secret=guess", "SESSION_AUTHENTICATION_FAILED");
    }
}

static void test_only_foreign_verbs(void **state)
{
    static const char *const verbs[] = { "migrate.send", "migrate.list", "vm.list", "coordinator.migration_key", "sr.destroy", "no.such" };

    for (unsigned i = 0; i < ARRAY_LEN(verbs); i++) {
        struct error *e = ask(0, cookie_of("session_id", w->hosts[0].session), verbs[i]);
        assert_true(error_is(e, "MESSAGE_METHOD_UNKNOWN"));
        assert_string_equal(e->params[0], verbs[i]);
        assert_true(error_is(ask(0, cookie_of("pool_secret", pool_xapi(w, 0)->pool_secret), verbs[i]), "MESSAGE_METHOD_UNKNOWN"));
    }
}

/* The key of a migration that a member takes part in stands in its journal: the coordinator need not be there. */
static void test_the_coordinators_word_is_remembered(void **state)
{
    const char *key = row_with_key(0);

    lets(1, key);
    pool_host_stop(w, 0);
    struct http_target target = { .address = w->hosts[1].address, .port = w->port, .tls = true, .cookie = key };
    struct call c = { .arena = w->arena, .clock = &clock_real, .id = "test" };
    struct member members[] = { member_of("migration_id", value_string(uuid_make(w->arena))) };
    struct value args = value_map(members, 1), ignored;
    struct error *e = agent_call_at(&c, pool_xapi(w, 1), &target, "migrate.ask", &args, &ignored);
    if (e != NULL)
        fail_msg("%s", error_text(w->arena, e));
    target.cookie = "session_id=OpaqueRef:11111111-0000-4000-8000-000000000000";
    assert_true(error_is(agent_call_at(&c, pool_xapi(w, 1), &target, "migrate.ask", &args, &ignored), "HOST_NOT_LIVE"));
    pool_host_start(w, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions),           cmocka_unit_test(test_keys), cmocka_unit_test(test_pool_secret),
        cmocka_unit_test(test_only_foreign_verbs), cmocka_unit_test(test_the_coordinators_word_is_remembered),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
