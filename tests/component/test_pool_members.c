/* Pools of real daemons in one process: fresh pool, restarts, join and its checks, heartbeat, eject. */
#include <stdlib.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "storage/sr_driver.h"
#include "tests/lib/pool_world.h"
#include "tests/lib/unit.h"

static struct value records(struct pool_world *w, unsigned i, const char *class_name)
{
    return pool_ok(w, i, arena_printf(w->arena, "%s.get_all_records", class_name), 0);
}

/* The record of the first object, as a map. */
static struct value first(struct pool_world *w, unsigned i, const char *class_name)
{
    struct value all = records(w, i, class_name);

    assert_true(all.len > 0);
    return value_dup(w->arena, &all.members[0].value);
}

static const char *first_ref(struct pool_world *w, unsigned i, const char *class_name)
{
    struct value all = records(w, i, class_name);

    assert_true(all.len > 0);
    return all.members[0].name;
}

static void is_text(const struct value *record, const char *field, const char *expected)
{
    assert_string_equal(value_get_string(record, field, "(absent)"), expected);
}

/* --- a fresh pool ------------------------------------------------------------------------------------------- */
static void check_host(struct pool_world *w)
{
    static const char *const version_keys[] = { "product_brand", "product_version", "product_version_text", "product_version_text_short",
                                                "platform_name", "platform_version", "build_number", "xapi", "xen", "linux", "hostname",
                                                "date", "db_schema", "network_backend" };
    static const char *const cpu_keys[] = { "cpu_count", "socket_count", "vendor", "speed", "modelname", "flags", "features", "features_hvm",
                                            "features_pv", "features_hvm_host", "features_pv_host" };
    struct value host = first(w, 0, "host");

    is_text(&host, "address", w->hosts[0].address);
    is_text(&host, "uuid", pool_xapi(w, 0)->host_uuid);
    assert_true(value_get_bool(&host, "enabled", false));
    assert_int_equal(value_get_int(&host, "API_version_major", 0), 2);
    assert_int_equal(value_get_int(&host, "API_version_minor", 0), 21);
    for (unsigned i = 0; i < ARRAY_LEN(version_keys); i++)
        assert_string_not_equal(value_get_string(value_get(&host, "software_version"), version_keys[i], ""), "");
    is_text(value_get(&host, "software_version"), "product_version_text_short", "8.3");
    for (unsigned i = 0; i < ARRAY_LEN(cpu_keys); i++)
        assert_string_not_equal(value_get_string(value_get(&host, "cpu_info"), cpu_keys[i], ""), "");
    is_text(value_get(&host, "license_params"), "restrict_storage_xen_motion", "false");
    is_text(value_get(&host, "license_params"), "enable_xha", "true");
    assert_true(strtoll(value_get_string(value_get(&host, "other_config"), "agent_start_time", "0"), NULL, 10) > 1600000000);
    assert_int_equal(value_get(&host, "host_CPUs")->len, value_get_int(value_get(&host, "cpu_info"), "cpu_count", 0));
    assert_true(value_get(&host, "capabilities")->len > 0);
    assert_int_equal(value_get(&host, "PIFs")->len, 2);
    assert_int_equal(value_get(&host, "certificates")->len, 1);
}

static void check_domain0(struct pool_world *w)
{
    const char *vm = pool_text(w, 0, "host.get_control_domain", pool_host_ref(w, 0));

    assert_string_equal(pool_text(w, 0, "VM.get_is_control_domain", vm), "true");
    assert_string_equal(pool_text(w, 0, "VM.get_power_state", vm), "Running");
    assert_string_equal(pool_text(w, 0, "VM.get_resident_on", vm), pool_host_ref(w, 0));
    assert_int_equal(pool_ok(w, 0, "VM.get_consoles", 1, S(vm)).len, 1);
    assert_string_equal(pool_text(w, 0, "VM_metrics.get_uuid", pool_text(w, 0, "VM.get_metrics", vm)),
                        pool_text(w, 0, "VM_metrics.get_uuid", pool_text(w, 0, "VM.get_metrics", vm)));
}

static void check_networks(struct pool_world *w)
{
    struct value pifs = records(w, 0, "PIF");
    unsigned management = 0;

    assert_int_equal(records(w, 0, "network").len, 3);
    for (unsigned i = 0; i < pifs.len; i++) {
        struct value pif = value_dup(w->arena, &pifs.members[i].value);

        if (value_get_bool(&pif, "management", false)) {
            management++;
            is_text(&pif, "IP", w->hosts[0].address);
            is_text(&pif, "device", "eth0");
        }
        is_text(&pif, "bond_slave_of", REF_NULL);
    }
    assert_int_equal(management, 1);
}

