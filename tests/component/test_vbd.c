/* Block devices and network interfaces: constructors, media, plugging, the limits around them. */
#include <string.h>

#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"
#include "xapi/core/operations.h"

#define MIB (1ll << 20)

static struct vm_world world;
#define W (&world)

static const char *iso_sr, *iso;

/* An ISO SR with one image, found by scanning. */
static void make_iso(void)
{
    const char *dir = tempdir_file(&W->pool.dir, "isos");
    const struct member config[] = { member_of("location", S(dir)) };
    assert_int_equal(dir_create(dir, 0755), 0);
    assert_int_equal(file_replace(arena_printf(W->pool.arena, "%s/tools.iso", dir), "an image", 8, 0644), 0);
    iso_sr = vm_ok(W, "SR.create", 9, S(W->host), value_map(config, 1), value_int(0), S("isos"), S(""), S("iso"), S("iso"), value_bool(true),
                   value_map(NULL, 0)).s;
    vm_ok(W, "SR.scan", 1, S(iso_sr));
    struct value vdis = vm_ok(W, "SR.get_VDIs", 1, S(iso_sr));
    assert_int_equal(vdis.len, 1);
    iso = vdis.items[0].s;
}

static int setup(void **state)
{
    vm_world_init(W);
    make_iso();
    return 0;
}

static int teardown(void **state)
{
    vm_world_release(W);
    return 0;
}

static const struct error *create_fails(const char *code, const char *vm, const char *vdi, const char *device, const char *mode, const char *type)
{
    return vm_fails(W, code, "VBD.create", 1, vm_world_vbd_record(W, vm, vdi, device, mode, type));
}

static const char *create(const char *vm, const char *vdi, const char *device, const char *mode, const char *type)
{
    return vm_ok(W, "VBD.create", 1, vm_world_vbd_record(W, vm, vdi, device, mode, type)).s;
}

/* --- VBD.create ------------------------------------------------------------------------------------------- */
static void test_devices(void **state)
{
    const char *vm = vm_world_vm(W, "devices", NULL), *vdi = vm_world_vdi(W, "disk", MIB);
    const char *first = create(vm, vdi, "autodetect", "RW", "Disk");

    assert_string_equal(vm_field(W, "VBD.get_userdevice", first), "0");
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", first), "false");
    error_has(create_fails("DEVICE_ALREADY_EXISTS", vm, vdi, "0", "RW", "Disk"), 1, "0");
    error_has(create_fails("DEVICE_ALREADY_EXISTS", vm, vdi, "xvda", "RW", "Disk"), 1, "xvda");
    error_has(create_fails("DEVICE_ALREADY_EXISTS", vm, vdi, "hda", "RW", "Disk"), 1, "hda");
    error_has(create_fails("INVALID_DEVICE", vm, vdi, "first", "RW", "Disk"), 1, "first");
    error_has(create_fails("INVALID_DEVICE", vm, vdi, "1000", "RW", "Disk"), 1, "1000");
    assert_string_equal(vm_field(W, "VBD.get_userdevice", create(vm, vdi, "xvdc", "RW", "Disk")), "xvdc");
    assert_string_equal(vm_field(W, "VBD.get_userdevice", create(vm, vdi, "autodetect", "RW", "Disk")), "1");
    struct value devices = vm_ok(W, "VM.get_allowed_VBD_devices", 1, S(vm));
    assert_string_equal(devices.items[0].s, "3");
    assert_int_equal(devices.len, 255 - 3);
    vm_ok(W, "VBD.destroy", 1, S(first));
    devices = vm_ok(W, "VM.get_allowed_VBD_devices", 1, S(vm));
    assert_string_equal(devices.items[0].s, "0");
}

static void test_records(void **state)
{
    const char *vm = vm_world_vm(W, "records", NULL), *vdi = vm_world_vdi(W, "disk", MIB);

    assert_int_equal(create_fails("VBD_CDS_MUST_BE_READONLY", vm, iso, "autodetect", "RW", "CD")->n_params, 0);
    error_has(create_fails("VBD_NOT_REMOVABLE_MEDIA", vm, REF_NULL, "autodetect", "RW", "Disk"), 1, "in constructor");
    assert_string_equal(create_fails("VDI_IS_NOT_ISO", vm, vdi, "autodetect", "RO", "CD")->params[0], vdi);
    error_has(create_fails("VDI_READONLY", vm, iso, "autodetect", "RW", "Disk"), 1, iso);
    const char *drive = create(vm, REF_NULL, "autodetect", "RO", "CD");
    assert_string_equal(vm_field(W, "VBD.get_empty", drive), "true");
    error_has(vm_fails(W, "VBD_IS_EMPTY", "VBD.eject", 1, S(drive)), 1, drive);
    vm_ok(W, "VBD.set_mode", 2, S(create(vm, vdi, "autodetect", "RW", "Disk")), S("RO"));
}

