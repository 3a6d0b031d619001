/* The rows that stand for a host: made when it joins, brought up to date at each of its starts. */
#include <stdlib.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/sr_rows.h"

#define FIELD(class_field, v) { F_##class_field, v }
#define NONE value_string(REF_NULL)

static struct value string_map(struct arena *arena, const char *const pairs[][2], unsigned n)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < n; i++)
        value_dict_add(arena, &d, pairs[i][0], value_string(pairs[i][1]));
    return value_dict_value(&d);
}

static struct value described(const struct value *description, const char *name, struct value fallback)
{
    const struct value *v = value_get(description, name);

    return v == NULL || v->kind != fallback.kind ? fallback : *v;
}

static const char *epoch_text(struct arena *arena, const struct value *description, const char *name)
{
    return arena_printf(arena, "%lld.", (long long)value_get_int(description, name, 0));
}

const struct row *pool_row(struct txn *txn)
{
    struct row_list pools = txn_all(txn, &model_classes[CLASS_pool]);

    return pools.n == 0 ? NULL : pools.rows[0];
}

/* --- processors --------------------------------------------------------------------------------------- */
static struct error *cpus_create(struct txn *txn, struct arena *arena, const char *host_ref, const struct value *description)
{
    const struct value *info = value_get(description, "cpu_info");
    int64_t n = value_get_int(info, "cpu_count", 1);
    const char *ref;

    for (int64_t i = 0; i < n; i++) {
        const struct field_value fields[] = {
            FIELD(host_cpu_host, value_string(host_ref)),
            FIELD(host_cpu_number, value_int(i)),
            FIELD(host_cpu_vendor, value_string(value_get_string(info, "vendor", ""))),
            FIELD(host_cpu_speed, value_int((int64_t)strtod(value_get_string(info, "speed", "0"), NULL))),
            FIELD(host_cpu_modelname, value_string(value_get_string(info, "modelname", ""))),
            FIELD(host_cpu_family, value_int(value_get_int(info, "family", 0))),
            FIELD(host_cpu_model, value_int(value_get_int(info, "model", 0))),
            FIELD(host_cpu_stepping, value_string(value_get_string(info, "stepping", ""))),
            FIELD(host_cpu_flags, value_string(value_get_string(info, "flags", ""))),
            FIELD(host_cpu_features, value_string(value_get_string(info, "features", ""))),
        };
        TRY(txn_create(txn, CLASS_host_cpu, NULL, NULL, fields, ARRAY_LEN(fields), &ref));
    }
    return NULL;
}

static struct error *delete_all(struct txn *txn, unsigned class_id, const struct value *refs)
{
    for (unsigned i = 0; i < refs->len; i++)
        TRY(txn_delete(txn, class_id, refs->items[i].s));
    return NULL;
}

/* --- dom0 ------------------------------------------------------------------------------------------------ */
static struct error *dom0_console(struct txn *txn, struct arena *arena, const char *vm_ref, const char *address)
{
    const char *uuid = uuid_make(arena), *ref;
    const struct field_value fields[] = {
        FIELD(console_protocol, value_string("rfb")),
        FIELD(console_location, value_string(arena_printf(arena, "https://%s/console?uuid=%s", address, uuid))),
        FIELD(console_VM, value_string(vm_ref)),
    };

    return txn_create(txn, CLASS_console, NULL, uuid, fields, ARRAY_LEN(fields), &ref);
}

static struct error *dom0_metrics(struct txn *txn, const struct value *description, int64_t memory, const char **ref_r)
{
    struct value state[] = { value_string("running") };
    const struct field_value fields[] = {
        FIELD(VM_metrics_memory_actual, value_int(memory)),
        FIELD(VM_metrics_VCPUs_number, value_int(value_get_int(value_get(description, "cpu_info"), "cpu_count", 1))),
        FIELD(VM_metrics_state, value_set(state, 1)),
        FIELD(VM_metrics_start_time, value_datetime(value_get_int(description, "boot_time", 0))),
        FIELD(VM_metrics_last_updated, value_datetime(value_get_int(description, "agent_start_time", 0))),
        FIELD(VM_metrics_current_domain_type, value_string("pv")),
    };

