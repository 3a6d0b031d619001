/* VM.assert_can_migrate, host.migrate_receive and what VM.migrate_send asks before it moves anything. All faults stand at once and
 * are taken away one by one: that is how their order is seen. */
#include "tests/component/send_world.h"

/* --- within the pool: all errors, in their order --------------------------------------------------------------------------------- */
static void test_order_local(void **state)
{
    const char *vm = vm_world_vm(W, "order-local", NULL), *odd = sr_make(0, hosts[0], "odd", false), *d = disk(odd, 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };
    const char *pool = first_of(0, CLASS_pool), *was = row_string(look(0, CLASS_pool, pool), F_pool_default_SR);

    plug(vm, d, "RW", "Disk");
    set(0, CLASS_pool, pool, F_pool_default_SR, S(REF_NULL));
    const char *version = xen_version(0, hosts[1], "1.0");
    struct features taken = without(0, "VDI_SNAPSHOT");
    set(0, CLASS_host, hosts[1], F_host_enabled, value_bool(false));
    say(&t.vifs, vif_make(vm, "0"), first_of(0, CLASS_network));
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(true));
    put(0, CLASS_VDI, d, F_VDI_sm_config, "key_hash", "x");
    set(0, CLASS_host, hosts[0], F_host_enabled, value_bool(false));
    say(&t.options, "copy", "true");
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("reset"));
    say(&t.formats, d, "vmdk");
    set(0, CLASS_VDI, d, F_VDI_virtual_size, value_int(1ll << 60));
    set(0, CLASS_VDI, d, F_VDI_physical_utilisation, value_int(1ll << 60));

    error_has(fails(&t, "VDI_NOT_IN_MAP"), 1, d);
    say(&t.disks, d, stores[1]);
    error_has(fails(&t, "NOT_SUPPORTED_DURING_UPGRADE"), 0);
    xen_version(0, hosts[1], version);
    error_has(fails(&t, "SR_DOES_NOT_SUPPORT_MIGRATION"), 2, odd, "VDI_SNAPSHOT;VDI_MIRROR");
    give_back(taken);
    error_has(fails(&t, "HOST_DISABLED"), 1, hosts[1]);
    set(0, CLASS_host, hosts[1], F_host_enabled, value_bool(true));
    assert_int_equal(fails(&t, "OPERATION_NOT_ALLOWED")->n_params, 1);
    t.vifs = (struct value_dict){ 0 };
    error_has(fails(&t, "VDI_CBT_ENABLED"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(false));
    error_has(fails(&t, "VDI_IS_ENCRYPTED"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_sm_config, value_map(NULL, 0));
    error_has(fails_to_send(&t, "NO_HOSTS_AVAILABLE"), 0);
    set(0, CLASS_host, hosts[0], F_host_enabled, value_bool(true));
    assert_int_equal(fails_to_send(&t, "OPERATION_NOT_ALLOWED")->n_params, 1);
    t.options = (struct value_dict){ 0 };
    error_has(fails_to_send(&t, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("persist"));
    assert_int_equal(fails_to_send(&t, "VDI_INCOMPATIBLE_TYPE")->n_params, 1);
    say(&t.formats, d, "qcow2");
    const struct error *full = fails(&t, "SR_FULL");
    assert_string_equal(full->params[0], "1152921504606846976");
    set(0, CLASS_VDI, d, F_VDI_virtual_size, value_int(1 << 20));
    set(0, CLASS_VDI, d, F_VDI_physical_utilisation, value_int(1 << 20));
    passes(&t, true);
    goes(&t, d, MOVE_DISK_MIRROR, stores[1]);
    assert_string_equal(planned(&t, d)->format, "qcow2");
    assert_string_equal(t.move.from, hosts[0]);
    assert_ptr_equal(t.move.destination.ops, &destination_local);
    assert_string_equal(t.move.destination.target.address, P->hosts[1].address);
    assert_non_null(t.move.destination.target.fingerprint);
    set(0, CLASS_pool, pool, F_pool_default_SR, S(was));
}

static void test_boot_checks_local(void **state)
{
    const char *vm = vm_world_vm(W, "boot-local", NULL);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };

    passes(&t, true);
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(5000));
    assert_string_equal(fails(&t, "HOST_NOT_ENOUGH_PCPUS")->params[0], "5000");
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(1));
    set(0, CLASS_VM, vm, F_VM_memory_static_max, value_int(1ll << 50));
    set(0, CLASS_VM, vm, F_VM_memory_dynamic_max, value_int(1ll << 50));
    set(0, CLASS_VM, vm, F_VM_memory_dynamic_min, value_int(1ll << 50));
    assert_int_equal(fails(&t, "HOST_NOT_ENOUGH_FREE_MEMORY")->n_params, 2);
}

