/* Where a VM can run (specs §1.7, §1.10): each rule in its order, and the choice of a host. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/placement.h"
#include "xapi/core/vm_memory.h"

#define GIB (1ll << 30)

static struct core_world world;
#define W (&world)

static const char *host, *vm, *sr, *network, *pif, *pbd;

static void set(const char *ref, unsigned class_id, unsigned field, struct value v)
{
    must(db_set(W->xapi.db, W->arena, class_id, ref, field, v));
}

static void map_put(const char *ref, unsigned class_id, unsigned field, const char *key, const char *value)
{
    must(db_map_put(W->xapi.db, W->arena, class_id, ref, field, key, value));
}

static const char *make_host(const char *name, int64_t memory)
{
    const struct member cpu[] = { member_of("vendor", S("GenuineIntel")), member_of("cpu_count", S("4")), member_of("features_hvm", S("0000ffff-000000ff")),
                                  member_of("features_pv", S("0000000f")) };
    const struct value versions[] = { value_int(0), value_int(1), value_int(2) }, caps[] = { S("xen-3.0-x86_64"), S("hvm-3.0-x86_64") };
    const struct field_value metrics[] = { { F_host_metrics_live, value_bool(true) }, { F_host_metrics_memory_total, value_int(memory) } };
    const struct field_value fields[] = {
        { F_host_name_label, S(name) },
        { F_host_enabled, value_bool(true) },
        { F_host_metrics, S(core_row(W, CLASS_host_metrics, metrics, ARRAY_LEN(metrics))) },
        { F_host_virtual_hardware_platform_versions, value_set(versions, ARRAY_LEN(versions)) },
        { F_host_capabilities, value_set(caps, ARRAY_LEN(caps)) },
        { F_host_cpu_info, value_map(cpu, ARRAY_LEN(cpu)) },
    };
    return core_row(W, CLASS_host, fields, ARRAY_LEN(fields));
}

static const char *make_vm(const char *name)
{
    const struct field_value fields[] = {
        { F_VM_name_label, S(name) },
        { F_VM_domain_type, S("hvm") },
        { F_VM_memory_static_min, value_int(GIB) },
        { F_VM_memory_dynamic_min, value_int(GIB) },
        { F_VM_memory_dynamic_max, value_int(GIB) },
        { F_VM_memory_static_max, value_int(GIB) },
    };
    return core_row(W, CLASS_VM, fields, ARRAY_LEN(fields));
}

/* A VM with a disk and an interface, and a host that can run it. */
static int arrange(void **state)
{
    core_world_init(W);
    host = make_host("one", 4 * GIB);
    set(W->host, CLASS_host, F_host_enabled, value_bool(false)); /* the fixture's own host takes no part */
    vm = make_vm("vm");
    sr = core_row(W, CLASS_SR, NULL, 0);
    const struct field_value link[] = { { F_PBD_host, S(host) }, { F_PBD_SR, S(sr) }, { F_PBD_currently_attached, value_bool(true) } };
    pbd = core_row(W, CLASS_PBD, link, ARRAY_LEN(link));
    const struct field_value vdi[] = { { F_VDI_SR, S(sr) } };
    const struct field_value vbd[] = { { F_VBD_VM, S(vm) }, { F_VBD_VDI, S(core_row(W, CLASS_VDI, vdi, 1)) } };
    core_row(W, CLASS_VBD, vbd, ARRAY_LEN(vbd));
    network = core_row(W, CLASS_network, NULL, 0);
    const struct field_value nic[] = { { F_PIF_host, S(host) }, { F_PIF_network, S(network) } };
    pif = core_row(W, CLASS_PIF, nic, ARRAY_LEN(nic));
    const struct field_value vif[] = { { F_VIF_VM, S(vm) }, { F_VIF_network, S(network) }, { F_VIF_device, S("0") } };
    core_row(W, CLASS_VIF, vif, ARRAY_LEN(vif));
    set(network, CLASS_network, F_network_managed, value_bool(true));
    return 0;
}

static int release(void **state)
{
    core_world_release(W);
    return 0;
}

static struct error *place(unsigned flags)
{
    struct api_call c;
    const struct row *v, *h;
    internal_call_init(&c, &W->xapi, W->arena, "place");
    AUTO_TXN txn = txn_begin(c.db, c.arena);
    must(txn_need(txn, CLASS_VM, vm, &v));
    must(txn_need(txn, CLASS_host, host, &h));
    return placement_check(&c, txn, v, h, flags);
}

#define ALL (PLACE_CPU | PLACE_SR | PLACE_MEMORY)

