/* Which operations are valid on a VM (specs §2.1 to §2.4): every rule with its code and parameters, all
 * operations in all power states, what runs beside what; and on hosts (§2.5). */
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"

static struct core_world world;
#define W (&world)

static int setup(void **state)
{
    core_world_init(W);
    return 0;
}

static int teardown(void **state)
{
    core_world_release(W);
    return 0;
}

static void set(const char *ref, unsigned class_id, unsigned field, struct value v)
{
    must(db_set(W->xapi.db, W->arena, class_id, ref, field, v));
}

static void vm_set(const char *vm, unsigned field, const char *s)
{
    set(vm, CLASS_VM, field, S(s));
}

static void vm_on(const char *vm, unsigned field)
{
    set(vm, CLASS_VM, field, value_bool(true));
}

static void map_put(const char *ref, unsigned class_id, unsigned field, const char *key, const char *value)
{
    must(db_map_put(W->xapi.db, W->arena, class_id, ref, field, key, value));
}

static struct error *check(const char *vm, const char *op, bool strict)
{
    struct api_call c;
    const struct row *row;
    internal_call_init(&c, &W->xapi, W->arena, "check");
    AUTO_TXN txn = txn_begin(c.db, c.arena);
    must(txn_need(txn, CLASS_VM, vm, &row));
    return operation_check_vm(&c, txn, row, op, strict);
}

/* --- §2.1: the pipeline ------------------------------------------------------------------------------------ */
static const char *metrics_of(const char *vm, const char *type)
{
    const struct field_value fields[] = { { F_VM_metrics_current_domain_type, S(type) } };
    const char *ref = core_row(W, CLASS_VM_metrics, fields, 1);
    vm_set(vm, F_VM_metrics, ref);
    return ref;
}

static const char *guest_of(const char *vm)
{
    const char *ref = core_row(W, CLASS_VM_guest_metrics, NULL, 0);
    vm_set(vm, F_VM_guest_metrics, ref);
    return ref;
}

static void running(const char *vm)
{
    vm_set(vm, F_VM_power_state, "Running");
}

static void running_hvm(const char *vm)
{
    running(vm);
    metrics_of(vm, "hvm");
}

static void blocked(const char *vm) { map_put(vm, CLASS_VM, F_VM_blocked_operations, "start", "NO_STARTING"); }
static void busy(const char *vm) { map_put(vm, CLASS_VM, F_VM_current_operations, "OpaqueRef:t1", "changing_VCPUs"); }

static void busy_twice(const char *vm)
{
    map_put(vm, CLASS_VM, F_VM_current_operations, "OpaqueRef:t1", "clone");
    map_put(vm, CLASS_VM, F_VM_current_operations, "OpaqueRef:t2", "copy");
}

static void template(const char *vm) { vm_on(vm, F_VM_is_a_template); }

static void default_template(const char *vm)
{
    template(vm);
    vm_on(vm, F_VM_is_default_template);
}

static void snapshot(const char *vm)
{
    template(vm);
    vm_on(vm, F_VM_is_a_snapshot);
}

static void platform_nomigrate(const char *vm)
{
    running(vm);
    map_put(vm, CLASS_VM, F_VM_platform, "nomigrate", "true");
}

static void sampled_nomigrate(const char *vm)
{
    running(vm);
    set(metrics_of(vm, "pv"), CLASS_VM_metrics, F_VM_metrics_nomigrate, value_bool(true));
}

/* what was sampled at the start wins over what the platform says now */
static void sampled_mobile(const char *vm)
{
    platform_nomigrate(vm);
    metrics_of(vm, "pv");
}

static void nested(const char *vm) { set(metrics_of(vm, "hvm"), CLASS_VM_metrics, F_VM_metrics_nested_virt, value_bool(true)); }

static void dom0(const char *vm)
{
    running(vm);
    vm_on(vm, F_VM_is_control_domain);
    vm_set(vm, F_VM_resident_on, W->host);
    set(W->host, CLASS_host, F_host_control_domain, S(vm));
}

static void driver_domain(const char *vm) { vm_on(vm, F_VM_is_control_domain); }

static void cannot_suspend(const char *vm)
{
    running(vm);
    metrics_of(vm, "pv");
    map_put(guest_of(vm), CLASS_VM_guest_metrics, F_VM_guest_metrics_other, "data-cant-suspend-reason", "busy with something");
}

