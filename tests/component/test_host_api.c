/* host.* and network.* through the dispatcher of real daemons: maintenance, plugins, power, settings. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/uuid.h"
#include "tests/lib/pool_world.h"
#include "tests/lib/unit.h"

static struct pool_world world;
#define W (&world)

static const char *host;

static int setup(void **state)
{
    pool_world_init(W, 1);
    pool_world_option(W, "plugins-dir", tempdir_file(&W->dir, "plugins"));
    pool_world_start(W);
    host = pool_host_ref(W, 0);
    return 0;
}

static int teardown(void **state)
{
    pool_world_release(W);
    return 0;
}

static bool allowed(const char *operation)
{
    struct value set = pool_ok(W, 0, "host.get_allowed_operations", 1, S(host));

    return value_set_has(&set, operation);
}

static void test_disable_and_enable(void **state)
{
    assert_false(allowed("reboot"));
    pool_fails(W, 0, "HOST_NOT_DISABLED", "host.reboot", 1, S(host));
    pool_fails(W, 0, "HOST_NOT_DISABLED", "host.shutdown", 1, S(host));
    pool_ok(W, 0, "host.disable", 1, S(host));
    pool_ok(W, 0, "host.disable", 1, S(host));
    assert_string_equal(pool_text(W, 0, "host.get_enabled", host), "false");
    assert_true(allowed("reboot"));
    struct value guidance[] = { S("restart_toolstack") };
    assert_null(db_set(pool_xapi(W, 0)->db, W->arena, CLASS_host, host, F_host_pending_guidances, value_set(guidance, 1)));
    pool_fails(W, 0, "HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY", "host.enable", 1, S(host));
    assert_null(db_set(pool_xapi(W, 0)->db, W->arena, CLASS_host, host, F_host_pending_guidances, value_set(NULL, 0)));
    pool_ok(W, 0, "host.enable", 1, S(host));
    assert_string_equal(pool_text(W, 0, "host.get_enabled", host), "true");
    assert_int_equal(pool_ok(W, 0, "host.get_current_operations", 1, S(host)).len, 0);
}

static void test_time(void **state)
{
    struct value utc = pool_ok(W, 0, "host.get_servertime", 1, S(host)), local = pool_ok(W, 0, "host.get_server_localtime", 1, S(host));

    assert_int_equal(utc.kind, VALUE_DATETIME);
    assert_true(utc.i > 1600000000);
    assert_in_range(local.i - utc.i + 86400, 0, 2 * 86400);
}

/* --- plugins ---------------------------------------------------------------------------------------------------- */
static void plugin_write(const char *name, const char *script)
{
    const char *path;

    mkdir(tempdir_file(&W->dir, "plugins"), 0755);
    path = tempdir_write(&W->dir, arena_printf(W->arena, "plugins/%s", name), script);
    assert_int_equal(chmod(path, 0755), 0);
}

static struct error *plugin(const char *name, const char *fn, struct value *result_r)
{
    const struct member args[] = { member_of("key", S("<value>")) };

    return pool_call(W, 0, "host.call_plugin", result_r, 4, S(host), S(name), S(fn), value_map(args, 1));
}

static void test_plugins(void **state)
{
    struct value result;
    struct error *error;

    assert_null(plugin("updater.py", "check_update", &result));
    assert_string_equal(result.s, "[]");
    error = plugin("nothing", "fn", &result);
    assert_true(error_is(error, "XENAPI_MISSING_PLUGIN"));
    assert_string_equal(error->params[0], "nothing");
    assert_true(error_is(plugin("../plugins/echo", "fn", &result), "XENAPI_MISSING_PLUGIN"));

    plugin_write("echo", "#!/bin/sh\n"
                         "case \"$1\" in *'<methodName>hello</methodName>'*'&lt;value&gt;'*) text=good;; *) text=bad;; esac\n"
                         "echo \"<?xml version='1.0'?><methodResponse><params><param><value><struct><member><name>Status</name>"
                         "<value>Success</value></member><member><name>Value</name><value>$text</value></member></struct></value></param></params></methodResponse>\"\n");
    assert_null(plugin("echo", "hello", &result));
    assert_string_equal(result.s, "good");
    plugin_write("broken", "#!/bin/sh\necho oops\nexit 3\n");
    assert_true(error_is(plugin("broken", "fn", &result), "XENAPI_PLUGIN_FAILURE"));
    plugin_write("fails", "#!/bin/sh\n"
                          "echo \"<?xml version='1.0'?><methodResponse><params><param><value><struct><member><name>Status</name>"
                          "<value>Failure</value></member><member><name>ErrorDescription</name><value><array><data><value>MY_CODE</value>"
                          "<value>one</value></data></array></value></member></struct></value></param></params></methodResponse>\"\n");
    error = plugin("fails", "fn", &result);
    assert_true(error_is(error, "MY_CODE"));
    assert_string_equal(error->params[0], "one");
}

