/* Settings of VMs whose change has a condition or an effect; plain ones are fields with generated setters. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_state.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define BIOS_STRING_MAX 512

static const char *number(struct api_call *c, int64_t n)
{
    return arena_printf(c->arena, "%" PRId64, n);
}

static struct error *set_string(struct api_call *c, const char *vm_ref, unsigned field, const char *s)
{
    return db_set(c->db, c->arena, CLASS_VM, vm_ref, field, value_string(s));
}

static struct error *need_halted(struct api_call *c, const struct row *vm)
{
    char *state = arena_strdup(c->arena, row_string(vm, F_VM_power_state));
    state[0] = (char)tolower((unsigned char)state[0]);
    return strcmp(state, "halted") == 0 ? NULL : err_vm_bad_power_state(c->arena, vm->ref, "halted", state);
}

/* --- processors ------------------------------------------------------------------------------------------- */
static struct error *set_vcpus(struct api_call *c, const char *vm_ref, unsigned field, int64_t value)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    int64_t max = field == F_VM_VCPUs_max ? value : row_int(vm, F_VM_VCPUs_max);
    int64_t startup = field == F_VM_VCPUs_at_startup ? value : row_int(vm, F_VM_VCPUs_at_startup);
    if (startup < 1 || startup > max)
        return err_invalid_value(c->arena, "VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max", number(c, value));
    TRY(txn_set_int(txn, CLASS_VM, vm_ref, field, value));
    TRY(vm_memory_overhead_update(txn, vm_ref));
    return txn_commit(txn, NULL);
}

struct error *api_VM_set_VCPUs_max(struct api_call *c, const struct api_VM_set_VCPUs_max_args *a, struct value *result_r)
{
    return set_vcpus(c, a->self, F_VM_VCPUs_max, a->value);
}

struct error *api_VM_set_VCPUs_at_startup(struct api_call *c, const struct api_VM_set_VCPUs_at_startup_args *a, struct value *result_r)
{
    return set_vcpus(c, a->self, F_VM_VCPUs_at_startup, a->value);
}

/* --- virtualisation ------------------------------------------------------------------------------------------ */
/* domain_type and HVM_boot_policy say the same thing in two ways and follow each other. */
static struct error *set_type(struct api_call *c, const char *vm_ref, const char *type, const char *policy)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    TRY(need_halted(c, vm));
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_domain_type, type));
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_HVM_boot_policy, policy));
    TRY(vm_memory_overhead_update(txn, vm_ref));
    TRY(operations_update(c, txn, CLASS_VM, vm_ref));
    return txn_commit(txn, NULL);
}

struct error *api_VM_set_domain_type(struct api_call *c, const struct api_VM_set_domain_type_args *a, struct value *result_r)
{
    if (strcmp(a->value, "unspecified") == 0)
        return err_invalid_value(c->arena, "domain_type", a->value);
    return set_type(c, a->self, a->value, strcmp(a->value, "hvm") == 0 ? "BIOS order" : "");
}

struct error *api_VM_set_HVM_boot_policy(struct api_call *c, const struct api_VM_set_HVM_boot_policy_args *a, struct value *result_r)
{
    return set_type(c, a->self, a->value[0] == '\0' ? "pv" : "hvm", a->value);
}

struct error *api_VM_set_HVM_shadow_multiplier(struct api_call *c, const struct api_VM_set_HVM_shadow_multiplier_args *a, struct value *result_r)
{
    if (!(a->value >= 1.0))
        return err_invalid_value(c->arena, "multiplier", arena_printf(c->arena, "%.16g", a->value));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_float(txn, CLASS_VM, a->self, F_VM_HVM_shadow_multiplier, a->value));
    TRY(vm_memory_overhead_update(txn, a->self));
    return txn_commit(txn, NULL);
}

struct error *api_VM_set_has_vendor_device(struct api_call *c, const struct api_VM_set_has_vendor_device_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->self, &vm));
    TRY(need_halted(c, vm));
    TRY(txn_set_bool(txn, CLASS_VM, a->self, F_VM_has_vendor_device, a->value));
    if (a->value && row_int(vm, F_VM_hardware_platform_version) < VM_PLATFORM_VENDOR_DEVICE)
        TRY(txn_set_int(txn, CLASS_VM, a->self, F_VM_hardware_platform_version, VM_PLATFORM_VENDOR_DEVICE));
    return txn_commit(txn, NULL);
}