    return txn_create(txn, CLASS_VM_metrics, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

static struct error *dom0_create(struct txn *txn, struct arena *arena, const char *host_ref, const struct value *description, const char **ref_r)
{
    static const char *const other_config[][2] = { { "storage_driver_domain", "OpaqueRef:NULL" }, { "is_system_domain", "true" } };
    int64_t memory = value_get_int(description, "memory_total", 0) - value_get_int(description, "memory_free", 0);
    int64_t vcpus = value_get_int(value_get(description, "cpu_info"), "cpu_count", 1);
    const char *metrics;

    memory = memory < 0 ? 0 : memory;
    TRY(dom0_metrics(txn, description, memory, &metrics));
    const struct field_value fields[] = {
        FIELD(VM_name_label, value_string(arena_printf(arena, "Control domain on host: %s", value_get_string(description, "hostname", "")))),
        FIELD(VM_name_description, value_string("The domain which manages physical devices and manages other domains")),
        FIELD(VM_power_state, value_string("Running")),
        FIELD(VM_is_control_domain, value_bool(true)),
        FIELD(VM_resident_on, value_string(host_ref)),
        FIELD(VM_affinity, value_string(host_ref)),
        FIELD(VM_memory_target, value_int(memory)),
        FIELD(VM_memory_static_max, value_int(memory)),
        FIELD(VM_memory_dynamic_max, value_int(memory)),
        FIELD(VM_memory_dynamic_min, value_int(memory)),
        FIELD(VM_memory_static_min, value_int(memory)),
        FIELD(VM_VCPUs_max, value_int(vcpus)),
        FIELD(VM_VCPUs_at_startup, value_int(vcpus)),
        FIELD(VM_actions_after_shutdown, value_string("destroy")),
        FIELD(VM_actions_after_reboot, value_string("destroy")),
        FIELD(VM_actions_after_crash, value_string("destroy")),
        FIELD(VM_domid, value_int(0)),
        FIELD(VM_domarch, value_string("x64")),
        FIELD(VM_metrics, value_string(metrics)),
        FIELD(VM_domain_type, value_string("pv")),
        FIELD(VM_other_config, string_map(arena, other_config, ARRAY_LEN(other_config))),
    };
    TRY(txn_create(txn, CLASS_VM, NULL, value_get_string(description, "control_domain_uuid", NULL), fields, ARRAY_LEN(fields), ref_r));
    return dom0_console(txn, arena, *ref_r, value_get_string(description, "address", ""));
}

static struct error *dom0_destroy(struct txn *txn, const char *ref)
{
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], ref);

    if (vm == NULL)
        return NULL;
    TRY(delete_all(txn, CLASS_console, row_value(vm, F_VM_consoles)));
    if (txn_get(txn, &model_classes[CLASS_VM_metrics], row_string(vm, F_VM_metrics)) != NULL)
        TRY(txn_delete(txn, CLASS_VM_metrics, row_string(vm, F_VM_metrics)));
    return txn_delete(txn, CLASS_VM, ref);
}

/* --- the certificate -------------------------------------------------------------------------------------- */
static struct error *certificate_record(struct txn *txn, const char *host_ref, const struct value *description)
{
    const struct row *host = txn_get(txn, &model_classes[CLASS_host], host_ref);
    const struct value *refs = row_value(host, F_host_certificates);
    const char *fingerprint = value_get_string(description, "certificate", ""), *ref;