/* --- the token and the options ----------------------------------------------------------------------------------------------------------- */
static void test_receive(void **state)
{
    const char *network = row_string(look(0, CLASS_PIF, first_of(0, CLASS_PIF)), F_PIF_network);
    struct value t = token_of(0, hosts[1]);
    const char *session = value_get_string(&t, "session_id", "");
    const struct row *made = look(0, CLASS_session, session);

    assert_int_equal(t.len, 5);
    assert_string_equal(value_get_string(&t, "host", ""), hosts[1]);
    assert_string_equal(value_get_string(&t, "SM", ""), arena_printf(P->arena, "http://%s/services/SM?session_id=%s", P->hosts[1].address, session));
    assert_string_equal(value_get_string(&t, "xenops", ""), arena_printf(P->arena, "http://%s/services/xenops?session_id=%s", P->hosts[1].address, session));
    assert_string_equal(value_get_string(&t, "master", ""), arena_printf(P->arena, "http://%s", P->hosts[0].address));
    assert_string_not_equal(session, P->hosts[0].session);
    assert_non_null(made);
    assert_true(row_bool(made, F_session_is_local_superuser));
    const char *nowhere = row(0, CLASS_network, NULL, (struct field_value[]){ { F_network_name_label, S("nowhere") } }, 1);
    error_has(vm_fails(W, "HOST_CANNOT_ATTACH_NETWORK", "host.migrate_receive", 3, S(hosts[1]), S(nowhere), value_map(NULL, 0)), 2, hosts[1], nowhere);
    assert_non_null(network);
}

static void test_token_and_options(void **state)
{
    static const char *const keys[] = { "SM", "xenops", "master", "host", "session_id" };
    struct try t = { .vm = vm_world_vm(W, "token", NULL) };
    struct value whole = token_of(0, hosts[1]);

    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        struct value_dict part = { 0 };
        for (unsigned k = 0; k < whole.len; k++)
            if (strcmp(whole.members[k].name, keys[i]) != 0)
                value_dict_add(P->arena, &part, whole.members[k].name, whole.members[k].value);
        t.token = value_dict_value(&part);
        const struct error *e = fails(&t, "INTERNAL_ERROR");
        assert_non_null(strstr(e->params[0], keys[i]));
        assert_null(strstr(e->params[0], value_get_string(&whole, "session_id", "?")));
    }
    t.token = whole;
    say(&t.options, "streams", "99");
    error_has(fails(&t, "INVALID_VALUE"), 2, "streams", "99");
    say(&t.options, "streams", "2");
    say(&t.options, "migrate_uri", "tcp://127.0.0.9:4444");
    passes(&t, true);
    assert_string_equal(t.move.destination.target.address, "127.0.0.9");
    assert_int_equal(t.move.destination.target.port, 4444);
}