static void test_not_while_it_moves(void **state)
{
    const char *vm = vm_world_vm(W, "moving", NULL), *vdi = vm_world_vdi(W, "disk", MIB);
    struct xapi *xapi = pool_xapi(&W->pool, 0);
    struct error *e = db_map_put(xapi->db, W->pool.arena, CLASS_VM, vm, F_VM_current_operations, "OpaqueRef:task", "pool_migrate");

    assert_null(e);
    error_has(create_fails("OTHER_OPERATION_IN_PROGRESS", vm, vdi, "autodetect", "RW", "Disk"), 4, "VM", vm, "pool_migrate", "OpaqueRef:task");
}

/* --- media ---------------------------------------------------------------------------------------------------- */
static void test_media(void **state)
{
    const char *vm = vm_world_vm(W, "media", NULL), *drive = create(vm, REF_NULL, "autodetect", "RO", "CD"), *disk = vm_world_vdi(W, "disk", MIB);

    vm_ok(W, "VBD.insert", 2, S(drive), S(iso));
    assert_string_equal(vm_field(W, "VBD.get_VDI", drive), iso);
    assert_string_equal(vm_field(W, "VBD.get_empty", drive), "false");
    error_has(vm_fails(W, "VBD_NOT_EMPTY", "VBD.insert", 2, S(drive), S(iso)), 1, drive);
    vm_ok(W, "VBD.eject", 1, S(drive));
    vm_fails(W, "VDI_IS_NOT_ISO", "VBD.insert", 2, S(drive), S(disk));
    vm_world_start(W, vm);
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", drive), "true");
    vm_ok(W, "VBD.insert", 2, S(drive), S(iso)); /* into a running guest */
    assert_string_equal(vm_field(W, "VBD.get_VDI", drive), iso);
    vm_ok(W, "VBD.eject", 1, S(drive));
    assert_string_equal(vm_field(W, "VBD.get_empty", drive), "true");
    assert_string_equal(vm_field(W, "VBD.get_VDI", drive), REF_NULL);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    const char *vbd = create(vm, disk, "autodetect", "RW", "Disk");
    error_has(vm_fails(W, "VBD_NOT_REMOVABLE_MEDIA", "VBD.eject", 1, S(vbd)), 1, vbd);
}

