#include "xapi/core/placement.h"

#include <inttypes.h>
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_state.h"

struct placement { struct api_call *c; struct txn *txn; const struct row *vm, *host; };

static const char *number(struct api_call *c, int64_t n)
{
    return arena_printf(c->arena, "%" PRId64, n);
}

/* --- §1.7 rule 2: basic parameters ------------------------------------------------------------------------ */
static struct error *check_memory_limits(struct placement *p)
{
    struct vm_memory m = vm_memory_of(p->vm);
    if (vm_memory_coerce(&m))
        return NULL;
    return error_make(p->c->arena, __FILE__, __LINE__, "MEMORY_CONSTRAINT_VIOLATION", 0);
}

static struct error *check_crash_action(struct placement *p)
{
    const char *action = row_string(p->vm, F_VM_actions_after_crash);
    bool pv = strcmp(vm_domain_type(p->vm), "pv") == 0;
    if (strcmp(action, "rename_restart") == 0)
        return err_value_not_supported(p->c->arena, "VM.actions_after_crash", action,
                                       "option would leak a domain; VMs and not domains are managed by this API");
    if (strncmp(action, "coredump_", 9) == 0 && !pv)
        return err_value_not_supported(p->c->arena, "VM.actions_after_crash", action, "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain");
    return NULL;
}

static struct error *check_basics(struct placement *p)
{
    struct arena *a = p->c->arena;
    int64_t max = row_int(p->vm, F_VM_VCPUs_max), startup = row_int(p->vm, F_VM_VCPUs_at_startup);
    if (max < 1)
        return err_invalid_value(a, "VCPUs_max", number(p->c, max));
    if (startup < 1)
        return err_invalid_value(a, "VCPUs-at-startup", number(p->c, startup));
    if (startup > max)
        return err_value_not_supported(a, "VCPUs-at-startup", number(p->c, startup), "value greater than VCPUs-max");
    TRY(check_memory_limits(p));
    double shadow = row_float(p->vm, F_VM_HVM_shadow_multiplier);
    if (shadow < 1.0)
        return err_invalid_value(a, "HVM_shadow_multiplier", arena_printf(a, "%.16g", shadow));
    return check_crash_action(p);
}

/* --- rules 3 and 4: the host takes part ---------------------------------------------------------------------- */
static struct error *check_host(struct placement *p)
{
    const struct row *metrics = txn_get(p->txn, &model_classes[CLASS_host_metrics], row_string(p->host, F_host_metrics));
    if (metrics == NULL || !row_bool(metrics, F_host_metrics_live))
        return err_host_not_live(p->c->arena);
    if (row_bool(p->vm, F_VM_is_control_domain)) {
        const char *affinity = row_string(p->vm, F_VM_affinity);
        return ref_is_null(affinity) || strcmp(affinity, p->host->ref) == 0
                   ? NULL
                   : err_operation_not_allowed(p->c->arena, "Cannot boot a control domain on a host different from its affinity");
    }
    bool running_here = strcmp(row_string(p->vm, F_VM_resident_on), p->host->ref) == 0 && strcmp(row_string(p->vm, F_VM_power_state), "Running") == 0;
    if (!running_here && !row_bool(p->host, F_host_enabled))
        return err_host_disabled(p->c->arena, p->host->ref);
    return NULL;
}

/* --- rule 5: virtual hardware platform ------------------------------------------------------------------------- */
static struct error *check_platform(struct placement *p)
{
    const struct value *versions = row_value(p->host, F_host_virtual_hardware_platform_versions);
    int64_t wanted = row_int(p->vm, F_VM_hardware_platform_version);
    AUTO_TEXT list = TEXT_INIT;
    text_add(&list, "[");
    for (unsigned i = 0; i < versions->len; i++) {
        if (versions->items[i].i == wanted)
            return NULL;
        text_printf(&list, "%s%" PRId64, i == 0 ? "" : "; ", versions->items[i].i);
    }
    text_add(&list, "]");
    return err_vm_host_incompatible_virtual_hardware_platform_version(p->c->arena, p->host->ref, list.bytes, p->vm->ref, number(p->c, wanted));
}

/* --- rule 6: CPU --------------------------------------------------------------------------------------------------- */
static bool hex_word(const char **p, uint32_t *word_r)
{
    static const char digits[] = "0123456789abcdef";
    const char *s = *p, *at;
    *word_r = 0;
    for (; *s != '\0' && (at = memchr(digits, *s | 0x20, 16)) != NULL; s++)
        *word_r = *word_r << 4 | (uint32_t)(at - digits);
    bool ok = s != *p && s <= *p + 8 && (*s == '\0' || *s == '-');
    *p = *s == '-' ? s + 1 : s;
    return ok;
}

