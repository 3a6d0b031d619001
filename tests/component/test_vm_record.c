/* VM records: made, copied, provisioned, configured and destroyed. */
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"

#define MIB (1ll << 20)

static struct vm_world world;
#define W (&world)

static int setup(void **state)
{
    vm_world_init(W);
    return 0;
}

static int teardown(void **state)
{
    vm_world_release(W);
    return 0;
}

static const char *other_config(const char *vm, const char *key)
{
    struct value map = vm_ok(W, "VM.get_other_config", 1, S(vm));
    return arena_strdup(W->pool.arena, value_get_string(&map, key, ""));
}

static const char *disk_of(const char *vm)
{
    struct value vbds = vm_ok(W, "VM.get_VBDs", 1, S(vm));
    assert_int_equal(vbds.len, 1);
    return vm_field(W, "VBD.get_VDI", vbds.items[0].s);
}

static const char *add_vif(const char *vm)
{
    const struct member record[] = { member_of("VM", S(vm)), member_of("device", S("0")),
                                     member_of("network", S(vm_ok(W, "network.get_all", 0).items[0].s)) };
    return vm_ok(W, "VIF.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

/* --- create and destroy ---------------------------------------------------------------------------------------- */
static void test_create(void **state)
{
    const char *vm = vm_world_vm(W, "created", NULL);

    assert_string_equal(vm_field(W, "VM.get_power_state", vm), "Halted");
    assert_string_equal(vm_field(W, "VM.get_domain_type", vm), "hvm");
    assert_string_equal(vm_field(W, "VM.get_domid", vm), "-1");
    assert_true(uuid_valid(other_config(vm, "mac_seed")));
    assert_true(vm_ok(W, "VM.get_memory_overhead", 1, S(vm)).i > 5 * MIB);
    assert_string_not_equal(vm_field(W, "VM.get_metrics", vm), REF_NULL);
    assert_true(vm_world_allows(W, "VM", vm, "clone"));
    const struct member pv[] = { member_of("name_label", S("pv")), member_of("has_vendor_device", value_bool(true)) };
    vm = vm_ok(W, "VM.create", 1, value_map(pv, ARRAY_LEN(pv))).s;
    assert_string_equal(vm_field(W, "VM.get_domain_type", vm), "pv");
    assert_string_equal(vm_field(W, "VM.get_hardware_platform_version", vm), "2");
    const struct member hvm[] = { member_of("name_label", S("hvm")), member_of("domain_type", S("hvm")) };
    vm = vm_ok(W, "VM.create", 1, value_map(hvm, ARRAY_LEN(hvm))).s;
    assert_string_equal(vm_field(W, "VM.get_HVM_boot_policy", vm), "BIOS order");
}

static void test_destroy(void **state)
{
    const char *vm = vm_world_vm(W, "destroyed", NULL), *vdi = vm_world_vdi(W, "disk", MIB), *vbd = vm_world_vbd(W, vm, vdi), *vif = add_vif(vm);
    const char *metrics = vm_field(W, "VM.get_metrics", vm);

    vm_world_start(W, vm);
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.destroy", 1, S(vm)), 3, vm, "halted, suspended", "running");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_ok(W, "VM.destroy", 1, S(vm));
    vm_fails(W, "HANDLE_INVALID", "VM.get_uuid", 1, S(vm));
    vm_fails(W, "HANDLE_INVALID", "VBD.get_uuid", 1, S(vbd));
    vm_fails(W, "HANDLE_INVALID", "VIF.get_uuid", 1, S(vif));
    vm_fails(W, "HANDLE_INVALID", "VM_metrics.get_uuid", 1, S(metrics));
    assert_int_equal(vm_ok(W, "VDI.get_VBDs", 1, S(vdi)).len, 0); /* the disk stays */
    vm_ok(W, "VDI.destroy", 1, S(vdi));
}

/* A suspended VM takes its image with it. */
static void test_destroy_suspended(void **state)
{
    const char *vm = vm_world_running(W, "suspended", NULL), *image;

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "suspend"));
    vm_ok(W, "VM.suspend", 1, S(vm));
    image = vm_field(W, "VM.get_suspend_VDI", vm);
    vm_ok(W, "VM.destroy", 1, S(vm));
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(image));
}