static void check_storage(struct pool_world *w)
{
    struct value sr = first(w, 0, "SR"), pool = first(w, 0, "pool"), sms = records(w, 0, "SM");

    is_text(&sr, "type", "file");
    assert_true(value_get_int(&sr, "physical_size", 0) > 0);
    is_text(&pool, "default_SR", first_ref(w, 0, "SR"));
    assert_true(pool_ok(w, 0, "PBD.get_currently_attached", 1, S(first_ref(w, 0, "PBD"))).i);
    unsigned drivers = 0;
    while (sr_drivers[drivers] != NULL)
        drivers++;
    assert_int_equal(sms.len, drivers);
    for (unsigned i = 0; i < sms.len; i++) {
        struct value sm = value_dup(w->arena, &sms.members[i].value);

        assert_int_equal(value_get(&sm, "capabilities")->len, value_get(&sm, "features")->len);
    }
}

static void check_templates(struct pool_world *w)
{
    struct value vms = records(w, 0, "VM");
    unsigned n = 0;

    for (unsigned i = 0; i < vms.len; i++) {
        struct value vm = value_dup(w->arena, &vms.members[i].value);

        if (!value_get_bool(&vm, "is_default_template", false))
            continue;
        n++;
        assert_true(value_get_bool(&vm, "is_a_template", false));
        is_text(value_get(&vm, "platform"), "cores-per-socket", "1");
        assert_non_null(strstr(strstr(value_get_string(&vm, "recommendations", ""), "<restriction ") + 1, "<restriction "));
        assert_string_not_equal(value_get_string(value_get(&vm, "other_config"), "mac_seed", ""), "");
    }
    assert_int_equal(n, 4);
}

static void test_fresh_pool_has_what_clients_need(void **state)
{
    struct pool_world w;
    struct value pool;

    pool_world_init(&w, 1);
    pool_world_start(&w);
    check_host(&w);
    check_domain0(&w);
    check_networks(&w);
    check_storage(&w);
    check_templates(&w);
    pool = first(&w, 0, "pool");
    is_text(&pool, "master", pool_host_ref(&w, 0));
    is_text(value_get(&pool, "restrictions"), "restrict_xen_motion", "false");
    is_text(value_get(&pool, "cpu_info"), "cpu_count", value_get_string(value_get(&pool, "cpu_info"), "cpu_count", "?"));
    assert_int_equal(records(&w, 0, "role").len > 0, 1);
    pool_world_release(&w);
}

static void test_restart_keeps_refs_and_uuids(void **state)
{
    struct pool_world w;
    const char *host, *pool, *uuid, *sr;

    pool_world_init(&w, 1);
    pool_world_start(&w);
    host = pool_host_ref(&w, 0);
    pool = first_ref(&w, 0, "pool");
    sr = first_ref(&w, 0, "SR");
    uuid = pool_text(&w, 0, "pool.get_uuid", pool);
    unsigned n_vms = records(&w, 0, "VM").len;
    pool_ok(&w, 0, "host.disable", 1, S(host));
    pool_host_stop(&w, 0);
    pool_world_option(&w, "product-version", "8.4.0");
    pool_host_start(&w, 0);
    assert_string_equal(pool_host_ref(&w, 0), host);
    assert_string_equal(first_ref(&w, 0, "pool"), pool);
    assert_string_equal(first_ref(&w, 0, "SR"), sr);
    assert_string_equal(pool_text(&w, 0, "pool.get_uuid", pool), uuid);
    assert_int_equal(records(&w, 0, "VM").len, n_vms);
    assert_string_equal(pool_text(&w, 0, "host.get_enabled", host), "true");
    struct value version = pool_ok(&w, 0, "host.get_software_version", 1, S(host));
    is_text(&version, "product_version", "8.4.0");
    pool_ok(&w, 0, "host.disable", 2, S(host), value_bool(false));
    pool_host_stop(&w, 0);
    pool_host_start(&w, 0);
    assert_string_equal(pool_text(&w, 0, "host.get_enabled", host), "false");
    pool_ok(&w, 0, "host.enable", 1, S(host));
    pool_host_stop(&w, 0);
    pool_host_start(&w, 0);
    assert_string_equal(pool_text(&w, 0, "host.get_enabled", host), "true");
    pool_world_release(&w);
}