/* The check fails with this code and these parameters, the last one NULL. */
static void fails(const char *code, ...)
{
    const struct error *e = place(ALL);
    va_list args;
    const char *wanted;
    unsigned n = 0;
    if (!error_is(e, code))
        fail_msg("wanted %s, got %s", code, e != NULL ? error_text(W->arena, e) : "no error");
    va_start(args, code);
    while ((wanted = va_arg(args, const char *)) != NULL) {
        assert_true(n < e->n_params);
        assert_string_equal(e->params[n++], wanted);
    }
    va_end(args);
    assert_int_equal(e->n_params, n);
}

static void vm_int(unsigned field, int64_t n) { set(vm, CLASS_VM, field, value_int(n)); }

/* Breaks everything from the last rule to the first: each newly broken rule must come to the front. */
static void test_rules_in_order(void **state)
{
    const char *metrics = row_string(db_get(W->xapi.db, W->arena, &model_classes[CLASS_host], host), F_host_metrics);

    assert_null(place(ALL));
    vm_int(F_VM_VCPUs_max, 8); /* 15 */
    fails("HOST_NOT_ENOUGH_PCPUS", "8", "4", NULL);
    map_put(vm, CLASS_VM, F_VM_platform, "vcpu-unrestricted", "true");
    assert_null(place(ALL));
    map_put(vm, CLASS_VM, F_VM_platform, "vcpu-unrestricted", "false");
    set(metrics, CLASS_host_metrics, F_host_metrics_memory_total, value_int(GIB / 2)); /* 14 */
    fails("HOST_NOT_ENOUGH_FREE_MEMORY", "1073741824", "536870912", NULL);
    assert_true(error_is(place(PLACE_CPU | PLACE_SR), "HOST_NOT_ENOUGH_PCPUS"));
    set(host, CLASS_host, F_host_capabilities, value_set(NULL, 0)); /* 13 */
    fails("VM_HVM_REQUIRED", vm, NULL);
    const struct field_value usb[] = { { F_VUSB_VM, S(vm) } }; /* 11 */
    const char *vusb = core_row(W, CLASS_VUSB, usb, 1);
    fails("OPERATION_NOT_ALLOWED", arena_printf(W->arena, "VUSB %s is not available on Host %s", vusb, host), NULL);
    const char *group = core_row(W, CLASS_GPU_group, NULL, 0); /* 10 */
    const struct field_value gpu[] = { { F_VGPU_VM, S(vm) }, { F_VGPU_GPU_group, S(group) } };
    const char *vgpu = core_row(W, CLASS_VGPU, gpu, ARRAY_LEN(gpu));
    fails("VM_REQUIRES_GPU", vm, group, NULL);
    const struct field_value type[] = { { F_VGPU_type_implementation, S("passthrough") } }; /* 9 */
    set(vgpu, CLASS_VGPU, F_VGPU_type, S(core_row(W, CLASS_VGPU_type, type, 1)));
    fails("VM_REQUIRES_IOMMU", host, NULL);
    set(pif, CLASS_PIF, F_PIF_bond_slave_of, S("OpaqueRef:bond")); /* 8 */
    fails("HOST_CANNOT_ATTACH_NETWORK", host, network, NULL);
    set(pif, CLASS_PIF, F_PIF_host, S(W->host));
    fails("VM_REQUIRES_NETWORK", vm, network, NULL);
    set(pbd, CLASS_PBD, F_PBD_currently_attached, value_bool(false)); /* 7 */
    fails("VM_REQUIRES_SR", vm, sr, NULL);
    assert_true(error_is(place(PLACE_CPU), "VM_REQUIRES_NETWORK"));
    set(vm, CLASS_VM, F_VM_power_state, S("Suspended")); /* 6 */
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "vendor", "AuthenticAMD");
    fails("VM_INCOMPATIBLE_WITH_THIS_HOST", vm, host, "VM last booted on a host which had a CPU from a different vendor.", NULL);
    assert_true(error_is(place(PLACE_SR), "VM_REQUIRES_SR"));
    vm_int(F_VM_hardware_platform_version, 7); /* 5 */
    fails("VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION", host, "[0; 1; 2]", vm, "7", NULL);
    set(host, CLASS_host, F_host_enabled, value_bool(false)); /* 4 */
    fails("HOST_DISABLED", host, NULL);
    set(vm, CLASS_VM, F_VM_is_control_domain, value_bool(true));
    set(vm, CLASS_VM, F_VM_affinity, S(W->host));
    fails("OPERATION_NOT_ALLOWED", "Cannot boot a control domain on a host different from its affinity", NULL);
    set(metrics, CLASS_host_metrics, F_host_metrics_live, value_bool(false)); /* 3 */
    fails("HOST_NOT_LIVE", NULL);
    set(vm, CLASS_VM, F_VM_actions_after_crash, S("coredump_and_restart")); /* 2, from its end */
    fails("VALUE_NOT_SUPPORTED", "VM.actions_after_crash", "coredump_and_restart", "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain", NULL);
    set(vm, CLASS_VM, F_VM_HVM_shadow_multiplier, value_float(0.5));
    fails("INVALID_VALUE", "HVM_shadow_multiplier", "0.5", NULL);
    vm_int(F_VM_memory_static_min, 2 * GIB);
    fails("MEMORY_CONSTRAINT_VIOLATION", NULL);
    vm_int(F_VM_VCPUs_at_startup, 9);
    fails("VALUE_NOT_SUPPORTED", "VCPUs-at-startup", "9", "value greater than VCPUs-max", NULL);
    vm_int(F_VM_VCPUs_at_startup, 0);
    fails("INVALID_VALUE", "VCPUs-at-startup", "0", NULL);
    vm_int(F_VM_VCPUs_max, 0);
    fails("INVALID_VALUE", "VCPUs_max", "0", NULL);
}