/* --- settings ----------------------------------------------------------------------------------------------------- */
static void test_hostname(void **state)
{
    static const char *const bad[] = { "", "has space", "-x", "x-", "under_score" };

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        pool_fails(W, 0, "HOST_NAME_INVALID", "host.set_hostname_live", 2, S(host), S(bad[i]));
    pool_ok(W, 0, "host.set_hostname_live", 2, S(host), S("new-name.example"));
    assert_string_equal(pool_text(W, 0, "host.get_hostname", host), "new-name.example");
    pool_host_stop(W, 0);
    pool_host_start(W, 0);
    assert_string_equal(pool_text(W, 0, "host.get_hostname", host), "new-name.example");
}

static void test_queries(void **state)
{
    struct value methods = pool_ok(W, 0, "host.list_methods", 0);
    const char *pif = pool_ok(W, 0, "host.get_management_interface", 1, S(host)).s;

    assert_true(value_set_has(&methods, "VM.start"));
    assert_string_equal(pool_text(W, 0, "PIF.get_management", pif), "true");
    assert_true(pool_ok(W, 0, "host.compute_free_memory", 1, S(host)).i > 0);
    assert_int_equal(pool_ok(W, 0, "host.get_uncooperative_resident_VMs", 1, S(host)).len, 0);
    assert_string_equal(pool_text(W, 0, "pool.is_slave", host), "false");
    pool_ok(W, 0, "host.set_power_on_mode", 3, S(host), S("wake-on-lan"), value_map(NULL, 0));
    assert_string_equal(pool_text(W, 0, "host.get_power_on_mode", host), "wake-on-lan");
    pool_fails(W, 0, "HOST_IS_LIVE", "host.declare_dead", 1, S(host));
}

/* --- power -------------------------------------------------------------------------------------------------------- */
static void test_reboot(void **state)
{
    struct value before = pool_ok(W, 0, "host.get_other_config", 1, S(host)), after;

    before = value_dup(W->arena, &before);
    pool_ok(W, 0, "host.disable", 1, S(host));
    pool_wait_step(0, "", __FILE__, __LINE__);
    for (unsigned i = 0; i < 60; i++) /* the clock of boot_time has seconds */
        pool_wait_step(0, "", __FILE__, __LINE__);
    pool_ok(W, 0, "host.reboot", 1, S(host));
    pool_host_await_restart(W, 0);
    after = pool_ok(W, 0, "host.get_other_config", 1, S(host));
    assert_string_not_equal(value_get_string(&before, "boot_time", ""), value_get_string(&after, "boot_time", ""));
    assert_string_equal(pool_text(W, 0, "host.get_enabled", host), "true");
    pool_host_stop(W, 0);
    pool_host_start(W, 0);
    struct value again = pool_ok(W, 0, "host.get_other_config", 1, S(host));
    assert_string_equal(value_get_string(&again, "boot_time", "a"), value_get_string(&after, "boot_time", "b"));
}

static void test_restart_agent(void **state)
{
    pool_ok(W, 0, "host.restart_agent", 1, S(host));
    pool_host_await_restart(W, 0);
    assert_string_equal(pool_text(W, 0, "host.get_enabled", host), "true");
}

/* --- networks ------------------------------------------------------------------------------------------------------ */
static const char *network_named(const char *bridge)
{
    struct value all = pool_ok(W, 0, "network.get_all", 0);

    for (unsigned i = 0; i < all.len; i++)
        if (strcmp(pool_text(W, 0, "network.get_bridge", all.items[i].s), bridge) == 0)
            return all.items[i].s;
    return NULL;
}

static void test_networks(void **state)
{
    const struct member record[] = { member_of("name_label", S("mine")), member_of("other_config", value_map(NULL, 0)) };
    const char *a = pool_ok(W, 0, "network.create", 1, value_map(record, 2)).s;
    const char *b = pool_ok(W, 0, "network.create", 1, value_map(record, 2)).s;

    assert_string_not_equal(pool_text(W, 0, "network.get_bridge", a), pool_text(W, 0, "network.get_bridge", b));
    assert_string_equal(pool_text(W, 0, "network.get_MTU", a), "1500");
    pool_ok(W, 0, "network.destroy", 1, S(a));
    pool_ok(W, 0, "network.destroy", 1, S(b));
    pool_fails(W, 0, "CANNOT_DESTROY_SYSTEM_NETWORK", "network.destroy", 1, S(network_named("xenapi")));
    const struct error *error = pool_fails(W, 0, "NETWORK_CONTAINS_PIF", "network.destroy", 1, S(network_named("xenbr0")));
    assert_string_equal(error->params[0], pool_ok(W, 0, "host.get_management_interface", 1, S(host)).s);
}

static void test_secrets(void **state)
{
    const struct member record[] = { member_of("value", S("hidden")), member_of("other_config", value_map(NULL, 0)) };
    const char *secret = pool_ok(W, 0, "secret.create", 1, value_map(record, 2)).s;

    assert_string_equal(pool_text(W, 0, "secret.get_value", secret), "hidden");
    pool_ok(W, 0, "secret.destroy", 1, S(secret));
    pool_fails(W, 0, "HANDLE_INVALID", "secret.get_value", 1, S(secret));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disable_and_enable),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_plugins),
        cmocka_unit_test(test_hostname),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_reboot),
        cmocka_unit_test(test_restart_agent),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