/* Feature words "%08x-%08x-…": each bit of 'need' is in 'have', which counts as zeros where it is shorter. */
static bool features_within(const char *need, const char *have)
{
    while (*need != '\0') {
        uint32_t n, h = 0;
        if (!hex_word(&need, &n) || (*have != '\0' && !hex_word(&have, &h)) || (n & ~h) != 0)
            return false;
    }
    return true;
}

struct error *placement_check_cpu(struct api_call *c, const struct row *vm, const struct row *host)
{
    if (strcmp(row_string(vm, F_VM_power_state), "Halted") == 0)
        return NULL;
    const char *key = strcmp(vm_domain_type(vm), "pv") == 0 ? "features_pv" : "features_hvm";
    const char *vendor = row_map(vm, F_VM_last_boot_CPU_flags, "vendor", NULL), *features = row_map(vm, F_VM_last_boot_CPU_flags, "features", NULL);
    const char *host_vendor = row_map(host, F_host_cpu_info, "vendor", NULL), *host_features = row_map(host, F_host_cpu_info, key, NULL);
    const char *text = NULL;
    if (host_vendor == NULL || host_features == NULL)
        text = "Host does not have new leveling feature keys - not comparing VM's flags";
    else if (vendor != NULL && strcmp(vendor, host_vendor) != 0)
        text = "VM last booted on a host which had a CPU from a different vendor.";
    else if (features != NULL && !features_within(features, host_features))
        text = "VM last booted on a CPU with features this host's CPU does not have.";
    return text != NULL ? err_vm_incompatible_with_this_host(c->arena, vm->ref, host->ref, text) : NULL;
}

/* --- rule 7: storage -------------------------------------------------------------------------------------------------- */
bool placement_sr_attached(struct txn *txn, const char *sr_ref, const char *host_ref)
{
    const struct row *sr = txn_get(txn, &model_classes[CLASS_SR], sr_ref);
    const struct value *pbds = sr != NULL ? row_value(sr, F_SR_PBDs) : NULL;
    for (unsigned i = 0; pbds != NULL && i < pbds->len; i++) {
        const struct row *pbd = txn_get(txn, &model_classes[CLASS_PBD], pbds->items[i].s);
        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0 && row_bool(pbd, F_PBD_currently_attached))
            return true;
    }
    return false;
}

static struct error *check_vdi(struct placement *p, const char *vdi_ref)
{
    const struct row *vdi = txn_get(p->txn, &model_classes[CLASS_VDI], vdi_ref);
    if (vdi == NULL || placement_sr_attached(p->txn, row_string(vdi, F_VDI_SR), p->host->ref))
        return NULL;
    return err_vm_requires_sr(p->c->arena, p->vm->ref, row_string(vdi, F_VDI_SR));
}

static struct error *check_srs(struct placement *p)
{
    const struct value *vbds = row_value(p->vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(p->txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && !row_bool(vbd, F_VBD_empty))
            TRY(check_vdi(p, row_string(vbd, F_VBD_VDI)));
    }
    return strcmp(row_string(p->vm, F_VM_power_state), "Suspended") == 0 ? check_vdi(p, row_string(p->vm, F_VM_suspend_VDI)) : NULL;
}

/* --- rule 8: networks ----------------------------------------------------------------------------------------------------- */
/* The PIF of a network on the host; *managed_r false: the network has no PIF anywhere. */
static const struct row *network_pif(struct placement *p, const struct row *network, bool *managed_r)
{
    const struct value *pifs = row_value(network, F_network_PIFs);
    *managed_r = pifs->len > 0;
    for (unsigned i = 0; i < pifs->len; i++) {
        const struct row *pif = txn_get(p->txn, &model_classes[CLASS_PIF], pifs->items[i].s);
        if (pif != NULL && strcmp(row_string(pif, F_PIF_host), p->host->ref) == 0)
            return pif;
    }
    return NULL;
}

/* The host where a running VM already uses a network without PIFs; NULL when none does. */
static const char *network_user(struct placement *p, const struct row *network)
{
    const struct value *vifs = row_value(network, F_network_VIFs);
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = txn_get(p->txn, &model_classes[CLASS_VIF], vifs->items[i].s);
        const struct row *vm = vif != NULL ? txn_get(p->txn, &model_classes[CLASS_VM], row_string(vif, F_VIF_VM)) : NULL;
        if (vm != NULL && strcmp(vm->ref, p->vm->ref) != 0 && !ref_is_null(row_string(vm, F_VM_resident_on)))
            return row_string(vm, F_VM_resident_on);
    }
    return NULL;
}