/* --- plugging --------------------------------------------------------------------------------------------------- */
static void test_plug_and_unplug(void **state)
{
    const char *vm = vm_world_running(W, "hotplug", NULL), *vdi = vm_world_vdi(W, "disk", MIB), *vbd;

    POOL_UNTIL(vm_world_allows(W, "VM", vm, "pool_migrate")); /* its drivers are there */
    vbd = create(vm, vdi, "1", "RW", "Disk");
    assert_true(vm_world_allows(W, "VBD", vbd, "plug"));
    error_has(vm_fails(W, "DEVICE_ALREADY_DETACHED", "VBD.unplug", 1, S(vbd)), 1, vbd);
    vm_ok(W, "VBD.plug", 1, S(vbd));
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vbd), "true");
    assert_string_equal(vm_field(W, "VBD.get_device", vbd), "xvdb");
    assert_false(vm_world_allows(W, "VDI", vdi, "destroy"));
    error_has(vm_fails(W, "DEVICE_ALREADY_ATTACHED", "VBD.plug", 1, S(vbd)), 1, vbd);
    error_has(vm_fails(W, "OPERATION_NOT_ALLOWED", "VBD.destroy", 1, S(vbd)), 1,
              arena_printf(W->pool.arena, "VBD '%s' still attached to '%s'", vm_field(W, "VBD.get_uuid", vbd), vm_field(W, "VM.get_uuid", vm)));
    vm_ok(W, "VBD.unplug", 1, S(vbd));
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vbd), "false");
    vm_ok(W, "VBD.destroy", 1, S(vbd));
    vm_ok(W, "VDI.destroy", 1, S(vdi));
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* A disk that was never plugged in is not there after a reboot either, but after the next start. */
static void test_unplugged_disk_stays_out(void **state)
{
    const char *vm = vm_world_running(W, "unplugged", NULL), *vbd = create(vm, vm_world_vdi(W, "disk", MIB), "autodetect", "RW", "Disk");

    vm_ok(W, "VM.hard_reboot", 1, S(vm));
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vbd), "false");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_world_start(W, vm);
    assert_string_equal(vm_field(W, "VBD.get_currently_attached", vbd), "true");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static void test_sharing(void **state)
{
    const char *vdi = vm_world_vdi(W, "shared", MIB), *a = vm_world_running(W, "a", NULL), *b = vm_world_running(W, "b", NULL);

    POOL_UNTIL(vm_world_allows(W, "VM", a, "pool_migrate") && vm_world_allows(W, "VM", b, "pool_migrate"));
    const char *of_a = create(a, vdi, "1", "RW", "Disk"), *of_b = create(b, vdi, "1", "RO", "Disk");
    vm_ok(W, "VBD.plug", 1, S(of_a));
    error_has(vm_fails(W, "VDI_IN_USE", "VBD.plug", 1, S(of_b)), 1, vdi);
    error_has(vm_fails(W, "VDI_IN_USE", "VBD.assert_attachable", 1, S(of_b)), 1, vdi);
    vm_ok(W, "VBD.unplug", 1, S(of_a));
    vm_ok(W, "VBD.assert_attachable", 1, S(of_b));
    vm_ok(W, "VBD.plug", 1, S(of_b));
    error_has(vm_fails(W, "VDI_IN_USE", "VBD.plug", 1, S(of_a)), 1, vdi); /* it wants to write */
    vm_ok(W, "VM.hard_shutdown", 1, S(a));
    vm_ok(W, "VM.hard_shutdown", 1, S(b));
}

static void test_states(void **state)
{
    const char *vm = vm_world_vm(W, "states", NULL), *vbd = create(vm, vm_world_vdi(W, "disk", MIB), "autodetect", "RW", "Disk");

    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VBD.plug", 1, S(vbd)), 3, vm, "running", "halted");
    vm_ok(W, "VM.start", 3, S(vm), value_bool(true), value_bool(false));
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VBD.unplug", 1, S(vbd)), 3, vm, "running", "paused");
    error_has(vm_fails(W, "VM_BAD_POWER_STATE", "VBD.set_mode", 2, S(vbd), S("RO")), 3, vm, "halted", "paused");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_ok(W, "VBD.set_unpluggable", 2, S(vbd), value_bool(false));
    error_has(vm_fails(W, "VBD_NOT_UNPLUGGABLE", "VBD.unplug", 1, S(vbd)), 1, vbd);
}