static void features(const char *vm, const char *feature)
{
    running_hvm(vm);
    map_put(guest_of(vm), CLASS_VM_guest_metrics, F_VM_guest_metrics_other, feature, "1");
}

static void can_suspend(const char *vm) { features(vm, "feature-suspend"); }
static void can_poweroff(const char *vm) { features(vm, "feature-poweroff"); }
static void can_reboot(const char *vm) { features(vm, "feature-reboot"); }
static void can_hotplug(const char *vm) { features(vm, "feature-vcpu-hotplug"); }

static void drivers(const char *vm)
{
    running_hvm(vm);
    map_put(guest_of(vm), CLASS_VM_guest_metrics, F_VM_guest_metrics_PV_drivers_version, "major", "8");
}

static void disk(const char *vm, bool caching)
{
    const struct field_value vdi[] = { { F_VDI_on_boot, S("reset") }, { F_VDI_allow_caching, value_bool(caching) }, { F_VDI_SR, S(REF_NULL) } };
    const char *ref = core_row(W, CLASS_VDI, vdi, ARRAY_LEN(vdi));
    const struct field_value vbd[] = { { F_VBD_VM, S(vm) }, { F_VBD_VDI, S(ref) } };
    core_row(W, CLASS_VBD, vbd, ARRAY_LEN(vbd));
    running(vm);
    metrics_of(vm, "pv");
}

static void disk_reset(const char *vm) { disk(vm, false); }
static void disk_cached(const char *vm) { disk(vm, true); }

static void pci(const char *vm)
{
    struct value item = S(core_row(W, CLASS_PCI, NULL, 0));
    running(vm);
    metrics_of(vm, "pv");
    set(vm, CLASS_VM, F_VM_attached_PCIs, value_set(&item, 1));
}

static void vgpu(const char *vm)
{
    const struct field_value fields[] = { { F_VGPU_VM, S(vm) } };
    core_row(W, CLASS_VGPU, fields, 1);
}

static void vgpu_running(const char *vm)
{
    running(vm);
    metrics_of(vm, "pv");
    vgpu(vm);
}

static void vgpu_nvidia(const char *vm)
{
    const struct member pair[] = { member_of("a", S("b")) };
    const struct field_value type[] = { { F_VGPU_type_implementation, S("nvidia") } };
    const struct field_value gpu[] = { { F_PGPU_compatibility_metadata, value_map(pair, 1) } };
    const struct field_value fields[] = { { F_VGPU_VM, S(vm) },
                                          { F_VGPU_type, S(core_row(W, CLASS_VGPU_type, type, 1)) },
                                          { F_VGPU_resident_on, S(core_row(W, CLASS_PGPU, gpu, 1)) } };
    running(vm);
    metrics_of(vm, "pv");
    core_row(W, CLASS_VGPU, fields, ARRAY_LEN(fields));
}

static void vusb(const char *vm)
{
    const struct field_value fields[] = { { F_VUSB_VM, S(vm) } };
    running(vm);
    metrics_of(vm, "pv");
    core_row(W, CLASS_VUSB, fields, 1);
}

static void appliance(const char *vm) { vm_set(vm, F_VM_appliance, "OpaqueRef:app"); }
static void policy(const char *vm) { vm_set(vm, F_VM_protection_policy, "OpaqueRef:pol"); }
static void schedule(const char *vm) { vm_set(vm, F_VM_snapshot_schedule, "OpaqueRef:sch"); }

static void upgrade(const char *vm) { map_put(W->pool, CLASS_pool, F_pool_other_config, "rolling_upgrade_in_progress", "true"); }

static void vtpm(const char *vm)
{
    const struct field_value fields[] = { { F_VTPM_VM, S(vm) } };
    core_row(W, CLASS_VTPM, fields, 1);
}

static void nothing(const char *vm) { }