/* --- clone and copy ------------------------------------------------------------------------------------------------ */
static void check_copy(const char *vm, const char *copy, const char *vif)
{
    struct value vifs = vm_ok(W, "VM.get_VIFs", 1, S(copy));

    assert_string_not_equal(vm_field(W, "VM.get_uuid", copy), vm_field(W, "VM.get_uuid", vm));
    assert_string_not_equal(other_config(copy, "mac_seed"), other_config(vm, "mac_seed"));
    assert_string_not_equal(disk_of(copy), disk_of(vm));
    assert_int_equal(vm_ok(W, "VDI.get_virtual_size", 1, S(disk_of(copy))).i, MIB);
    assert_int_equal(vifs.len, 1);
    assert_string_not_equal(vm_field(W, "VIF.get_MAC", vifs.items[0].s), vm_field(W, "VIF.get_MAC", vif));
    assert_string_equal(vm_field(W, "VM.get_power_state", copy), "Halted");
    assert_string_equal(vm_field(W, "VM.get_parent", copy), REF_NULL);
    assert_string_not_equal(vm_field(W, "VM.get_metrics", copy), vm_field(W, "VM.get_metrics", vm));
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(copy)).len, 0);
    assert_true(vm_world_allows(W, "VM", copy, "start"));
    vm_world_start(W, copy);
    vm_ok(W, "VM.hard_shutdown", 1, S(copy));
}