/* --- firmware ------------------------------------------------------------------------------------------------- */
struct error *api_VM_set_NVRAM(struct api_call *c, const struct api_VM_set_NVRAM_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_VM, a->self, F_VM_NVRAM, *a->value);
}

struct error *api_VM_add_to_NVRAM(struct api_call *c, const struct api_VM_add_to_NVRAM_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_map_add(txn, CLASS_VM, a->self, F_VM_NVRAM, a->key, value_string(a->value)));
    return txn_commit(txn, NULL);
}

struct error *api_VM_remove_from_NVRAM(struct api_call *c, const struct api_VM_remove_from_NVRAM_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_map_remove(txn, CLASS_VM, a->self, F_VM_NVRAM, a->key));
    return txn_commit(txn, NULL);
}

static struct error *check_bios_string(struct api_call *c, const char *key, const char *s)
{
    static const char *const keys[] = { "bios-vendor", "bios-version", "system-manufacturer", "system-product-name", "system-version",
                                        "system-serial-number", "enclosure-asset-tag", "baseboard-manufacturer", "baseboard-product-name",
                                        "baseboard-version", "baseboard-serial-number", "baseboard-asset-tag", "baseboard-location-in-chassis", NULL };
    if (!one_of(key, keys))
        return err_invalid_value(c->arena, key, "Unknown key");
    if (s[0] == '\0')
        return err_invalid_value(c->arena, key, "Value provided is empty");
    if (strlen(s) > BIOS_STRING_MAX)
        return err_invalid_value(c->arena, key, arena_printf(c->arena, "%s has length more than %d characters", s, BIOS_STRING_MAX));
    for (const char *p = s; *p != '\0'; p++)
        if (*p < 32 || *p >= 127)
            return err_invalid_value(c->arena, key, arena_printf(c->arena, "%s has non-printable ASCII characters", s));
    return NULL;
}

struct error *api_VM_set_bios_strings(struct api_call *c, const struct api_VM_set_bios_strings_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->self, &vm));
    if (row_value(vm, F_VM_bios_strings)->len > 0)
        return err_vm_bios_strings_already_set(c->arena);
    for (unsigned i = 0; i < a->value->len; i++)
        TRY(check_bios_string(c, a->value->members[i].name, a->value->members[i].value.s));
    TRY(txn_set(txn, CLASS_VM, a->self, F_VM_bios_strings, *a->value));
    return txn_commit(txn, NULL);
}

/* The VM then rather starts on that host. */
struct error *api_VM_copy_bios_strings(struct api_call *c, const struct api_VM_copy_bios_strings_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm, *host;
    TRY(txn_need(txn, CLASS_VM, a->vm, &vm));
    TRY(txn_need(txn, CLASS_host, a->host, &host));
    if (row_value(vm, F_VM_bios_strings)->len > 0)
        return err_vm_bios_strings_already_set(c->arena);
    TRY(txn_set(txn, CLASS_VM, a->vm, F_VM_bios_strings, *row_value(host, F_host_bios_strings)));
    TRY(txn_set_string(txn, CLASS_VM, a->vm, F_VM_affinity, a->host));
    return txn_commit(txn, NULL);
}

/* --- life cycle ------------------------------------------------------------------------------------------------- */
struct error *api_VM_set_actions_after_crash(struct api_call *c, const struct api_VM_set_actions_after_crash_args *a, struct value *result_r)
{
    return set_string(c, a->self, F_VM_actions_after_crash, a->value);
}

static struct error *write_is_a_template(struct api_call *c, const char *vm_ref, bool value)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    const char *metrics = row_string(vm, F_VM_metrics);
    if (value)
        TRY(txn_set_bool(txn, CLASS_VM, vm_ref, F_VM_ha_always_run, false));
    else if (txn_get(txn, &model_classes[CLASS_VM_metrics], metrics) != NULL) /* no template any more: it counts as installed now */
        TRY(txn_set(txn, CLASS_VM_metrics, metrics, F_VM_metrics_install_time, value_datetime(clock_wall(c->call.clock))));
    TRY(txn_set_bool(txn, CLASS_VM, vm_ref, F_VM_is_a_template, value));
    TRY(operations_update_around(c, txn, CLASS_VM, vm_ref));
    return txn_commit(txn, NULL);
}