/* "$": the VM's ref. code NULL: valid. */
static const struct pipeline_case {
    void (*arrange)(const char *vm);
    const char *op;
    bool lax;
    const char *code, *params[4];
} pipeline[] = {
    { nothing, "start", false, NULL, { NULL } },
    /* 1 blocked comes before everything */
    { blocked, "start", false, "OPERATION_BLOCKED", { "$", "NO_STARTING" } },
    /* 2 power state; spelling of the states */
    { running, "start", false, "VM_BAD_POWER_STATE", { "$", "halted", "running" } },
    { nothing, "pool_migrate", false, "VM_BAD_POWER_STATE", { "$", "running", "halted" } },
    { nothing, "hard_shutdown", false, "VM_BAD_POWER_STATE", { "$", "paused, suspended, running", "halted" } },
    { nothing, "import", false, "VM_BAD_POWER_STATE", { "$", "", "halted" } },
    /* 3 concurrency; second spelling of operations */
    { busy, "start", false, "OTHER_OPERATION_IN_PROGRESS", { "VM", "$", "(unknown operation)", "OpaqueRef:t1" } },
    { busy_twice, "start", false, "OTHER_OPERATION_IN_PROGRESS", { "VM", "$", "{clone,copy}", "{OpaqueRef:t1,OpaqueRef:t2}" } },
    /* 4 templates */
    { template, "start", false, "VM_IS_TEMPLATE", { "$", "start" } },
    { template, "assert_operation_valid", false, "VM_IS_TEMPLATE", { "$", "assertoperationvalid" } },
    { template, "clone", false, NULL, { NULL } },
    { template, "destroy", false, NULL, { NULL } },
    { default_template, "destroy", false, "VM_IS_TEMPLATE", { "$", "destroy" } },
    { template, "provision", false, NULL, { NULL } },
    /* 5 snapshots */
    { snapshot, "start", false, "VM_IS_SNAPSHOT", { "$", "start" } },
    { snapshot, "revert", false, NULL, { NULL } },
    /* 6 only of templates, only of snapshots */
    { nothing, "provision", false, "PROVISION_ONLY_ALLOWED_ON_TEMPLATE", { NULL } },
    { nothing, "revert", false, "REVERT_ONLY_ALLOWED_ON_SNAPSHOT", { NULL } },
    /* 7 immobile */
    { platform_nomigrate, "pool_migrate", false, "VM_IS_IMMOBILE", { "$" } },
    { platform_nomigrate, "pool_migrate", true, NULL, { NULL } },
    { sampled_nomigrate, "suspend", false, "VM_IS_IMMOBILE", { "$" } },
    { sampled_mobile, "pool_migrate", false, NULL, { NULL } },
    /* 8 nested virtualisation */
    { nested, "changing_dynamic_range", false, "VM_IS_USING_NESTED_VIRT", { "$" } },
    /* 9 control domains */
    { dom0, "changing_VCPUs", false, "OPERATION_NOT_ALLOWED", { "This operation is not allowed on dom0" } },
    { dom0, "suspend", false, "OPERATION_NOT_ALLOWED", { "This operation is not allowed on a control domain" } },
    { dom0, "changing_memory_limits", false, NULL, { NULL } },
    { driver_domain, "destroy", false, NULL, { NULL } },
    { driver_domain, "start", false, NULL, { NULL } },
    /* 10 what the guest can do */
    { cannot_suspend, "suspend", false, "VM_NON_SUSPENDABLE", { "$", "busy with something" } },
    { cannot_suspend, "pool_migrate", true, "VM_NON_SUSPENDABLE", { "$", "busy with something" } },
    { running_hvm, "suspend", false, "VM_LACKS_FEATURE", { "$" } },
    { running_hvm, "pool_migrate", true, NULL, { NULL } },
    { can_suspend, "pool_migrate", false, NULL, { NULL } },
    { drivers, "pool_migrate", false, NULL, { NULL } },
    { running_hvm, "clean_shutdown", false, "VM_LACKS_FEATURE", { "$" } },
    { can_poweroff, "clean_shutdown", false, NULL, { NULL } },
    { can_poweroff, "clean_reboot", false, "VM_LACKS_FEATURE", { "$" } },
    { can_reboot, "clean_reboot", false, NULL, { NULL } },
    { drivers, "changing_VCPUs_live", false, "VM_LACKS_FEATURE", { "$" } },
    { can_hotplug, "changing_VCPUs_live", false, NULL, { NULL } },
    /* 11 quiesced snapshots are history */
    { drivers, "snapshot_with_quiesce", false, "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", { "$" } },
    /* 12 disks that are reset at boot */
    { disk_reset, "suspend", false, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", { NULL } },
    { disk_reset, "snapshot", false, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", { NULL } },
    { disk_reset, "pool_migrate", false, NULL, { NULL } },
    { disk_cached, "pool_migrate", false, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", { NULL } },
    /* 13 PCI, 14 vGPU, 15 vUSB */
    { pci, "pool_migrate", true, "VM_HAS_PCI_ATTACHED", { "$" } },
    { pci, "snapshot", false, NULL, { NULL } },
    { vgpu_running, "pool_migrate", false, "VM_HAS_VGPU", { "$" } },
    { vgpu, "migrate_send", false, NULL, { NULL } },
    { vgpu_nvidia, "pool_migrate", false, NULL, { NULL } },
    { vusb, "pool_migrate", false, "VM_HAS_VUSBS", { "$" } },
    { vusb, "snapshot", false, "VM_HAS_VUSBS", { "$" } },
    /* 16 memberships */
    { appliance, "make_into_template", false, "VM_IS_PART_OF_AN_APPLIANCE", { "$", "OpaqueRef:app" } },
    { policy, "make_into_template", false, "VM_ASSIGNED_TO_PROTECTION_POLICY", { "$", "OpaqueRef:pol" } },
    { schedule, "make_into_template", false, "VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE", { "$", "OpaqueRef:sch" } },
    /* 17 driver domains' services */
    { nothing, "query_services", false, "NOT_SYSTEM_DOMAIN", { "$" } },
    /* 19 one TPM is enough */
    { vtpm, "create_vtpm", false, "VTPM_MAX_AMOUNT_REACHED", { "1" } },
    /* 18 upgrades: last, since the flag stays */
    { upgrade, "snapshot", false, "NOT_SUPPORTED_DURING_UPGRADE", { NULL } },
    { nothing, "start", false, NULL, { NULL } },
};

static void pipeline_one(const struct pipeline_case *k, unsigned i)
{
    const char *vm = core_vm(W, arena_printf(W->arena, "case %u", i));
    k->arrange(vm);
    const struct error *e = check(vm, k->op, !k->lax);
    if (k->code == NULL) {
        if (e != NULL)
            fail_msg("case %u, %s: %s", i, k->op, error_text(W->arena, e));
        return;
    }
    unsigned n = 0;
    while (n < 4 && k->params[n] != NULL)
        n++;
    if (e == NULL || strcmp(e->code, k->code) != 0 || e->n_params != n)
        fail_msg("case %u, %s: wanted %s with %u parameters, got %s", i, k->op, k->code, n, e != NULL ? error_text(W->arena, e) : "no error");
    for (unsigned p = 0; p < n; p++)
        assert_string_equal(e->params[p], strcmp(k->params[p], "$") == 0 ? vm : k->params[p]);
}

static void test_pipeline(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(pipeline); i++)
        pipeline_one(&pipeline[i], i);
    AUTO_TXN txn = txn_begin(W->xapi.db, W->arena);
    must(txn_map_remove(txn, CLASS_pool, W->pool, F_pool_other_config, "rolling_upgrade_in_progress"));
    must(txn_commit(txn, NULL));
}

/* --- §2.2: power states -------------------------------------------------------------------------------------- */
/* H halted, P paused, R running, S suspended: where it must not fail for the power state. */
static const struct { const char *op, *states; } allowed_states[] = {
    { "snapshot", "HPSR" },         { "clone", "H" },
    { "copy", "H" },                { "create_template", "HS" },
    { "revert", "HPSR" },           { "checkpoint", "PSR" },
    { "snapshot_with_quiesce", "R" }, { "provision", "H" },
    { "start", "H" },               { "start_on", "H" },
    { "pause", "R" },               { "unpause", "P" },
    { "clean_shutdown", "R" },      { "clean_reboot", "R" },
    { "hard_shutdown", "PSR" },     { "power_state_reset", "HPSR" },
    { "hard_reboot", "PR" },        { "suspend", "R" },
    { "csvm", "S" },                { "resume", "S" },
    { "resume_on", "S" },           { "pool_migrate", "R" },
    { "migrate_send", "HSR" },      { "get_boot_record", "PSR" },
    { "send_sysrq", "R" },          { "send_trigger", "R" },
    { "query_services", "HPSR" },   { "shutdown", "PSR" },
    { "call_plugin", "R" },         { "changing_memory_live", "R" },
    { "awaiting_memory_live", "R" }, { "changing_dynamic_range", "HR" },
    { "changing_static_range", "H" }, { "changing_memory_limits", "H" },
    { "changing_shadow_memory", "H" }, { "changing_shadow_memory_live", "R" },
    { "changing_VCPUs", "H" },      { "changing_VCPUs_live", "R" },
    { "changing_NVRAM", "H" },      { "assert_operation_valid", "HPSR" },
    { "data_source_op", "R" },      { "update_allowed_operations", "HPSR" },
    { "make_into_template", "H" },  { "import", "" },
    { "export", "HS" },             { "metadata_export", "HPSR" },
    { "reverting", "HPSR" },        { "destroy", "HS" },
    { "create_vtpm", "H" },
};

static void test_power_states(void **state)
{
    static const char *const names[] = { "Halted", "Paused", "Suspended", "Running" };
    const struct enum_info *ops = model_classes[CLASS_VM].fields[F_VM_allowed_operations].type->item->enum_info;
    const char *vm = core_vm(W, "states");

    assert_int_equal(ops->n_values, ARRAY_LEN(allowed_states)); /* a new operation needs a row */
    for (unsigned s = 0; s < ARRAY_LEN(names); s++) {
        vm_set(vm, F_VM_power_state, names[s]);
        for (unsigned i = 0; i < ARRAY_LEN(allowed_states); i++) {
            bool wanted = strchr(allowed_states[i].states, names[s][0]) != NULL;
            bool got = !error_is(check(vm, allowed_states[i].op, true), "VM_BAD_POWER_STATE");
            if (wanted != got)
                fail_msg("%s while %s: %s", allowed_states[i].op, names[s], got ? "let through" : "refused");
        }
    }
}

static void test_clones_of_suspended(void **state)
{
    const char *vm = core_vm(W, "suspended"), *snap = core_vm(W, "checkpoint");
    struct error *e;

    vm_set(vm, F_VM_power_state, "Suspended");
    vm_set(snap, F_VM_power_state, "Suspended");
    snapshot(snap);
    assert_null(check(snap, "clone", true));
    e = check(vm, "clone", true);
    assert_true(error_is(e, "VM_BAD_POWER_STATE"));
    assert_string_equal(e->params[1], "halted");
    map_put(W->pool, CLASS_pool, F_pool_other_config, "allow_clone_suspended_vm", "true");
    assert_null(check(vm, "clone", true));
}

/* --- §2.3: what runs beside what ----------------------------------------------------------------------------------- */
static const struct { const char *state, *current[2], *op; bool allowed; } beside[] = {
    { "Halted", { "clone", NULL }, "copy", true },
    { "Halted", { "copy", "export" }, "clone", true },
    { "Halted", { "clone", NULL }, "destroy", false },
    { "Running", { "snapshot", NULL }, "checkpoint", true },
    { "Running", { "snapshot", NULL }, "pool_migrate", false },
    { "Running", { "get_boot_record", NULL }, "get_boot_record", true },
    { "Running", { "pool_migrate", NULL }, "hard_shutdown", true },
    { "Running", { "pool_migrate", NULL }, "hard_reboot", true },
    { "Running", { "pool_migrate", NULL }, "clean_shutdown", false },
    { "Running", { "pool_migrate", NULL }, "pool_migrate", false },
    { "Running", { "hard_shutdown", NULL }, "hard_shutdown", false },
    { "Running", { "hard_shutdown", NULL }, "hard_reboot", false },
    { "Running", { "hard_reboot", NULL }, "hard_reboot", false },
    { "Running", { "hard_reboot", NULL }, "hard_shutdown", true },
    { "Running", { "migrate_send", NULL }, "metadata_export", true },
    { "Running", { "migrate_send", NULL }, "clean_reboot", true },
    { "Running", { "migrate_send", NULL }, "clean_shutdown", true },
    { "Running", { "migrate_send", NULL }, "suspend", false },
    { "Running", { "migrate_send", "snapshot" }, "clean_reboot", false },
    { "Running", { "snapshot_with_quiesce", NULL }, "snapshot", true },
    { "Running", { "snapshot_with_quiesce", NULL }, "checkpoint", false },
};

static void test_concurrency(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(beside); i++) {
        const char *vm = core_vm(W, "beside");
        vm_set(vm, F_VM_power_state, beside[i].state);
        metrics_of(vm, "pv");
        for (unsigned k = 0; k < 2 && beside[i].current[k] != NULL; k++)
            map_put(vm, CLASS_VM, F_VM_current_operations, arena_printf(W->arena, "OpaqueRef:t%u", k), beside[i].current[k]);
        bool conflict = error_is(check(vm, beside[i].op, true), "OTHER_OPERATION_IN_PROGRESS");
        if (conflict == beside[i].allowed)
            fail_msg("%s beside %s", beside[i].op, beside[i].current[0]);
    }
}

/* --- §2.4: publication --------------------------------------------------------------------------------------------- */
static const char *allowed_text(const char *vm)
{
    AUTO_TEXT t = TEXT_INIT;
    const struct row *row = db_get(W->xapi.db, W->arena, &model_classes[CLASS_VM], vm);
    const struct value *ops = row_value(row, F_VM_allowed_operations);
    for (unsigned i = 0; i < ops->len; i++)
        text_printf(&t, "%s%s", i > 0 ? " " : "", ops->items[i].s);
    return arena_strdup(W->arena, t.bytes != NULL ? t.bytes : "");
}

static void update(const char *vm)
{
    struct api_call c;
    internal_call_init(&c, &W->xapi, W->arena, "update");
    AUTO_TXN txn = txn_begin(c.db, c.arena);
    must(operations_update_around(&c, txn, CLASS_VM, vm));
    must(txn_commit(txn, NULL));
}

static void test_published(void **state)
{
    const char *vm = core_vm(W, "published");

    update(vm);
    assert_string_equal(allowed_text(vm), "snapshot clone copy start start_on migrate_send changing_dynamic_range changing_static_range "
                                          "changing_shadow_memory changing_NVRAM make_into_template export metadata_export destroy create_vtpm");
    drivers(vm);
    update(vm);
    assert_string_equal(allowed_text(vm), "snapshot checkpoint pause clean_shutdown clean_reboot hard_shutdown hard_reboot suspend pool_migrate "
                                          "migrate_send changing_dynamic_range metadata_export");
    vm_set(vm, F_VM_power_state, "Paused");
    update(vm);
    assert_string_equal(allowed_text(vm), "snapshot checkpoint unpause hard_shutdown hard_reboot metadata_export");
    vm_set(vm, F_VM_power_state, "Suspended");
    update(vm);
    assert_string_equal(allowed_text(vm), "snapshot clone copy checkpoint hard_shutdown resume resume_on migrate_send export metadata_export destroy");
}

/* --- §2.5: hosts ------------------------------------------------------------------------------------------------------ */
static const struct { const char *current, *op, *code, *shown; } host_cases[] = {
    { NULL, "evacuate", NULL, NULL },
    { NULL, "reboot", "HOST_NOT_DISABLED", NULL },
    { NULL, "power_on", "HOST_POWER_ON_MODE_DISABLED", NULL },
    { "vm_migrate", "evacuate", "OTHER_OPERATION_IN_PROGRESS", "VM.migrate" },
    { "vm_resume", "shutdown", "OTHER_OPERATION_IN_PROGRESS", "VM.resume" },
    { "vm_start", "evacuate", NULL, NULL },
    { "evacuate", "vm_migrate", "OTHER_OPERATION_IN_PROGRESS", "evacuate" },
    { "evacuate", "vm_start", NULL, NULL },
    { "evacuate", "evacuate", NULL, NULL },
    { "provision", "provision", "OTHER_OPERATION_IN_PROGRESS", "provision" },
    { "apply_updates", "enable", "OTHER_OPERATION_IN_PROGRESS", "apply_updates" },
    { "vm_migrate", "vm_migrate", NULL, NULL },
};

static void test_host_operations(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(host_cases); i++) {
        const struct field_value fields[] = { { F_host_enabled, value_bool(true) } };
        const char *host = core_row(W, CLASS_host, fields, 1);
        struct api_call c;
        const struct row *row;
        internal_call_init(&c, &W->xapi, W->arena, "host");
        if (host_cases[i].current != NULL)
            map_put(host, CLASS_host, F_host_current_operations, "OpaqueRef:t", host_cases[i].current);
        AUTO_TXN txn = txn_begin(c.db, c.arena);
        must(txn_need(txn, CLASS_host, host, &row));
        struct error *e = operation_check(&c, txn, CLASS_host, row, host_cases[i].op, true);
        assert_string_equal(e != NULL ? e->code : "", host_cases[i].code != NULL ? host_cases[i].code : "");
        if (host_cases[i].shown != NULL) {
            assert_string_equal(e->params[0], "host");
            assert_string_equal(e->params[1], host);
            assert_string_equal(e->params[2], host_cases[i].shown);
            assert_string_equal(e->params[3], "OpaqueRef:t");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline),         cmocka_unit_test(test_power_states),       cmocka_unit_test(test_clones_of_suspended),
        cmocka_unit_test(test_concurrency), cmocka_unit_test(test_published),    cmocka_unit_test(test_host_operations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