static void test_clone_and_copy(void **state)
{
    const char *vm = vm_world_vm(W, "original", NULL), *vif = add_vif(vm), *copy;

    vm_world_vbd(W, vm, vm_world_vdi(W, "disk", MIB));
    copy = vm_ok(W, "VM.clone", 2, S(vm), S("clone")).s;
    assert_string_equal(vm_field(W, "VM.get_name_label", copy), "clone");
    check_copy(vm, copy, vif);
    copy = vm_ok(W, "VM.copy", 3, S(vm), S("copy"), S(W->sr)).s;
    assert_string_equal(vm_field(W, "VDI.get_SR", disk_of(copy)), W->sr);
    check_copy(vm, copy, vif);
    copy = vm_ok(W, "VM.copy", 3, S(vm), S("copy"), S("")).s; /* XO says "" for none */
    check_copy(vm, copy, vif);
    vm_world_start(W, vm);
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.clone", 2, S(vm), S("x")), 3, vm, "halted", "running");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* A copy that fails half-way leaves nothing. */
static void test_copy_that_fails(void **state)
{
    const char *vm = vm_world_vm(W, "two disks", NULL), *second = vm_world_vdi(W, "second", MIB);

    vm_world_vbd(W, vm, vm_world_vdi(W, "first", MIB));
    vm_world_vbd(W, vm, second);
    unsigned vdis = vm_ok(W, "VDI.get_all", 0).len, vms = vm_ok(W, "VM.get_all", 0).len;
    struct xapi *xapi = pool_xapi(&W->pool, 0);
    struct error *e = db_set(xapi->db, W->pool.arena, CLASS_VDI, second, F_VDI_location, S("no such file"));
    assert_null(e);
    struct value ignored;
    assert_non_null(pool_call(&W->pool, 0, "VM.copy", &ignored, 3, S(vm), S("copy"), S(W->sr)));
    assert_int_equal(vm_ok(W, "VDI.get_all", 0).len, vdis);
    assert_int_equal(vm_ok(W, "VM.get_all", 0).len, vms);
    assert_int_equal(vm_ok(W, "VM.get_current_operations", 1, S(vm)).len, 0);
}

/* --- templates ------------------------------------------------------------------------------------------------------ */
static void test_provision(void **state)
{
    const char *template = vm_world_vm(W, "template", NULL), *vm;

    vm_ok(W, "VM.set_is_a_template", 2, S(template), value_bool(true));
    assert_false(vm_world_allows(W, "VM", template, "start"));
    error_has(vm_fails(W, "VM_IS_TEMPLATE", "VM.start", 3, S(template), value_bool(false), value_bool(false)), 2, template, "start");
    vm_ok(W, "VM.add_to_other_config", 3, S(template), S("disks"),
          S("<provision><disk device=\"0\" size=\"1048576\" sr=\"\" bootable=\"true\" type=\"system\"/>"
            "<disk device='1' size='2097152' sr='' bootable='false' type='user'/></provision>"));
    vm = vm_ok(W, "VM.clone", 2, S(template), S("from template")).s;
    assert_string_equal(vm_field(W, "VM.get_is_a_template", vm), "true");
    vm_ok(W, "VM.provision", 1, S(vm));
    assert_string_equal(vm_field(W, "VM.get_is_a_template", vm), "false");
    assert_string_equal(other_config(vm, "disks"), "");
    struct value vbds = vm_ok(W, "VM.get_VBDs", 1, S(vm));
    assert_int_equal(vbds.len, 2);
    assert_string_equal(vm_field(W, "VBD.get_bootable", vbds.items[0].s), "true");
    assert_int_equal(vm_ok(W, "VDI.get_virtual_size", 1, S(vm_field(W, "VBD.get_VDI", vbds.items[1].s))).i, 2 * MIB);
    assert_true(vm_world_allows(W, "VM", vm, "start"));
    vm_fails(W, "PROVISION_ONLY_ALLOWED_ON_TEMPLATE", "VM.provision", 1, S(vm));
}

/* All disks or none. */
static void test_provision_that_fails(void **state)
{
    const char *vm = vm_world_vm(W, "bad template", NULL);
    unsigned vdis = vm_ok(W, "VDI.get_all", 0).len;

    vm_ok(W, "VM.set_is_a_template", 2, S(vm), value_bool(true));
    vm_ok(W, "VM.add_to_other_config", 3, S(vm), S("disks"), S("<provision><disk device=\"0\" size=\"1048576\"/><disk device=\"1\" size=\"none\"/></provision>"));
    vm_fails(W, "INVALID_VALUE", "VM.provision", 1, S(vm));
    assert_int_equal(vm_ok(W, "VDI.get_all", 0).len, vdis);
    assert_int_equal(vm_ok(W, "VM.get_VBDs", 1, S(vm)).len, 0);
    assert_string_equal(vm_field(W, "VM.get_is_a_template", vm), "true");
}

static void test_templates_are_halted(void **state)
{
    const char *vm = vm_world_running(W, "no template", NULL);

    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.set_is_a_template", 2, S(vm), value_bool(true)), 3, vm, "halted", "running");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- settings --------------------------------------------------------------------------------------------------------- */
static void test_processors(void **state)
{
    const char *vm = vm_world_vm(W, "processors", NULL), *rule = "VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max";
    int64_t overhead = vm_ok(W, "VM.get_memory_overhead", 1, S(vm)).i;

    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_VCPUs_at_startup", 2, S(vm), value_int(2)), 2, rule, "2");
    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_VCPUs_max", 2, S(vm), value_int(0)), 2, rule, "0");
    vm_ok(W, "VM.set_VCPUs_max", 2, S(vm), S("4")); /* XO Lite sends strings */
    vm_ok(W, "VM.set_VCPUs_at_startup", 2, S(vm), value_int(2));
    assert_true(vm_ok(W, "VM.get_memory_overhead", 1, S(vm)).i > overhead);
    assert_int_equal(vm_ok(W, "VM.compute_memory_overhead", 1, S(vm)).i, vm_ok(W, "VM.get_memory_overhead", 1, S(vm)).i);
    vm_world_start(W, vm);
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.set_VCPUs_max", 2, S(vm), value_int(8)), 3, vm, "halted", "running");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static void test_memory(void **state)
{
    const char *vm = vm_world_vm(W, "memory", NULL);

    vm_ok(W, "VM.set_memory_limits", 5, S(vm), value_int(8 * MIB), value_int(64 * MIB), value_int(16 * MIB), value_int(32 * MIB));
    error_has(vm_fails(W, "MEMORY_CONSTRAINT_VIOLATION", "VM.set_memory_static_max", 2, S(vm), value_int(24 * MIB)), 1,
              "Memory limits must satisfy: static_min ≤ dynamic_min ≤ dynamic_max ≤ static_max");
    vm_ok(W, "VM.set_memory_dynamic_range", 3, S(vm), value_int(16 * MIB), value_int(24 * MIB));
    vm_ok(W, "VM.set_memory_static_max", 2, S(vm), value_int(24 * MIB));
    vm_ok(W, "VM.set_memory_static_min", 2, S(vm), value_int(16 * MIB));
    vm_fails(W, "MEMORY_CONSTRAINT_VIOLATION", "VM.set_memory_dynamic_min", 2, S(vm), value_int(8 * MIB));
    vm_ok(W, "VM.set_memory_static_range", 3, S(vm), value_int(8 * MIB), value_int(32 * MIB));
    vm_ok(W, "VM.set_memory_dynamic_max", 2, S(vm), value_int(32 * MIB));
    vm_ok(W, "VM.set_memory_dynamic_min", 2, S(vm), value_int(8 * MIB));
    vm_ok(W, "VM.set_memory", 2, S(vm), value_int(16 * MIB));
    assert_int_equal(vm_ok(W, "VM.get_memory_dynamic_min", 1, S(vm)).i, 16 * MIB);
    assert_int_equal(vm_ok(W, "VM.get_memory_static_max", 1, S(vm)).i, 16 * MIB);
    assert_int_equal(vm_ok(W, "VM.get_memory_target", 1, S(vm)).i, 16 * MIB);
    int64_t most = vm_ok(W, "VM.maximise_memory", 3, S(vm), value_int(1024 * MIB), value_bool(false)).i;
    assert_true(most > 900 * MIB && most < 1024 * MIB && most % MIB == 0);
    assert_true(vm_ok(W, "VM.maximise_memory", 3, S(vm), value_int(1024 * MIB), value_bool(true)).i < most);
    vm_ok(W, "VM.add_to_platform", 3, S(vm), S("nested-virt"), S("true"));
}

static void test_type(void **state)
{
    const char *vm = vm_world_vm(W, "type", NULL);

    vm_ok(W, "VM.set_domain_type", 2, S(vm), S("pv"));
    assert_string_equal(vm_field(W, "VM.get_HVM_boot_policy", vm), "");
    vm_ok(W, "VM.set_HVM_boot_policy", 2, S(vm), S("BIOS order"));
    assert_string_equal(vm_field(W, "VM.get_domain_type", vm), "hvm");
    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_domain_type", 2, S(vm), S("unspecified")), 2, "domain_type", "unspecified");
    vm_ok(W, "VM.set_HVM_shadow_multiplier", 2, S(vm), value_float(2));
    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_HVM_shadow_multiplier", 2, S(vm), value_float(0.5)), 2, "multiplier", "0.5");
}

static void test_firmware(void **state)
{
    const char *vm = vm_world_vm(W, "firmware", NULL);
    const struct member good[] = { member_of("bios-vendor", S("somebody")) }, unknown[] = { member_of("colour", S("red")) },
                        empty[] = { member_of("bios-vendor", S("")) };

    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_bios_strings", 2, S(vm), value_map(unknown, 1)), 2, "colour", "Unknown key");
    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_bios_strings", 2, S(vm), value_map(empty, 1)), 2, "bios-vendor", "Value provided is empty");
    vm_ok(W, "VM.set_bios_strings", 2, S(vm), value_map(good, 1));
    vm_fails(W, "VM_BIOS_STRINGS_ALREADY_SET", "VM.set_bios_strings", 2, S(vm), value_map(good, 1));
    vm_fails(W, "VM_BIOS_STRINGS_ALREADY_SET", "VM.copy_bios_strings", 2, S(vm), S(W->host));
    const char *other = vm_world_vm(W, "copied firmware", NULL);
    vm_ok(W, "VM.copy_bios_strings", 2, S(other), S(W->host));
    assert_string_equal(vm_field(W, "VM.get_affinity", other), W->host);
    vm_ok(W, "VM.add_to_NVRAM", 3, S(vm), S("EFI-variables"), S("x"));
    vm_fails(W, "MAP_DUPLICATE_KEY", "VM.add_to_NVRAM", 3, S(vm), S("EFI-variables"), S("y"));
    vm_ok(W, "VM.remove_from_NVRAM", 2, S(vm), S("EFI-variables"));
}

static void test_order(void **state)
{
    const char *vm = vm_world_vm(W, "order", NULL);

    vm_ok(W, "VM.set_order", 2, S(vm), value_int(3));
    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_start_delay", 2, S(vm), value_int(-1)), 2, "start_delay must be non-negative", "-1");
    vm_ok(W, "VM.set_shutdown_delay", 2, S(vm), value_int(1));
    vm_ok(W, "VM.set_ha_restart_priority", 2, S(vm), S("restart"));
    error_has(vm_fails(W, "INVALID_VALUE", "VM.set_ha_restart_priority", 2, S(vm), S("1")), 2, "ha_restart_priority", "1");
    vm_ok(W, "VM.set_ha_always_run", 2, S(vm), value_bool(false));
    assert_string_equal(vm_field(W, "VM.get_ha_restart_priority", vm), "");
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.set_suspend_VDI", 2, S(vm), S(REF_NULL)), 3, vm, "suspended", "halted");
}

/* --- questions --------------------------------------------------------------------------------------------------------- */
static void test_questions(void **state)
{
    const char *vm = vm_world_vm(W, "questions", NULL);

    vm_ok(W, "VM.assert_can_boot_here", 2, S(vm), S(W->host));
    struct value hosts = vm_ok(W, "VM.get_possible_hosts", 1, S(vm));
    assert_int_equal(hosts.len, 1);
    assert_string_equal(hosts.items[0].s, W->host);
    vm_ok(W, "VM.assert_operation_valid", 2, S(vm), S("start"));
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VM.assert_operation_valid", 2, S(vm), S("suspend")), 3, vm, "running", "halted");
    vm_ok(W, "VM.update_allowed_operations", 1, S(vm));
    assert_true(vm_ok(W, "VM.get_cooperative", 1, S(vm)).i);
    vm_ok(W, "VM.set_memory_limits", 5, S(vm), value_int(4096 * MIB), value_int(4096 * MIB), value_int(4096 * MIB), value_int(4096 * MIB));
    vm_fails(W, "HOST_NOT_ENOUGH_FREE_MEMORY", "VM.assert_can_boot_here", 2, S(vm), S(W->host));
    assert_int_equal(vm_ok(W, "VM.get_possible_hosts", 1, S(vm)).len, 0);
    vm_fails(W, "HOST_NOT_ENOUGH_FREE_MEMORY", "VM.start", 3, S(vm), value_bool(false), value_bool(false));
    assert_string_equal(vm_field(W, "VM.get_scheduled_to_be_resident_on", vm), REF_NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),          cmocka_unit_test(test_destroy),    cmocka_unit_test(test_destroy_suspended),
        cmocka_unit_test(test_clone_and_copy),  cmocka_unit_test(test_copy_that_fails), cmocka_unit_test(test_provision),
        cmocka_unit_test(test_provision_that_fails), cmocka_unit_test(test_templates_are_halted), cmocka_unit_test(test_processors),
        cmocka_unit_test(test_memory),          cmocka_unit_test(test_type),       cmocka_unit_test(test_firmware),
        cmocka_unit_test(test_order),           cmocka_unit_test(test_questions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