    for (unsigned i = 0; i < refs->len; i++) {
        const struct row *certificate = txn_get(txn, &model_classes[CLASS_Certificate], refs->items[i].s);

        if (certificate != NULL && strcmp(row_string(certificate, F_Certificate_type), "host") == 0)
            return txn_set_string(txn, CLASS_Certificate, certificate->ref, F_Certificate_fingerprint, fingerprint);
    }
    const struct field_value fields[] = {
        FIELD(Certificate_type, value_string("host")),
        FIELD(Certificate_host, value_string(host_ref)),
        FIELD(Certificate_not_before, value_datetime(value_get_int(description, "certificate_from", 0))),
        FIELD(Certificate_not_after, value_datetime(value_get_int(description, "certificate_until", 0))),
        FIELD(Certificate_fingerprint, value_string(fingerprint)),
    };
    return txn_create(txn, CLASS_Certificate, NULL, NULL, fields, ARRAY_LEN(fields), &ref);
}

/* --- the host ---------------------------------------------------------------------------------------------- */
static struct value host_other_config(struct arena *arena, const struct value *description)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "boot_time", value_string(epoch_text(arena, description, "boot_time")));
    value_dict_add(arena, &d, "agent_start_time", value_string(epoch_text(arena, description, "agent_start_time")));
    value_dict_add(arena, &d, "iscsi_iqn", value_string(arena_printf(arena, "iqn.2026-01.local.xapi:%.8s", value_get_string(description, "uuid", ""))));
    return value_dict_value(&d);
}

static struct error *metrics_create(struct txn *txn, const struct value *description, const char **ref_r)
{
    const struct field_value fields[] = {
        FIELD(host_metrics_memory_total, value_int(value_get_int(description, "memory_total", 0))),
        FIELD(host_metrics_memory_free, value_int(value_get_int(description, "memory_free", 0))),
        FIELD(host_metrics_live, value_bool(false)),
        FIELD(host_metrics_last_updated, value_datetime(value_get_int(description, "agent_start_time", 0))),
    };