/* --- to another pool: all errors, in their order --------------------------------------------------------------------------------------------- */
static void test_order_remote(void **state)
{
    const char *vm = vm_world_vm(W, "order-remote", NULL), *odd = sr_make(0, hosts[0], "odd-remote", false), *d = disk(odd, 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(2, hosts[2]) };
    const char *pool = first_of(2, CLASS_pool), *was = row_string(look(2, CLASS_pool, pool), F_pool_default_SR), *uuid = vm_field(W, "VM.get_uuid", vm);
    const char *vif = vif_make(vm, "0");

    plug(vm, d, "RW", "Disk");
    set(2, CLASS_pool, pool, F_pool_default_SR, S(REF_NULL));
    const char *version = xen_version(2, hosts[2], "1.0");
    struct features taken = without(2, "VDI_MIRROR_IN");
    say(&t.options, "copy", "true");
    set(0, CLASS_VM, vm, F_VM_power_state, S("Suspended"));
    set(0, CLASS_VM, vm, F_VM_hardware_platform_version, value_int(99));
    set(2, CLASS_host, hosts[2], F_host_enabled, value_bool(false));
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(5000));
    const char *twin = row(2, CLASS_VM, uuid, (struct field_value[]){ { F_VM_name_label, S("twin") }, { F_VM_power_state, S("Halted") }, { F_VM_version, value_int(7) } }, 3);
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(true));
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("reset"));

    error_has(fails(&t, "VDI_NOT_IN_MAP"), 1, d);
    say(&t.disks, d, stores[2]);
    error_has(fails(&t, "VM_HOST_INCOMPATIBLE_VERSION_MIGRATE"), 2, vm, hosts[2]);
    xen_version(2, hosts[2], version);
    error_has(fails(&t, "SR_DOES_NOT_SUPPORT_MIGRATION"), 2, stores[2], "VDI_MIRROR_IN");
    give_back(taken);
    error_has(fails(&t, "VM_BAD_POWER_STATE"), 3, vm, "halted", "suspended");
    t.options = (struct value_dict){ 0 };
    set(0, CLASS_VM, vm, F_VM_power_state, S("Halted"));
    const struct error *e = fails(&t, "VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION");
    error_has(e, 4, hosts[2], e->params[1], vm, "99");
    assert_int_equal(e->params[1][0], '[');
    set(0, CLASS_VM, vm, F_VM_hardware_platform_version, value_int(0));
    error_has(fails(&t, "HOST_DISABLED"), 1, hosts[2]);
    set(2, CLASS_host, hosts[2], F_host_enabled, value_bool(true));
    assert_string_equal(fails(&t, "HOST_NOT_ENOUGH_PCPUS")->params[0], "5000");
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(1));
    error_has(fails(&t, "VIF_NOT_IN_MAP"), 1, vif);
    say(&t.vifs, vif, first_of(2, CLASS_network));
    e = fails(&t, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION"); /* the dry run */
    assert_string_equal(e->params[0], twin);
    ok(db_delete(pool_xapi(P, 2)->db, P->arena, CLASS_VM, twin));
    error_has(fails(&t, "VDI_CBT_ENABLED"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(false));
    error_has(fails_to_send(&t, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("persist"));
    passes(&t, true);
    goes(&t, d, MOVE_DISK_MIRROR, stores[2]);
    assert_string_equal(t.move.vifs[0].network, first_of(2, CLASS_network));
    assert_ptr_equal(t.move.destination.ops, &destination_remote);
    assert_string_equal(t.move.destination.target.address, P->hosts[2].address);
    assert_true(t.move.destination.target.tls && t.move.destination.target.port == P->port);
    assert_string_equal(t.move.destination.host_uuid, pool_xapi(P, 2)->host_uuid);
    assert_null(db_by_uuid(pool_xapi(P, 2)->db, P->arena, &model_classes[CLASS_VM], uuid)); /* nothing was made */
    set(2, CLASS_pool, pool, F_pool_default_SR, S(was));
}

static void test_remote_room_and_memory(void **state)
{
    const char *vm = vm_world_vm(W, "room-remote", NULL), *d = disk(stores[0], 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(2, hosts[2]) };

    plug(vm, d, "RW", "Disk");
    passes(&t, false);
    goes(&t, d, MOVE_DISK_MIRROR, stores[2]); /* of the same name and type */
    int64_t size = row_int(look(2, CLASS_SR, stores[2]), F_SR_physical_size), used = row_int(look(2, CLASS_SR, stores[2]), F_SR_physical_utilisation);
    set(2, CLASS_SR, stores[2], F_SR_physical_size, value_int(1 << 20));
    set(2, CLASS_SR, stores[2], F_SR_physical_utilisation, value_int(4096));
    error_has(fails(&t, "SR_FULL"), 2, "1048576", "1044480");
    set(2, CLASS_SR, stores[2], F_SR_physical_size, value_int(size));
    set(2, CLASS_SR, stores[2], F_SR_physical_utilisation, value_int(used));
    struct value dead = t.token;
    say(&t.disks, d, stores[2]);
    assert_true(session_destroy(pool_xapi(P, 2), P->arena, value_get_string(&dead, "session_id", "")));
    assert_string_equal(fails(&t, "SESSION_INVALID")->params[0], value_get_string(&dead, "session_id", ""));
}

static void test_unreachable_pool(void **state)
{
    struct try t = { .vm = vm_world_vm(W, "unreachable", NULL), .token = token_of(2, hosts[2]) };
    struct value_dict changed = { 0 };

    for (unsigned i = 0; i < t.token.len; i++)
        value_dict_add(P->arena, &changed, t.token.members[i].name, t.token.members[i].value);
    say(&changed, "master", "http://127.0.0.1:9");
    t.token = value_dict_value(&changed);
    error_has(fails(&t, "CANNOT_CONTACT_HOST"), 1, "127.0.0.1");
}

/* The thread that keeps the session ends with the memory of the call, and at once. */
static void test_session_is_kept(void **state)
{
    struct value map = token_of(2, hosts[2]);
    struct arena *a = arena_new();
    struct migration_token token;
    struct peer_pool *peer;
    struct value record;
    struct api_call c;
    bool found;

    api_call_init(&c, pool_xapi(P, 0), a, "test");
    ok(migration_token_read(&c, &map, &token));
    ok(peer_pool_open(&c, &token, &peer));
    peer_pool_keep(peer, pool_xapi(P, 0));
    peer_pool_keep(peer, pool_xapi(P, 0));
    ok(peer_pool_record(&c, peer, "host", hosts[2], &record, &found));
    assert_true(found);
    ok(peer_pool_record(&c, peer, "host", hosts[1], &record, &found));
    assert_false(found);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_order_local),
        cmocka_unit_test(test_boot_checks_local),
        cmocka_unit_test(test_token_and_options),
        cmocka_unit_test(test_order_remote),
        cmocka_unit_test(test_remote_room_and_memory),
        cmocka_unit_test(test_unreachable_pool),
        cmocka_unit_test(test_session_is_kept),
    };

    return cmocka_run_group_tests(tests, send_world_setup, send_world_teardown);
}