/* --- join ------------------------------------------------------------------------------------------------------ */
static void test_join(void **state)
{
    struct pool_world w;
    const char *disk, *local_sr, *member, *member_uuid;
    const struct error *error;

    pool_world_init(&w, 2);
    pool_world_start(&w);
    local_sr = first_ref(&w, 1, "SR");
    member_uuid = pool_text(&w, 1, "host.get_uuid", first_ref(&w, 1, "host"));
    const struct member disk_members[] = { member_of("name_label", S("carried over")), member_of("SR", S(local_sr)), member_of("virtual_size", value_int(1 << 20)) };
    disk = pool_ok(&w, 1, "VDI.create", 1, value_map(disk_members, 3)).s;
    const struct member config[] = { member_of("location", S(tempdir_file(&w.dir, "shared"))) };
    pool_ok(&w, 0, "SR.create", 9, S(pool_host_ref(&w, 0)), value_map(config, 1), value_int(0), S("shared"), S(""), S("file"), S("user"),
            value_bool(true), value_map(NULL, 0));
    pool_world_join(&w, 1);

    member = pool_host_ref(&w, 1);
    assert_string_equal(pool_text(&w, 0, "host.get_uuid", member), member_uuid);
    assert_string_equal(pool_text(&w, 0, "VDI.get_name_label", disk), "carried over");
    assert_int_equal(records(&w, 0, "network").len, 3);
    assert_int_equal(records(&w, 0, "PIF").len, 4);
    assert_int_equal(records(&w, 0, "SR").len, 3);
    struct value pbds = records(&w, 0, "PBD");
    assert_int_equal(pbds.len, 4);
    for (unsigned i = 0; i < pbds.len; i++)
        assert_string_equal(pool_text(&w, 0, "PBD.get_currently_attached", pbds.members[i].name), "true");
    struct value pool = first(&w, 0, "pool");
    is_text(value_get(&pool, "cpu_info"), "cpu_count", "8");
    assert_false(pool_xapi(&w, 1)->is_coordinator);
    assert_string_equal(pool_xapi(&w, 1)->pool_secret, pool_xapi(&w, 0)->pool_secret);

    /* work on the member's storage goes there */
    const struct member more[] = { member_of("name_label", S("made from afar")), member_of("SR", S(local_sr)), member_of("virtual_size", value_int(1 << 20)) };
    const char *far = pool_ok(&w, 0, "VDI.create", 1, value_map(more, 3)).s;
    pool_ok(&w, 0, "VDI.destroy", 1, S(far));
    pool_ok(&w, 0, "VDI.destroy", 1, S(disk));
    pool_ok(&w, 0, "host.get_servertime", 1, S(member));
    struct value answer = pool_ok(&w, 0, "host.call_plugin", 4, S(member), S("updater.py"), S("check_update"), value_map(NULL, 0));
    assert_string_equal(answer.s, "[]");

    error = pool_fails(&w, 0, "INTERNAL_ERROR", "pool.eject", 1, S(pool_host_ref(&w, 0)));
    assert_non_null(strstr(error->params[0], "Cannot_eject_master"));
    pool_fails(&w, 0, "HOST_IS_LIVE", "host.destroy", 1, S(member));
    pool_fails(&w, 0, "HOST_CANNOT_DESTROY_SELF", "host.destroy", 1, S(pool_host_ref(&w, 0)));
    pool_world_release(&w);
}

