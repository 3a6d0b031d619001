/* VM operations: the check pipeline of specs §2.1, in its order; power states §2.2; concurrency §2.3. */
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"
#include "xapi/core/version.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

struct vm_check { struct api_call *c; struct txn *txn; const struct row *vm; const char *op; bool strict; };

/* §2.4: the second spelling, used in error parameters only. */
static const char *spelling(const char *op)
{
    if (strcmp(op, "assert_operation_valid") == 0)
        return "assertoperationvalid";
    if (strcmp(op, "data_source_op") == 0)
        return "data_sources_op";
    if (one_of(op, LIST("changing_VCPUs", "changing_memory_limits", "query_services", "create_template")))
        return "(unknown operation)";
    return op;
}

static bool state_is(const struct row *vm, const char *state)
{
    return strcmp(row_string(vm, F_VM_power_state), state) == 0;
}

static bool live(const struct row *vm)
{
    return state_is(vm, "Running") || state_is(vm, "Paused");
}

/* --- 1 blocked, 2 power state -------------------------------------------------------------------------------- */
/* A VM on its way here from another pool is the migration's until that is over (xapi/migrate/incoming.h). */
static struct error *check_incoming(struct vm_check *k)
{
    const char *id = row_map(k->vm, F_VM_other_config, "incoming", "");
    if (id[0] == '\0' || one_of(k->op, LIST("update_allowed_operations", "assert_operation_valid")))
        return NULL;
    return err_operation_not_allowed(k->c->arena, arena_printf(k->c->arena, "the VM is on its way here: migration %s", id));
}

static struct error *check_blocked(struct vm_check *k)
{
    const char *code = row_map(k->vm, F_VM_blocked_operations, k->op, NULL);
    return code == NULL ? NULL : err_operation_blocked(k->c->arena, k->vm->ref, code);
}

/* States in the order of the error text. */
static const struct state_rule { const char *states; const char *const *ops; } state_rules[] = {
    { "halted, running-if-control", LIST("changing_VCPUs", "changing_static_range", "changing_memory_limits") },
    { "halted", LIST("changing_shadow_memory", "changing_NVRAM", "make_into_template", "provision", "start", "start_on", "create_vtpm") },
    { "paused", LIST("unpause") },
    { "suspended", LIST("csvm", "resume", "resume_on") },
    { "running", LIST("awaiting_memory_live", "call_plugin", "clean_reboot", "clean_shutdown", "changing_memory_live", "changing_shadow_memory_live",
                      "changing_VCPUs_live", "data_source_op", "pause", "pool_migrate", "send_sysrq", "send_trigger", "snapshot_with_quiesce",
                      "suspend", "sysprep") },
    { "halted, running", LIST("changing_dynamic_range") },
    { "halted, suspended-if-clonable", LIST("clone", "copy") },
    { "halted, suspended", LIST("create_template", "destroy", "export") },
    { "paused, running", LIST("hard_reboot") },
    { "paused, suspended, running", LIST("checkpoint", "get_boot_record", "shutdown", "hard_shutdown") },
    { "halted, suspended, running", LIST("migrate_send") },
    { "halted, paused, suspended, running", LIST("assert_operation_valid", "metadata_export", "power_state_reset", "revert", "reverting",
                                                 "snapshot", "update_allowed_operations", "query_services") },
};

static bool suspended_clones_allowed(const struct vm_check *k)
{
    struct row_list pools = txn_all(k->txn, &model_classes[CLASS_pool]);
    return row_bool(k->vm, F_VM_is_a_snapshot) ||
           (pools.n > 0 && strcmp(row_map(pools.rows[0], F_pool_other_config, "allow_clone_suspended_vm", "false"), "true") == 0);
}

/* The conditional words of the table resolved for this VM. */
static const char *states_for(const struct vm_check *k, const char *states)
{
    if (strcmp(states, "halted, running-if-control") == 0)
        return row_bool(k->vm, F_VM_is_control_domain) ? "halted, running" : "halted";
    if (strcmp(states, "halted, suspended-if-clonable") == 0)
        return suspended_clones_allowed(k) ? "halted, suspended" : "halted";
    return states;
}

