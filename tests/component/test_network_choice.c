/* Which network a move takes, and which address on it: requirements H3-16, H3-17, XE-63, SU-32. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/internal_call.h"
#include "xapi/migrate/network_choice.h"

static struct core_world world;
#define W (&world)

static const char *one, *two, *management, *storage, *storage_one, *storage_two;
static struct api_call call;

static void set(const char *ref, unsigned class_id, unsigned field, struct value v)
{
    must(db_set(W->xapi.db, W->arena, class_id, ref, field, v));
}

static const char *make_host(const char *name, const char *address)
{
    const struct field_value fields[] = { { F_host_name_label, S(name) }, { F_host_address, S(address) } };
    const char *host = core_row(W, CLASS_host, fields, ARRAY_LEN(fields));
    const struct field_value certificate[] = { { F_Certificate_host, S(host) }, { F_Certificate_type, S("host") }, { F_Certificate_fingerprint, S(name) } };
    core_row(W, CLASS_Certificate, certificate, ARRAY_LEN(certificate));
    return host;
}

static const char *make_network(const char *name)
{
    const struct field_value fields[] = { { F_network_name_label, S(name) } };
    return core_row(W, CLASS_network, fields, ARRAY_LEN(fields));
}

static const char *make_pif(const char *host, const char *network, const char *ip)
{
    const struct field_value fields[] = {
        { F_PIF_host, S(host) }, { F_PIF_network, S(network) }, { F_PIF_IP, S(ip) }, { F_PIF_currently_attached, value_bool(true) }
    };
    return core_row(W, CLASS_PIF, fields, ARRAY_LEN(fields));
}

static void name_network(const char *value)
{
    must(db_map_put(W->xapi.db, W->arena, CLASS_pool, W->pool, F_pool_other_config, "migration_network", value));
}

static int arrange(void **state)
{
    core_world_init(W);
    W->xapi.https_port = 443;
    W->xapi.http_port = 80;
    one = make_host("one", "10.0.0.1");
    two = make_host("two", "10.0.0.2");
    management = make_network("management");
    storage = make_network("storage");
    make_pif(one, management, "10.0.0.1");
    make_pif(two, management, "10.0.0.2");
    storage_one = make_pif(one, storage, "10.1.0.1");
    storage_two = make_pif(two, storage, "10.1.0.2");
    internal_call_init(&call, &W->xapi, W->arena, "network choice");
    return 0;
}

static int put_away(void **state)
{
    core_world_release(W);
    return 0;
}

static void goes_to(const struct move_options *options, const char *address, const char *back)
{
    struct http_target target, home;
    must(network_choose(&call, one, two, options, &target));
    assert_string_equal(target.address, address);
    must(network_back(&call, one, two, options, &home));
    assert_string_equal(home.address, back);
    assert_string_equal(home.fingerprint, "one");
}

static void test_management(void **state)
{
    struct move_options none = { 0 };
    struct http_target target;
    must(network_choose(&call, one, two, &none, &target));
    assert_string_equal(target.address, "10.0.0.2");
    assert_int_equal(target.port, 443);
    assert_true(target.tls);
    assert_string_equal(target.fingerprint, "two");
    assert_non_null(strstr(network_fallback(&call, one, two, &none), "no migration network"));
}

static void test_named_in_the_call(void **state)
{
    struct move_options options = { .network = storage };
    goes_to(&options, "10.1.0.2", "10.1.0.1");
    assert_null(network_fallback(&call, one, two, &options));
    set(storage_one, CLASS_PIF, F_PIF_IP, S("")); /* the sender only needs a way there */
    goes_to(&options, "10.1.0.2", "10.0.0.1");
}

static void test_named_but_unfit(void **state)
{
    struct http_target target;
    struct move_options options = { .network = storage };
    set(storage_two, CLASS_PIF, F_PIF_IP, S(""));
    must_fail(network_choose(&call, one, two, &options, &target), "INTERFACE_HAS_NO_IP");
    set(storage_two, CLASS_PIF, F_PIF_currently_attached, value_bool(false));
    must_fail(network_choose(&call, one, two, &options, &target), "REQUIRED_PIF_IS_UNPLUGGED");
    options.network = make_network("lonely");
    must_fail(network_choose(&call, one, two, &options, &target), "PIF_NOT_PRESENT");
}