static struct error *check_network(struct placement *p, const char *network_ref)
{
    const struct row *network = txn_get(p->txn, &model_classes[CLASS_network], network_ref);
    if (network == NULL || !row_bool(network, F_network_managed))
        return NULL;
    if (strcmp(row_map(network, F_network_other_config, "assume_network_is_shared", "false"), "true") == 0)
        return NULL;
    bool managed;
    const struct row *pif = network_pif(p, network, &managed);
    if (pif == NULL && managed)
        return err_vm_requires_network(p->c->arena, p->vm->ref, network_ref);
    if (pif == NULL) {
        const char *host = network_user(p, network);
        return host == NULL || strcmp(host, p->host->ref) == 0 ? NULL : err_vm_requires_network(p->c->arena, p->vm->ref, network_ref);
    }
    if (!ref_is_null(row_string(pif, F_PIF_bond_slave_of)))
        return err_host_cannot_attach_network(p->c->arena, p->host->ref, network_ref);
    return NULL;
}

static struct error *check_networks(struct placement *p)
{
    const struct value *vifs = row_value(p->vm, F_VM_VIFs);
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = txn_get(p->txn, &model_classes[CLASS_VIF], vifs->items[i].s);
        if (vif != NULL)
            TRY(check_network(p, row_string(vif, F_VIF_network)));
    }
    return NULL;
}

/* --- rules 13 to 15: HVM, memory, CPUs --------------------------------------------------------------------------------------- */
static struct error *check_hvm(struct placement *p)
{
    if (strcmp(vm_domain_type(p->vm), "pv") == 0)
        return NULL;
    const struct value *capabilities = row_value(p->host, F_host_capabilities);
    for (unsigned i = 0; i < capabilities->len; i++)
        if (strncmp(capabilities->items[i].s, "hvm", 3) == 0)
            return NULL;
    return err_vm_hvm_required(p->c->arena, p->vm->ref);
}

static struct error *check_memory(struct placement *p)
{
    int64_t needed = vm_memory_needed(p->vm), free_bytes = host_memory_free(p->txn, p->host, p->vm->ref);
    if (needed <= free_bytes)
        return NULL;
    return err_host_not_enough_free_memory(p->c->arena, number(p->c, needed), number(p->c, free_bytes > 0 ? free_bytes : 0));
}

static struct error *check_pcpus(struct placement *p)
{
    const char *unrestricted = row_map(p->vm, F_VM_platform, "vcpu-unrestricted", "false");
    int64_t vcpus = row_int(p->vm, F_VM_VCPUs_max), cpus = value_get_int(row_value(p->host, F_host_cpu_info), "cpu_count", 0);
    if (cpus >= vcpus || strcmp(unrestricted, "true") == 0 || strcmp(unrestricted, "1") == 0)
        return NULL;
    return err_host_not_enough_pcpus(p->c->arena, number(p->c, vcpus), number(p->c, cpus));
}

struct error *placement_check(struct api_call *c, struct txn *txn, const struct row *vm, const struct row *host, unsigned flags)
{
    struct placement p = { c, txn, vm, host };
    TRY(check_basics(&p));
    TRY(check_host(&p));
    TRY(check_platform(&p));
    if (flags & PLACE_CPU)
        TRY(placement_check_cpu(c, vm, host));
    if (flags & PLACE_SR)
        TRY(check_srs(&p));
    TRY(check_networks(&p));
    TRY(placement_check_devices(c, txn, vm, host));
    TRY(check_hvm(&p));
    if (flags & PLACE_MEMORY)
        TRY(check_memory(&p));
    return check_pcpus(&p);
}

/* --- choosing ------------------------------------------------------------------------------------------------------------------ */
static bool being_evacuated(const struct row *host)
{
    const struct value *current = row_value(host, F_host_current_operations);
    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, "evacuate") == 0)
            return true;
    return false;
}

static const struct row *best_host(struct api_call *c, struct txn *txn, const struct row *vm, unsigned flags)
{
    const char *affinity = row_string(vm, F_VM_affinity);
    struct row_list hosts = txn_all(txn, &model_classes[CLASS_host]);
    bool upgrading = version_upgrade_in_progress(c);
    const struct row *best = NULL;
    int64_t best_free = 0;
    for (unsigned i = 0; i < hosts.n; i++) {
        const struct row *host = hosts.rows[i];
        if (being_evacuated(host) || (upgrading && !version_is_highest(c, host)) || placement_check(c, txn, vm, host, flags) != NULL)
            continue;
        if (strcmp(host->ref, affinity) == 0)
            return host;
        int64_t free_bytes = host_memory_free(txn, host, vm->ref);
        if (best == NULL || free_bytes > best_free) {
            best = host;
            best_free = free_bytes;
        }
    }
    return best;
}

struct error *placement_choose(struct api_call *c, struct txn *txn, const struct row *vm, unsigned flags, const char **host_ref_r)
{
    const struct row *host = best_host(c, txn, vm, flags | PLACE_MEMORY);
    if (host == NULL)
        host = best_host(c, txn, vm, flags & ~(unsigned)PLACE_MEMORY);
    if (host == NULL)
        return err_no_hosts_available(c->arena);
    *host_ref_r = arena_strdup(c->arena, host->ref);
    return NULL;
}