static const char *lower_state(const struct row *vm)
{
    static const char *const names[][2] = { { "Halted", "halted" }, { "Paused", "paused" }, { "Running", "running" }, { "Suspended", "suspended" } };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (state_is(vm, names[i][0]))
            return names[i][1];
    return "unknown";
}

static struct error *check_state(struct vm_check *k)
{
    for (unsigned i = 0; i < ARRAY_LEN(state_rules); i++) {
        if (!one_of(k->op, state_rules[i].ops))
            continue;
        const char *states = states_for(k, state_rules[i].states), *now = lower_state(k->vm);
        return strstr(states, now) != NULL ? NULL : err_vm_bad_power_state(k->c->arena, k->vm->ref, states, now);
    }
    return err_vm_bad_power_state(k->c->arena, k->vm->ref, "", lower_state(k->vm)); /* import: none */
}

/* --- 3 concurrency ----------------------------------------------------------------------------------------------- */
static bool all_of(const struct value *current, const char *const *list)
{
    for (unsigned i = 0; i < current->len; i++)
        if (!one_of(current->members[i].value.s, list))
            return false;
    return true;
}

static bool has(const struct value *current, const char *op)
{
    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, op) == 0)
            return true;
    return false;
}

/* Disks of one VM may move at once, each by a call of its own. */
static bool is_disk_move(struct vm_check *k, const char *task_ref)
{
    const struct row *task = txn_get(k->txn, &model_classes[CLASS_task], task_ref);
    const char *label = task != NULL ? row_string(task, F_task_name_label) : "", *dot = strstr(label, "VDI.pool_migrate");
    return dot != NULL && strcmp(dot, "VDI.pool_migrate") == 0;
}

static bool only_disks_move(struct vm_check *k, const struct value *current)
{
    if (strcmp(k->op, "migrate_send") != 0 || k->c->task == NULL || !is_disk_move(k, k->c->task))
        return false;
    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, "migrate_send") != 0 || !is_disk_move(k, current->members[i].name))
            return false;
    return true;
}

static bool may_run_beside(const char *op, const struct value *current)
{
    static const char *const copies[] = { "clone", "copy", "export", NULL }, *const snapshots[] = { "snapshot", "checkpoint", NULL };
    static const char *const records[] = { "get_boot_record", NULL };
    if (one_of(op, copies) && all_of(current, copies))
        return true;
    if (one_of(op, snapshots) && all_of(current, snapshots))
        return true;
    if (one_of(op, records) && all_of(current, records))
        return true;
    if (strcmp(op, "hard_shutdown") == 0)
        return !has(current, "hard_shutdown");
    if (strcmp(op, "hard_reboot") == 0)
        return !has(current, "hard_shutdown") && !has(current, "hard_reboot");
    if (current->len != 1)
        return false;
    if (has(current, "snapshot_with_quiesce"))
        return strcmp(op, "snapshot") == 0;
    if (strcmp(op, "pause") == 0) /* the move goes on with a guest that stands: a deviation from xapi, so it is not published */
        return has(current, "migrate_send") || has(current, "pool_migrate");
    return has(current, "migrate_send") && one_of(op, LIST("metadata_export", "clean_shutdown", "clean_reboot"));
}

static struct error *check_concurrency(struct vm_check *k)
{
    const struct value *current = row_value(k->vm, F_VM_current_operations);
    if (current->len == 0 || may_run_beside(k->op, current) || only_disks_move(k, current))
        return NULL;
    return allowed_conflict(k->c, "VM", k->vm, current, ",", false, spelling);
}

/* --- 4..9 what kind of VM it is -------------------------------------------------------------------------------------- */
static struct error *check_template(struct vm_check *k)
{
    if (!row_bool(k->vm, F_VM_is_a_template) || row_bool(k->vm, F_VM_is_a_snapshot))
        return NULL;
    if (one_of(k->op, LIST("changing_dynamic_range", "changing_static_range", "changing_memory_limits", "changing_shadow_memory", "changing_VCPUs",
                           "changing_NVRAM", "clone", "copy", "export", "metadata_export", "provision")))
        return NULL;
    if (one_of(k->op, LIST("destroy", "migrate_send")) && !row_bool(k->vm, F_VM_is_default_template))
        return NULL;
    return error_make(k->c->arena, __FILE__, __LINE__, "VM_IS_TEMPLATE", 2, k->vm->ref, spelling(k->op));
}