static void test_of_the_pool(void **state)
{
    struct move_options none = { 0 };
    name_network(row_string(db_get(W->xapi.db, W->arena, &model_classes[CLASS_network], storage), F_network_uuid));
    goes_to(&none, "10.1.0.2", "10.1.0.1");
    name_network(storage); /* a ref does as well */
    goes_to(&none, "10.1.0.2", "10.1.0.1");
    assert_null(network_fallback(&call, one, two, &none));
    struct move_options named = { .network = management };
    goes_to(&named, "10.0.0.2", "10.0.0.1");
}

static void test_fallback(void **state)
{
    struct move_options none = { 0 };
    name_network(storage);
    set(storage_one, CLASS_PIF, F_PIF_IP, S(""));
    goes_to(&none, "10.0.0.2", "10.0.0.1");
    assert_string_equal(network_fallback(&call, one, two, &none), "host 'one' has no address on the migration network 'storage'");
    name_network("no such network");
    goes_to(&none, "10.0.0.2", "10.0.0.1");
    assert_non_null(strstr(network_fallback(&call, one, two, &none), "does not exist"));
    const struct field_value task[] = { { F_task_name_label, S("a move") } };
    struct http_target target;
    call.task = core_row(W, CLASS_task, task, ARRAY_LEN(task));
    must(network_choose(&call, one, two, &none, &target));
    const struct row *row = db_get(W->xapi.db, W->arena, &model_classes[CLASS_task], call.task);
    assert_non_null(strstr(row_map(row, F_task_other_config, "migrate:network_fallback", ""), "does not exist"));
}

static void test_address_given(void **state)
{
    struct move_options options = { .network = storage, .migrate_address = "192.0.2.7" };
    goes_to(&options, "192.0.2.7", "10.0.0.1");
    options.migrate_port = 4443;
    struct http_target target;
    must(network_choose(&call, one, two, &options, &target));
    assert_int_equal(target.port, 4443);
    assert_null(network_fallback(&call, one, two, &options));
}

static void test_plain(void **state)
{
    struct move_options none = { 0 };
    struct http_target target;
    must(config_set(W->arena, W->xapi.config, "migration-https-only", "false"));
    must(network_choose(&call, one, two, &none, &target));
    assert_false(target.tls);
    assert_int_equal(target.port, 80);
    assert_null(target.fingerprint);
}

static void test_ipv6(void **state)
{
    const struct value addresses[] = { S("fe80::1/64"), S("2001:db8::2/64") };
    struct move_options options = { .network = storage };
    set(storage_two, CLASS_PIF, F_PIF_IPv6, value_set(addresses, ARRAY_LEN(addresses)));
    goes_to(&options, "10.1.0.2", "10.1.0.1");
    set(storage_two, CLASS_PIF, F_PIF_primary_address_type, S("IPv6"));
    goes_to(&options, "2001:db8::2", "10.1.0.1");
}

static void test_receive(void **state)
{
    const char *address;
    must(network_receive_address(&call, two, storage, &address));
    assert_string_equal(address, "10.1.0.2");
    must_fail(network_receive_address(&call, two, make_network("lonely"), &address), "HOST_CANNOT_ATTACH_NETWORK");
    set(storage_two, CLASS_PIF, F_PIF_IP, S(""));
    must_fail(network_receive_address(&call, two, storage, &address), "PIF_HAS_NO_NETWORK_CONFIGURATION");
    set(storage_two, CLASS_PIF, F_PIF_ip_configuration_mode, S("DHCP"));
    must_fail(network_receive_address(&call, two, storage, &address), "INTERFACE_HAS_NO_IP");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, arrange, put_away)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_management), CASE(test_named_in_the_call), CASE(test_named_but_unfit), CASE(test_of_the_pool), CASE(test_fallback),
        CASE(test_address_given), CASE(test_plain), CASE(test_ipv6), CASE(test_receive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