    return txn_create(txn, CLASS_host_metrics, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

struct error *host_rows_create(struct txn *txn, struct arena *arena, const struct value *description, const char *name_label,
                               const char **host_ref_r)
{
    struct value versions[] = { value_int(0), value_int(1), value_int(2) };
    struct value loaders[] = { value_string("pygrub"), value_string("eliloader") };
    struct value editions[] = { value_string("xcp-ng") };
    const char *metrics, *dom0;

    TRY(metrics_create(txn, description, &metrics));
    const struct field_value fields[] = {
        FIELD(host_name_label, value_string(name_label)),
        FIELD(host_name_description, value_string("Default install")),
        FIELD(host_API_version_vendor, value_string("XenSource")),
        FIELD(host_enabled, value_bool(false)),
        FIELD(host_other_config, host_other_config(arena, description)),
        FIELD(host_sched_policy, value_string("credit")),
        FIELD(host_supported_bootloaders, value_set(loaders, ARRAY_LEN(loaders))),
        FIELD(host_suspend_image_sr, NONE),
        FIELD(host_crash_dump_sr, NONE),
        FIELD(host_metrics, value_string(metrics)),
        FIELD(host_license_params, license_params(arena)),
        FIELD(host_edition, value_string("xcp-ng")),
        FIELD(host_editions, value_set(editions, ARRAY_LEN(editions))),
        FIELD(host_ssl_legacy, value_bool(false)),
        FIELD(host_virtual_hardware_platform_versions, value_set(versions, ARRAY_LEN(versions))),
        FIELD(host_tls_verification_enabled, value_bool(true)),
    };
    TRY(txn_create(txn, CLASS_host, NULL, value_get_string(description, "uuid", NULL), fields, ARRAY_LEN(fields), host_ref_r));
    TRY(dom0_create(txn, arena, *host_ref_r, description, &dom0));
    TRY(txn_set_string(txn, CLASS_host, *host_ref_r, F_host_control_domain, dom0));
    return host_rows_update(txn, arena, *host_ref_r, description);
}

static struct error *update_fields(struct txn *txn, const char *ref, const struct value *description)
{
    static const struct { unsigned field; const char *name; enum value_kind kind; } described_fields[] = {
        { F_host_address, "address", VALUE_STRING },
        { F_host_hostname, "hostname", VALUE_STRING },
        { F_host_software_version, "software_version", VALUE_MAP },
        { F_host_capabilities, "capabilities", VALUE_SET },
        { F_host_cpu_info, "cpu_info", VALUE_MAP },
        { F_host_chipset_info, "chipset_info", VALUE_MAP },
        { F_host_bios_strings, "bios_strings", VALUE_MAP },
    };

    for (unsigned i = 0; i < ARRAY_LEN(described_fields); i++) {
        const struct value *v = value_get(description, described_fields[i].name);

        if (v != NULL && v->kind == described_fields[i].kind)
            TRY(txn_set(txn, CLASS_host, ref, described_fields[i].field, *v));
    }
    TRY(txn_set_bool(txn, CLASS_host, ref, F_host_https_only, value_get_bool(description, "https_only", false)));
    TRY(txn_set_int(txn, CLASS_host, ref, F_host_API_version_major, value_get_int(description, "api_major", API_MAJOR)));
    return txn_set_int(txn, CLASS_host, ref, F_host_API_version_minor, value_get_int(description, "api_minor", API_MINOR));
}

struct error *host_rows_update(struct txn *txn, struct arena *arena, const char *host_ref, const struct value *description)
{
    const struct row *host;
    struct value cpu = described(description, "cpu_info", value_map(NULL, 0));
    int64_t n_cpus = value_get_int(&cpu, "cpu_count", 1);
    const char *metrics;

    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    metrics = row_string(host, F_host_metrics);
    TRY(update_fields(txn, host_ref, description));
    TRY(txn_map_put(txn, CLASS_host, host_ref, F_host_other_config, "boot_time", value_string(epoch_text(arena, description, "boot_time"))));
    TRY(txn_map_put(txn, CLASS_host, host_ref, F_host_other_config, "agent_start_time",
                    value_string(epoch_text(arena, description, "agent_start_time"))));
    if ((int64_t)row_value(host, F_host_host_CPUs)->len != n_cpus) {
        TRY(delete_all(txn, CLASS_host_cpu, row_value(host, F_host_host_CPUs)));
        TRY(cpus_create(txn, arena, host_ref, description));
    }
    if (txn_get(txn, &model_classes[CLASS_host_metrics], metrics) == NULL) { /* volatile: gone after a restart */
        TRY(metrics_create(txn, description, &metrics));
        TRY(txn_set_string(txn, CLASS_host, host_ref, F_host_metrics, metrics));
    }
    TRY(txn_set_int(txn, CLASS_host_metrics, metrics, F_host_metrics_memory_total, value_get_int(description, "memory_total", 0)));
    TRY(certificate_record(txn, host_ref, description));
    return pool_cpu_update(txn, arena);
}

/* --- the pool's processors -------------------------------------------------------------------------------- */
/* The bits two feature strings "%08x-%08x-…" have in common, in the arena. */
static const char *features_common(struct arena *arena, const char *a, const char *b)
{
    char *common = arena_strdup(arena, strlen(a) < strlen(b) ? a : b);
    static const char digits[] = "0123456789abcdef";

    for (unsigned i = 0; common[i] != '\0'; i++) {
        const char *x = strchr(digits, a[i] | 0x20), *y = strchr(digits, b[i] | 0x20);

        if (x != NULL && y != NULL)
            common[i] = digits[(x - digits) & (y - digits)];
    }
    return common;
}

struct error *pool_cpu_update(struct txn *txn, struct arena *arena)
{
    static const char *const sets[] = { "features", "features_pv", "features_hvm", "features_pv_host", "features_hvm_host" };
    const struct row *pool = pool_row(txn);
    struct row_list hosts = txn_all(txn, &model_classes[CLASS_host]);
    struct value_dict d = { 0 };
    long long cpus = 0, sockets = 0;

    if (pool == NULL || hosts.n == 0)
        return NULL;
    value_dict_add(arena, &d, "vendor", value_string(row_map(hosts.rows[0], F_host_cpu_info, "vendor", "")));
    for (unsigned h = 0; h < hosts.n; h++) {
        cpus += value_get_int(row_value(hosts.rows[h], F_host_cpu_info), "cpu_count", 0);
        sockets += value_get_int(row_value(hosts.rows[h], F_host_cpu_info), "socket_count", 0);
    }
    for (unsigned i = 0; i < ARRAY_LEN(sets); i++) {
        const char *common = row_map(hosts.rows[0], F_host_cpu_info, sets[i], "");

        for (unsigned h = 1; h < hosts.n; h++)
            common = features_common(arena, common, row_map(hosts.rows[h], F_host_cpu_info, sets[i], ""));
        value_dict_add(arena, &d, sets[i], value_string(common));
    }
    value_dict_add(arena, &d, "cpu_count", value_string(arena_printf(arena, "%lld", cpus)));
    value_dict_add(arena, &d, "socket_count", value_string(arena_printf(arena, "%lld", sockets)));
    return txn_set(txn, CLASS_pool, pool->ref, F_pool_cpu_info, value_dict_value(&d));
}

/* --- removal -------------------------------------------------------------------------------------------------- */
static struct error *pbds_destroy(struct txn *txn, const struct value *pbds)
{
    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = txn_get(txn, &model_classes[CLASS_PBD], pbds->items[i].s), *sr;

        if (pbd == NULL)
            continue;
        sr = txn_get(txn, &model_classes[CLASS_SR], row_string(pbd, F_PBD_SR));
        if (sr != NULL && row_value(sr, F_SR_PBDs)->len == 1 && !row_bool(sr, F_SR_shared))
            TRY(sr_row_destroy(txn, sr));
        else
            TRY(txn_delete(txn, CLASS_PBD, pbd->ref));
    }
    return NULL;
}

static struct error *pifs_destroy(struct txn *txn, const struct value *pifs)
{
    for (unsigned i = 0; i < pifs->len; i++) {
        const struct row *pif = txn_get(txn, &model_classes[CLASS_PIF], pifs->items[i].s);

        if (pif == NULL)
            continue;
        if (txn_get(txn, &model_classes[CLASS_PIF_metrics], row_string(pif, F_PIF_metrics)) != NULL)
            TRY(txn_delete(txn, CLASS_PIF_metrics, row_string(pif, F_PIF_metrics)));
        TRY(delete_all(txn, CLASS_VLAN, row_value(pif, F_PIF_VLAN_slave_of)));
        TRY(txn_delete(txn, CLASS_PIF, pif->ref));
    }
    return NULL;
}

/* VMs that were to run there run anywhere. */
static struct error *vms_forget_host(struct txn *txn, const char *host_ref)
{
    static const unsigned fields[] = { F_VM_affinity, F_VM_resident_on, F_VM_scheduled_to_be_resident_on };
    struct row_list vms = txn_all(txn, &model_classes[CLASS_VM]);

    for (unsigned i = 0; i < vms.n; i++)
        for (unsigned f = 0; f < ARRAY_LEN(fields); f++)
            if (strcmp(row_string(vms.rows[i], fields[f]), host_ref) == 0)
                TRY(txn_set_string(txn, CLASS_VM, vms.rows[i]->ref, fields[f], REF_NULL));
    return NULL;
}

struct error *host_rows_destroy(struct txn *txn, struct arena *arena, const char *host_ref)
{
    const struct row *host;

    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    TRY(dom0_destroy(txn, row_string(host, F_host_control_domain)));
    TRY(pbds_destroy(txn, row_value(host, F_host_PBDs)));
    TRY(pifs_destroy(txn, row_value(host, F_host_PIFs)));
    TRY(delete_all(txn, CLASS_host_cpu, row_value(host, F_host_host_CPUs)));
    TRY(delete_all(txn, CLASS_Certificate, row_value(host, F_host_certificates)));
    if (txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics)) != NULL)
        TRY(txn_delete(txn, CLASS_host_metrics, row_string(host, F_host_metrics)));
    TRY(vms_forget_host(txn, host_ref));
    TRY(txn_delete(txn, CLASS_host, host_ref));
    return pool_cpu_update(txn, arena);
}