/* An HVM guest without drivers cannot hotplug. */
static void test_no_drivers(void **state)
{
    static const char *const bare[] = { "sim-no-tools", "true", NULL };
    const char *vm = vm_world_running(W, "bare", bare), *vbd = create(vm, vm_world_vdi(W, "disk", MIB), "autodetect", "RW", "Disk");

    error_has(vm_fails(W, "VM_MISSING_PV_DRIVERS", "VBD.plug", 1, S(vbd)), 1, vm);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- VIFs ---------------------------------------------------------------------------------------------------------- */
static const char *network(void)
{
    return vm_ok(W, "network.get_all", 0).items[0].s;
}

static struct value vif_record(const char *vm, const char *device, const char *mac)
{
    struct value_dict d = { 0 };
    value_dict_add(W->pool.arena, &d, "VM", S(vm));
    value_dict_add(W->pool.arena, &d, "network", S(network()));
    value_dict_add(W->pool.arena, &d, "device", S(device));
    value_dict_add(W->pool.arena, &d, "MAC", S(mac));
    return value_dict_value(&d);
}

static void test_vifs(void **state)
{
    const char *vm = vm_world_vm(W, "vifs", NULL), *vif = vm_ok(W, "VIF.create", 1, vif_record(vm, "0", "")).s, *mac = vm_field(W, "VIF.get_MAC", vif);

    assert_int_equal(strlen(mac), 17);
    assert_string_equal(vm_field(W, "VIF.get_MAC_autogenerated", vif), "true");
    error_has(vm_fails(W, "DEVICE_ALREADY_EXISTS", "VIF.create", 1, vif_record(vm, "0", "")), 1, "0");
    error_has(vm_fails(W, "INVALID_DEVICE", "VIF.create", 1, vif_record(vm, "eth0", "")), 1, "eth0");
    error_has(vm_fails(W, "MAC_INVALID", "VIF.create", 1, vif_record(vm, "1", "00:11:22")), 1, "00:11:22");
    error_has(vm_fails(W, "MAC_INVALID", "VIF.create", 1, vif_record(vm, "1", "01:00:5e:00:00:01")), 1, "01:00:5e:00:00:01");
    const char *second = vm_ok(W, "VIF.create", 1, vif_record(vm, "1", "AA:BB:CC:00:11:22")).s;
    assert_string_equal(vm_field(W, "VIF.get_MAC", second), "aa:bb:cc:00:11:22");
    assert_string_equal(vm_field(W, "VIF.get_MAC_autogenerated", second), "false");
    struct value devices = vm_ok(W, "VM.get_allowed_VIF_devices", 1, S(vm));
    assert_int_equal(devices.len, 5);
    assert_string_equal(devices.items[0].s, "2");
    vm_ok(W, "VIF.destroy", 1, S(vif));
    assert_string_equal(vm_field(W, "VIF.get_MAC", vm_ok(W, "VIF.create", 1, vif_record(vm, "0", "")).s), mac); /* of the seed and the device */
    vm_world_start(W, vm);
    assert_string_equal(vm_field(W, "VIF.get_currently_attached", second), "true");
    error_has(vm_fails(W, "OPERATION_NOT_ALLOWED", "VIF.destroy", 1, S(second)), 1, "VIF currently attached to a running VM");
    const char *late = vm_ok(W, "VIF.create", 1, vif_record(vm, "2", "")).s;
    assert_string_equal(vm_field(W, "VIF.get_currently_attached", late), "false");
    vm_ok(W, "VM.hard_reboot", 1, S(vm)); /* takes it in */
    assert_string_equal(vm_field(W, "VIF.get_currently_attached", late), "true");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

static void test_vif_addresses(void **state)
{
    const char *vm = vm_world_vm(W, "addresses", NULL), *vif = vm_ok(W, "VIF.create", 1, vif_record(vm, "0", "")).s;
    const struct value good[] = { S("192.0.2.1") }, bad[] = { S("192.0.2") };

    vm_ok(W, "VIF.set_ipv4_allowed", 2, S(vif), value_set(good, 1));
    error_has(vm_fails(W, "INVALID_VALUE", "VIF.set_ipv4_allowed", 2, S(vif), value_set(bad, 1)), 2, "ipv4_allowed", "192.0.2");
    vm_ok(W, "VIF.add_ipv6_allowed", 2, S(vif), S("2001:db8::1"));
    vm_ok(W, "VIF.remove_ipv6_allowed", 2, S(vif), S("2001:db8::1"));
    vm_ok(W, "VIF.set_locking_mode", 2, S(vif), S("locked"));
    vm_ok(W, "VIF.configure_ipv4", 4, S(vif), S("Static"), S("192.0.2.7/24"), S("192.0.2.254"));
    assert_string_equal(vm_field(W, "VIF.get_ipv4_gateway", vif), "192.0.2.254");
    vm_fails(W, "INVALID_CIDR_ADDRESS_SPECIFIED", "VIF.configure_ipv4", 4, S(vif), S("Static"), S("192.0.2.7"), S(""));
    vm_ok(W, "VIF.configure_ipv4", 2, S(vif), S("None"));
    assert_int_equal(vm_ok(W, "VIF.get_ipv4_addresses", 1, S(vif)).len, 0);
    vm_fails(W, "NOT_IMPLEMENTED", "VIF.plug", 1, S(vif));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices), cmocka_unit_test(test_records),  cmocka_unit_test(test_not_while_it_moves),
        cmocka_unit_test(test_media),   cmocka_unit_test(test_plug_and_unplug), cmocka_unit_test(test_unplugged_disk_stays_out),
        cmocka_unit_test(test_sharing), cmocka_unit_test(test_states),   cmocka_unit_test(test_no_drivers),
        cmocka_unit_test(test_vifs),    cmocka_unit_test(test_vif_addresses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