static void test_cpu(void **state)
{
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "vendor", "GenuineIntel");
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "features", "00010000");
    assert_null(place(ALL)); /* a fresh boot adapts */
    set(vm, CLASS_VM, F_VM_power_state, S("Suspended"));
    fails("VM_INCOMPATIBLE_WITH_THIS_HOST", vm, host, "VM last booted on a CPU with features this host's CPU does not have.", NULL);
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "features", "0000000f-000000f0");
    assert_null(place(ALL));
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "features", "0000000f-00000000-00000000"); /* longer, but zeros */
    assert_null(place(ALL));
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "features", "0000000f-00000000-00000001");
    assert_true(error_is(place(ALL), "VM_INCOMPATIBLE_WITH_THIS_HOST"));
    set(vm, CLASS_VM, F_VM_domain_type, S("pv"));
    map_put(vm, CLASS_VM, F_VM_last_boot_CPU_flags, "features", "00000010");
    assert_true(error_is(place(ALL), "VM_INCOMPATIBLE_WITH_THIS_HOST")); /* features_pv has fewer */
}

static void test_disabled_host_keeps_its_vms(void **state)
{
    set(host, CLASS_host, F_host_enabled, value_bool(false));
    set(vm, CLASS_VM, F_VM_power_state, S("Running"));
    set(vm, CLASS_VM, F_VM_resident_on, S(host));
    assert_null(place(ALL));
    set(vm, CLASS_VM, F_VM_power_state, S("Paused"));
    fails("HOST_DISABLED", host, NULL);
}

static void test_networks(void **state)
{
    must(db_delete(W->xapi.db, W->arena, CLASS_PIF, pif)); /* without PIFs: free until somebody runs on it */
    assert_null(place(ALL));
    const char *other = make_vm("neighbour");
    const struct field_value vif[] = { { F_VIF_VM, S(other) }, { F_VIF_network, S(network) }, { F_VIF_device, S("0") } };
    core_row(W, CLASS_VIF, vif, ARRAY_LEN(vif));
    assert_null(place(ALL));
    set(other, CLASS_VM, F_VM_resident_on, S(W->host));
    fails("VM_REQUIRES_NETWORK", vm, network, NULL);
    map_put(network, CLASS_network, F_network_other_config, "assume_network_is_shared", "true");
    assert_null(place(ALL));
    map_put(network, CLASS_network, F_network_other_config, "assume_network_is_shared", "false");
    set(network, CLASS_network, F_network_managed, value_bool(false));
    assert_null(place(ALL));
}

static void test_suspend_image_counts(void **state)
{
    const char *elsewhere = core_row(W, CLASS_SR, NULL, 0);
    const struct field_value vdi[] = { { F_VDI_SR, S(elsewhere) } };

    set(vm, CLASS_VM, F_VM_suspend_VDI, S(core_row(W, CLASS_VDI, vdi, 1)));
    assert_null(place(ALL));
    set(vm, CLASS_VM, F_VM_power_state, S("Suspended"));
    fails("VM_REQUIRES_SR", vm, elsewhere, NULL);
}