struct error *api_VM_set_is_a_template(struct api_call *c, const struct api_VM_set_is_a_template_args *a, struct value *result_r)
{
    if (!a->value)
        return write_is_a_template(c, a->self, false);
    TRY(operation_begin(c, CLASS_VM, a->self, "make_into_template", true));
    OPERATION_SCOPE on_vm = { c, CLASS_VM, a->self, "make_into_template" };
    return write_is_a_template(c, a->self, true);
}

/* The image is taken as it is: whether it fits the VM shows when it is resumed. */
struct error *api_VM_set_suspend_VDI(struct api_call *c, const struct api_VM_set_suspend_VDI_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->self, &vm));
    char *state = arena_strdup(c->arena, row_string(vm, F_VM_power_state));
    state[0] = (char)tolower((unsigned char)state[0]);
    if (strcmp(state, "suspended") != 0)
        return err_vm_bad_power_state(c->arena, a->self, "suspended", state);
    TRY(txn_set_string(txn, CLASS_VM, a->self, F_VM_suspend_VDI, a->value));
    return txn_commit(txn, NULL);
}

/* --- the order in which VMs are started and shut down -------------------------------------------------------------- */
static struct error *set_not_negative(struct api_call *c, const char *vm_ref, unsigned field, const char *text, int64_t value)
{
    if (value < 0)
        return err_invalid_value(c->arena, text, number(c, value));
    return db_set(c->db, c->arena, CLASS_VM, vm_ref, field, value_int(value));
}

struct error *api_VM_set_order(struct api_call *c, const struct api_VM_set_order_args *a, struct value *result_r)
{
    return set_not_negative(c, a->self, F_VM_order, "order must be non-negative", a->value);
}

struct error *api_VM_set_start_delay(struct api_call *c, const struct api_VM_set_start_delay_args *a, struct value *result_r)
{
    return set_not_negative(c, a->self, F_VM_start_delay, "start_delay must be non-negative", a->value);
}

struct error *api_VM_set_shutdown_delay(struct api_call *c, const struct api_VM_set_shutdown_delay_args *a, struct value *result_r)
{
    return set_not_negative(c, a->self, F_VM_shutdown_delay, "shutdown_delay must be non-negative", a->value);
}

struct error *api_VM_set_appliance(struct api_call *c, const struct api_VM_set_appliance_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, a->self, &vm));
    if (row_bool(vm, F_VM_is_control_domain) || row_bool(vm, F_VM_is_a_template) || row_bool(vm, F_VM_is_a_snapshot))
        return err_operation_not_allowed(c->arena, "Control domains, templates and snapshots cannot be assigned to appliances.");
    TRY(txn_set_string(txn, CLASS_VM, a->self, F_VM_appliance, a->value));
    TRY(operations_update(c, txn, CLASS_VM, a->self));
    return txn_commit(txn, NULL);
}

/* --- high availability: the settings; nothing acts on them while HA is off ------------------------------------------- */
static struct error *set_priority(struct api_call *c, const char *vm_ref, const char *priority)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    if (!one_of(priority, LIST("restart", "best-effort", "")))
        return err_invalid_value(c->arena, "ha_restart_priority", priority);
    if (strcmp(row_string(vm, F_VM_ha_restart_priority), priority) == 0)
        return NULL;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_ha_restart_priority, priority));
    if (strcmp(row_string(vm, F_VM_power_state), "Running") == 0)
        TRY(txn_set_bool(txn, CLASS_VM, vm_ref, F_VM_ha_always_run, strcmp(priority, "restart") == 0));
    return txn_commit(txn, NULL);
}

struct error *api_VM_set_ha_restart_priority(struct api_call *c, const struct api_VM_set_ha_restart_priority_args *a, struct value *result_r)
{
    return set_priority(c, a->self, a->value);
}

struct error *api_VM_set_ha_always_run(struct api_call *c, const struct api_VM_set_ha_always_run_args *a, struct value *result_r)
{
    return set_priority(c, a->self, a->value ? "restart" : "");
}