static struct error *check_snapshot(struct vm_check *k)
{
    bool snapshot = row_bool(k->vm, F_VM_is_a_snapshot);
    if (snapshot && !one_of(k->op, LIST("revert", "clone", "copy", "export", "destroy", "hard_shutdown", "metadata_export")))
        return error_make(k->c->arena, __FILE__, __LINE__, "VM_IS_SNAPSHOT", 2, k->vm->ref, spelling(k->op));
    if (strcmp(k->op, "provision") == 0 && !row_bool(k->vm, F_VM_is_a_template))
        return err_provision_only_allowed_on_template(k->c->arena);
    if (strcmp(k->op, "revert") == 0 && !snapshot)
        return err_revert_only_allowed_on_snapshot(k->c->arena);
    return NULL;
}

static bool moves(const char *op)
{
    return one_of(op, LIST("suspend", "checkpoint", "pool_migrate", "migrate_send"));
}

/* As sampled when the VM started; its platform where it has no metrics record. */
static bool sampled(struct vm_check *k, unsigned metrics_field, const char *platform_key)
{
    const struct row *metrics = txn_get(k->txn, &model_classes[CLASS_VM_metrics], row_string(k->vm, F_VM_metrics));
    if (metrics != NULL)
        return row_bool(metrics, metrics_field);
    return one_of(row_map(k->vm, F_VM_platform, platform_key, "false"), LIST("true", "1"));
}

static struct error *check_immobile(struct vm_check *k)
{
    bool nested = sampled(k, F_VM_metrics_nested_virt, "nested-virt");
    if (moves(k->op) && k->strict && (nested || sampled(k, F_VM_metrics_nomigrate, "nomigrate")))
        return err_vm_is_immobile(k->c->arena, k->vm->ref);
    if (strcmp(k->op, "changing_dynamic_range") == 0 && nested && k->strict)
        return err_vm_is_using_nested_virt(k->c->arena, k->vm->ref);
    return NULL;
}

/* The domain that runs the host itself; other control domains serve it. */
static bool is_dom0(struct vm_check *k)
{
    const struct row *host = txn_get(k->txn, &model_classes[CLASS_host], row_string(k->vm, F_VM_resident_on));
    return host != NULL && strcmp(row_string(host, F_host_control_domain), k->vm->ref) == 0;
}

static struct error *check_control_domain(struct vm_check *k)
{
    if (!row_bool(k->vm, F_VM_is_control_domain))
        return NULL;
    if (one_of(k->op, LIST("changing_VCPUs", "destroy")) && is_dom0(k))
        return err_operation_not_allowed(k->c->arena, "This operation is not allowed on dom0");
    if (one_of(k->op, LIST("data_source_op", "changing_memory_live", "awaiting_memory_live", "metadata_export", "changing_dynamic_range",
                           "changing_memory_limits", "changing_static_range", "start", "start_on", "changing_VCPUs", "destroy")))
        return NULL;
    return err_operation_not_allowed(k->c->arena, "This operation is not allowed on a control domain");
}

/* --- 10 what the guest can do ------------------------------------------------------------------------------------------- */
static bool guest_has(const struct row *guest, const char *feature)
{
    return guest != NULL && strcmp(row_map(guest, F_VM_guest_metrics_other, feature, "0"), "1") == 0;
}

static bool support_implied(struct vm_check *k, const struct row *guest)
{
    const struct row *metrics = txn_get(k->txn, &model_classes[CLASS_VM_metrics], row_string(k->vm, F_VM_metrics));
    if (!live(k->vm))
        return true;
    if (metrics != NULL && one_of(row_string(metrics, F_VM_metrics_current_domain_type), LIST("pv", "pvh", "pv_in_pvh")))
        return true;
    return guest != NULL && row_value(guest, F_VM_guest_metrics_PV_drivers_version)->len > 0;
}