/* --- memory ------------------------------------------------------------------------------------------------ */
static void test_memory_of_others(void **state)
{
    const char *a = make_vm("a"), *b = make_vm("b"), *c = make_vm("c");

    set(a, CLASS_VM, F_VM_resident_on, S(host));
    set(b, CLASS_VM, F_VM_scheduled_to_be_resident_on, S(host));
    set(b, CLASS_VM, F_VM_resident_on, S(host)); /* counted once */
    set(c, CLASS_VM, F_VM_scheduled_to_be_resident_on, S(host));
    set(vm, CLASS_VM, F_VM_scheduled_to_be_resident_on, S(host)); /* not against itself */
    assert_null(place(ALL));
    set(c, CLASS_VM, F_VM_memory_overhead, value_int(1));
    fails("HOST_NOT_ENOUGH_FREE_MEMORY", "1073741824", "1073741823", NULL);
    set(host, CLASS_host, F_host_memory_overhead, value_int(8 * GIB));
    fails("HOST_NOT_ENOUGH_FREE_MEMORY", "1073741824", "0", NULL);
}

static void test_ballooned_down(void **state)
{
    vm_int(F_VM_memory_static_max, 64 * GIB);
    vm_int(F_VM_memory_dynamic_max, 64 * GIB);
    assert_null(place(ALL)); /* dynamic_min is what counts */
    set(vm, CLASS_VM, F_VM_domain_type, S("pv_in_pvh"));
    fails("HOST_NOT_ENOUGH_FREE_MEMORY", arena_printf(W->arena, "%lld", 64 * GIB), arena_printf(W->arena, "%lld", 4 * GIB), NULL);
}

/* --- choosing ----------------------------------------------------------------------------------------------- */
static struct error *choose(const char **host_r)
{
    struct api_call c;
    const struct row *v;
    internal_call_init(&c, &W->xapi, W->arena, "choose");
    AUTO_TXN txn = txn_begin(c.db, c.arena);
    must(txn_need(txn, CLASS_VM, vm, &v));
    return placement_choose(&c, txn, v, PLACE_SR | PLACE_MEMORY, host_r);
}

static void plug(const char *to)
{
    const struct field_value link[] = { { F_PBD_host, S(to) }, { F_PBD_SR, S(sr) }, { F_PBD_currently_attached, value_bool(true) } };
    const struct field_value nic[] = { { F_PIF_host, S(to) }, { F_PIF_network, S(network) } };
    core_row(W, CLASS_PBD, link, ARRAY_LEN(link));
    core_row(W, CLASS_PIF, nic, ARRAY_LEN(nic));
}

static void test_choice(void **state)
{
    const char *big = make_host("big", 8 * GIB), *blind = make_host("no storage", 16 * GIB), *chosen = NULL;

    plug(big);
    must(choose(&chosen));
    assert_string_equal(chosen, big);
    set(vm, CLASS_VM, F_VM_affinity, S(host));
    must(choose(&chosen));
    assert_string_equal(chosen, host);
    set(vm, CLASS_VM, F_VM_affinity, S(blind)); /* cannot see the disk */
    must(choose(&chosen));
    assert_string_equal(chosen, big);
    map_put(big, CLASS_host, F_host_current_operations, "OpaqueRef:t", "evacuate");
    must(choose(&chosen));
    assert_string_equal(chosen, host);
    vm_int(F_VM_memory_static_max, 32 * GIB);
    vm_int(F_VM_memory_dynamic_max, 32 * GIB);
    vm_int(F_VM_memory_dynamic_min, 32 * GIB);
    must(choose(&chosen)); /* nobody has the memory: again without that check */
    assert_string_equal(chosen, host);
    set(host, CLASS_host, F_host_enabled, value_bool(false));
    assert_true(error_is(choose(&chosen), "NO_HOSTS_AVAILABLE"));
}

static void test_choice_during_upgrade(void **state)
{
    const char *newer = make_host("newer", 2 * GIB), *chosen = NULL;

    plug(newer);
    map_put(newer, CLASS_host, F_host_software_version, "platform_version", "3.4.0");
    map_put(host, CLASS_host, F_host_software_version, "platform_version", "3.3.9");
    must(choose(&chosen));
    assert_string_equal(chosen, host);
    map_put(W->pool, CLASS_pool, F_pool_other_config, "rolling_upgrade_in_progress", "true");
    must(choose(&chosen));
    assert_string_equal(chosen, newer);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, arrange, release)
    const struct CMUnitTest tests[] = {
        T(test_rules_in_order), T(test_cpu),           T(test_disabled_host_keeps_its_vms), T(test_networks), T(test_suspend_image_counts),
        T(test_memory_of_others), T(test_ballooned_down), T(test_choice),                   T(test_choice_during_upgrade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