static void test_join_refusals(void **state)
{
    struct pool_world w;
    const char *host, *network;

    pool_world_init(&w, 2);
    pool_world_start(&w);
    host = pool_host_ref(&w, 0);
    pool_fails(&w, 1, "SESSION_AUTHENTICATION_FAILED", "pool.join", 3, S(w.hosts[0].address), S("root"), S("wrong"));
    pool_fails(&w, 1, "JOINING_HOST_CONNECTION_FAILED", "pool.join", 3, S(arena_printf(w.arena, "%s.99", w.prefix)), S("root"), S(POOL_PASSWORD));
    const struct error *error = pool_fails(&w, 0, "OPERATION_NOT_ALLOWED", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    assert_string_equal(error->params[0], "Host cannot become slave of itself");

    /* 17: shared storage */
    const struct member config[] = { member_of("location", S(tempdir_file(&w.dir, "theirs"))) };
    const char *sr = pool_ok(&w, 1, "SR.create", 9, S(first_ref(&w, 1, "host")), value_map(config, 1), value_int(0), S("s"), S(""), S("file"), S("user"),
                             value_bool(true), value_map(NULL, 0)).s;
    pool_fails(&w, 1, "JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    const char *pbd = pool_ok(&w, 1, "SR.get_PBDs", 1, S(sr)).items[0].s;
    pool_ok(&w, 1, "PBD.unplug", 1, S(pbd));
    pool_ok(&w, 1, "SR.forget", 1, S(sr));

    /* 13: pending guidance of the pool; 29: TLS verification */
    struct value guidance[] = { S("reboot_host") };
    struct xapi *xapi = pool_xapi(&w, 0);
    assert_null(db_set(xapi->db, w.arena, CLASS_host, host, F_host_pending_guidances, value_set(guidance, 1)));
    error = pool_fails(&w, 1, "HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    assert_string_equal(error->params[0], host);
    assert_null(db_set(xapi->db, w.arena, CLASS_host, host, F_host_pending_guidances, value_set(NULL, 0)));
    assert_null(db_set(xapi->db, w.arena, CLASS_pool, first_ref(&w, 0, "pool"), F_pool_tls_verification_enabled, value_bool(false)));
    pool_fails(&w, 1, "POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    assert_null(db_set(xapi->db, w.arena, CLASS_pool, first_ref(&w, 0, "pool"), F_pool_tls_verification_enabled, value_bool(true)));

    /* 28: purposes */
    struct value nbd[] = { S("nbd") }, insecure[] = { S("insecure_nbd") };
    network = first_ref(&w, 0, "network");
    assert_null(db_set(xapi->db, w.arena, CLASS_network, network, F_network_purpose, value_set(nbd, 1)));
    assert_null(db_set(pool_xapi(&w, 1)->db, w.arena, CLASS_network, first_ref(&w, 1, "network"), F_network_purpose, value_set(insecure, 1)));
    pool_fails(&w, 1, "OPERATION_NOT_ALLOWED", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    assert_false(pool_host_wants_restart(&w, 1));
    assert_int_equal(records(&w, 0, "host").len, 1);
    pool_world_release(&w);
}

static void test_join_checks_versions(void **state)
{
    struct pool_world w;

    pool_world_init(&w, 2);
    pool_host_start(&w, 0);
    pool_world_option(&w, "xapi-version", "24.17.0");
    pool_host_start(&w, 1);
    const struct error *error = pool_fails(&w, 1, "HOSTS_NOT_HOMOGENEOUS", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    assert_string_equal(error->params[0], "Software version differs");
    pool_host_stop(&w, 1);
    pool_world_option(&w, "platform-version", "3.5.0");
    pool_host_start(&w, 1);
    pool_fails(&w, 1, "HOSTS_NOT_COMPATIBLE", "pool.join_force", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    pool_host_stop(&w, 1);
    pool_world_option(&w, "platform-version", "3.4.0");
    pool_host_start(&w, 1);
    pool_ok(&w, 1, "pool.join_force", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    pool_host_await_restart(&w, 1);
    POOL_UNTIL(pool_host_ready(&w, 1));
    pool_world_release(&w);
}

/* The host dies between being admitted and becoming a member: it is still what it was, and may try again. */
static void test_join_again_after_a_crash(void **state)
{
    struct pool_world w;

    pool_world_init(&w, 2);
    pool_world_start(&w);
    assert_true(fault_arm("join.admitted=error"));
    pool_fails(&w, 1, "INTERNAL_ERROR", "pool.join", 3, S(w.hosts[0].address), S("root"), S(POOL_PASSWORD));
    fault_disarm(NULL);
    assert_int_equal(records(&w, 0, "host").len, 2);
    pool_host_stop(&w, 1);
    pool_host_start(&w, 1);
    assert_true(pool_xapi(&w, 1)->is_coordinator);
    assert_int_equal(records(&w, 1, "host").len, 1);
    pool_world_join(&w, 1);
    assert_int_equal(records(&w, 0, "host").len, 2);
    assert_int_equal(records(&w, 0, "PIF").len, 4);
    pool_world_release(&w);
}

/* The pool's processor features are what all its hosts have. */
static void test_cpu_features_are_the_common_ones(void **state)
{
    struct pool_world w;

    pool_world_init(&w, 2);
    pool_world_option(&w, "sim-cpu-features", "ffff00ff-00000003");
    pool_host_start(&w, 0);
    pool_world_option(&w, "sim-cpu-features", "0ff0ffff-00000005");
    pool_host_start(&w, 1);
    pool_world_join(&w, 1);
    struct value pool = first(&w, 0, "pool");
    is_text(value_get(&pool, "cpu_info"), "features_hvm", "0ff000ff-00000001");
    pool_world_release(&w);
}

/* --- heartbeat --------------------------------------------------------------------------------------------------- */
static bool live(struct pool_world *w, const char *host)
{
    return strcmp(pool_text(w, 0, "host_metrics.get_live", pool_text(w, 0, "host.get_metrics", host)), "true") == 0;
}

static void test_heartbeat(void **state)
{
    struct pool_world w;
    const char *member, *sr;

    pool_world_init(&w, 2);
    pool_world_option(&w, "host-assumed-dead-interval-ms", "600");
    pool_world_start(&w);
    sr = first_ref(&w, 1, "SR");
    pool_world_join(&w, 1);
    member = pool_host_ref(&w, 1);
    POOL_UNTIL(pool_ok(&w, 0, "host_metrics.get_memory_free", 1, S(pool_text(&w, 0, "host.get_metrics", member))).i > 0);

    pool_host_stop(&w, 1);
    POOL_UNTIL(!live(&w, member));
    const struct member disk[] = { member_of("SR", S(sr)), member_of("virtual_size", value_int(1 << 20)) };
    pool_fails(&w, 0, "HOST_OFFLINE", "VDI.create", 1, value_map(disk, 2));
    pool_fails(&w, 0, "HOST_OFFLINE", "pool.eject", 1, S(member));
    pool_host_start(&w, 1);
    POOL_UNTIL(pool_host_ready(&w, 1));
    assert_true(live(&w, member));

    /* a coordinator that comes back finds its member again, without a new hello */
    pool_host_stop(&w, 0);
    pool_host_start(&w, 0);
    POOL_UNTIL(pool_host_ready(&w, 1));
    pool_ok(&w, 0, "VDI.create", 1, value_map(disk, 2));

    /* for good */
    pool_host_stop(&w, 1);
    POOL_UNTIL(!live(&w, member));
    pool_ok(&w, 0, "host.destroy", 1, S(member));
    assert_int_equal(records(&w, 0, "host").len, 1);
    assert_int_equal(records(&w, 0, "SR").len, 1);
    assert_int_equal(records(&w, 0, "PIF").len, 2);
    pool_host_start(&w, 1);
    for (unsigned i = 0; i < 10; i++)
        pool_wait_step(0, "", __FILE__, __LINE__);
    assert_int_equal(records(&w, 0, "host").len, 1);
    pool_world_release(&w);
}

static void test_eject(void **state)
{
    struct pool_world w;
    const char *member, *uuid;

    pool_world_init(&w, 2);
    pool_world_start(&w);
    pool_world_join(&w, 1);
    member = pool_host_ref(&w, 1);
    uuid = arena_strdup(w.arena, pool_xapi(&w, 1)->host_uuid);
    pool_ok(&w, 0, "pool.eject", 1, S(member));
    assert_int_equal(records(&w, 0, "host").len, 1);
    assert_int_equal(records(&w, 0, "SR").len, 1);
    assert_int_equal(records(&w, 0, "PBD").len, 1);
    assert_int_equal(records(&w, 0, "PIF").len, 2);
    assert_int_equal(records(&w, 0, "Certificate").len, 1);
    pool_host_await_restart(&w, 1);
    assert_true(pool_xapi(&w, 1)->is_coordinator);
    assert_string_equal(pool_xapi(&w, 1)->host_uuid, uuid);
    assert_string_not_equal(pool_xapi(&w, 1)->pool_secret, pool_xapi(&w, 0)->pool_secret);
    assert_int_equal(records(&w, 1, "host").len, 1);
    pool_world_join(&w, 1); /* and back */
    assert_int_equal(records(&w, 0, "host").len, 2);
    pool_world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_pool_has_what_clients_need),
        cmocka_unit_test(test_restart_keeps_refs_and_uuids),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_join_refusals),
        cmocka_unit_test(test_join_checks_versions),
        cmocka_unit_test(test_join_again_after_a_crash),
        cmocka_unit_test(test_cpu_features_are_the_common_ones),
        cmocka_unit_test(test_heartbeat),
        cmocka_unit_test(test_eject),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