/* Has the guest said that it can do what the operation asks of it? */
static bool feature_said(struct vm_check *k, const struct row *guest)
{
    if (moves(k->op))
        return guest_has(guest, "feature-suspend");
    if (strcmp(k->op, "clean_shutdown") == 0)
        return guest_has(guest, "feature-shutdown") || guest_has(guest, "feature-poweroff");
    if (strcmp(k->op, "clean_reboot") == 0)
        return guest_has(guest, "feature-shutdown") || guest_has(guest, "feature-reboot");
    return true;
}

static struct error *check_features(struct vm_check *k)
{
    const struct row *guest = txn_get(k->txn, &model_classes[CLASS_VM_guest_metrics], row_string(k->vm, F_VM_guest_metrics));
    if (strcmp(k->op, "changing_VCPUs_live") == 0)
        return guest_has(guest, "feature-vcpu-hotplug") ? NULL : err_vm_lacks_feature(k->c->arena, k->vm->ref);
    if (moves(k->op) && live(k->vm) && guest != NULL) {
        const char *reason = row_map(guest, F_VM_guest_metrics_other, "data-cant-suspend-reason", NULL);
        if (reason != NULL)
            return err_vm_non_suspendable(k->c->arena, k->vm->ref, reason);
    }
    if (!k->strict || support_implied(k, guest) || feature_said(k, guest))
        return NULL;
    return err_vm_lacks_feature(k->c->arena, k->vm->ref);
}

/* --- 11..15 and table §1.13: disks that reset, devices that stay ------------------------------------------------------------ */
static bool disk_resets(struct vm_check *k, bool only_cached)
{
    const struct value *vbds = row_value(k->vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(k->txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vdi = vbd != NULL ? txn_get(k->txn, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI)) : NULL;
        if (vdi != NULL && strcmp(row_string(vdi, F_VDI_on_boot), "reset") == 0 && (!only_cached || row_bool(vdi, F_VDI_allow_caching)))
            return true;
    }
    return false;
}

/* Its driver can move it: an nvidia type on a GPU that has told what it is compatible with. */
static bool vgpu_moves(struct vm_check *k, const struct row *vgpu)
{
    const struct row *type = txn_get(k->txn, &model_classes[CLASS_VGPU_type], row_string(vgpu, F_VGPU_type));
    const struct row *gpu = txn_get(k->txn, &model_classes[CLASS_PGPU], row_string(vgpu, F_VGPU_resident_on));
    return type != NULL && gpu != NULL && one_of(row_string(type, F_VGPU_type_implementation), LIST("nvidia", "nvidia_sriov")) &&
           row_value(gpu, F_PGPU_compatibility_metadata)->len > 0;
}

static bool vgpu_stays(struct vm_check *k)
{
    const struct value *vgpus = row_value(k->vm, F_VM_VGPUs);
    for (unsigned i = 0; i < vgpus->len; i++) {
        const struct row *vgpu = txn_get(k->txn, &model_classes[CLASS_VGPU], vgpus->items[i].s);
        if (vgpu != NULL && !vgpu_moves(k, vgpu))
            return true;
    }
    return false;
}

static struct error *check_devices(struct vm_check *k)
{
    struct arena *a = k->c->arena;
    bool snapshots = strcmp(k->op, "snapshot") == 0;
    if (strcmp(k->op, "snapshot_with_quiesce") == 0)
        return error_make(a, __FILE__, __LINE__, "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", 1, k->vm->ref);
    if ((one_of(k->op, LIST("suspend", "checkpoint", "snapshot")) && disk_resets(k, false)) ||
        (strcmp(k->op, "pool_migrate") == 0 && disk_resets(k, true)))
        return err_vdi_on_boot_mode_incompatible_with_operation(a);
    if (moves(k->op) && row_value(k->vm, F_VM_attached_PCIs)->len > 0)
        return err_vm_has_pci_attached(a, k->vm->ref);
    if (moves(k->op) && vgpu_stays(k) && !(strcmp(k->op, "migrate_send") == 0 && state_is(k->vm, "Halted")) &&
        !(strcmp(k->op, "checkpoint") == 0 && state_is(k->vm, "Suspended")))
        return err_vm_has_vgpu(a, k->vm->ref);
    if ((moves(k->op) || snapshots) && row_value(k->vm, F_VM_VUSBs)->len > 0)
        return err_vm_has_vusbs(a, k->vm->ref);
    return NULL;
}

/* --- 16..19 ------------------------------------------------------------------------------------------------------------------- */
static struct error *check_memberships(struct vm_check *k)
{
    struct arena *a = k->c->arena;
    if (strcmp(k->op, "make_into_template") == 0) {
        if (!ref_is_null(row_string(k->vm, F_VM_appliance)))
            return err_vm_is_part_of_an_appliance(a, k->vm->ref, row_string(k->vm, F_VM_appliance));
        if (!ref_is_null(row_string(k->vm, F_VM_protection_policy)))
            return err_vm_assigned_to_protection_policy(a, k->vm->ref, row_string(k->vm, F_VM_protection_policy));
        if (!ref_is_null(row_string(k->vm, F_VM_snapshot_schedule)))
            return err_vm_assigned_to_snapshot_schedule(a, k->vm->ref, row_string(k->vm, F_VM_snapshot_schedule));
    }
    if (strcmp(k->op, "query_services") == 0 && !one_of(row_map(k->vm, F_VM_other_config, "is_system_domain", ""), LIST("true", "1")))
        return err_not_system_domain(a, k->vm->ref);
    return NULL;
}

static struct error *check_upgrade(struct vm_check *k)
{
    static const char *const allowed[] = { "assert_operation_valid", "changing_memory_live", "changing_shadow_memory_live", "changing_VCPUs_live",
                                           "clean_reboot", "clean_shutdown", "clone", "copy", "csvm", "destroy", "export", "get_boot_record",
                                           "hard_reboot", "hard_shutdown", "import", "make_into_template", "migrate_send", "pause", "pool_migrate",
                                           "power_state_reset", "provision", "resume", "resume_on", "send_sysrq", "send_trigger", "start", "start_on",
                                           "suspend", "unpause", "update_allowed_operations", NULL };
    if (one_of(k->op, allowed) || !version_upgrade_in_progress(k->c))
        return NULL;
    return err_not_supported_during_upgrade(k->c->arena);
}

static struct error *check_vtpm(struct vm_check *k)
{
    unsigned n = row_value(k->vm, F_VM_VTPMs)->len;
    if (strcmp(k->op, "create_vtpm") != 0 || n == 0)
        return NULL;
    return err_vtpm_max_amount_reached(k->c->arena, arena_printf(k->c->arena, "%u", n));
}

static struct error *vm_check(struct api_call *c, struct txn *txn, const struct row *vm, const char *op, bool strict)
{
    static struct error *(*const pipeline[])(struct vm_check *) = {
        check_incoming, check_blocked,  check_state,       check_concurrency, check_template, check_snapshot, check_immobile,
        check_control_domain, check_features, check_devices, check_memberships, check_upgrade, check_vtpm,
    };
    struct vm_check k = { c, txn, vm, op, strict };
    for (unsigned i = 0; i < ARRAY_LEN(pipeline); i++)
        TRY(pipeline[i](&k));
    return NULL;
}

static bool vm_published(struct api_call *c, const struct row *vm, const char *op)
{
    if (strcmp(op, "pause") == 0 && row_value(vm, F_VM_current_operations)->len > 0)
        return false;
    return !one_of(op, LIST("create_template", "power_state_reset", "csvm", "get_boot_record", "send_sysrq", "send_trigger", "query_services", "shutdown",
                            "call_plugin", "changing_memory_live", "awaiting_memory_live", "changing_memory_limits", "changing_shadow_memory_live",
                            "changing_VCPUs", "assert_operation_valid", "data_source_op", "update_allowed_operations", "import", "reverting"));
}

const struct operation_rules allowed_vm = {
    .class_id = CLASS_VM,
    .current_field = F_VM_current_operations,
    .allowed_field = F_VM_allowed_operations,
    .check = vm_check,
    .published = vm_published,
};
