/* Nothing is restricted; clients take an absent switch for a restricted feature, so all are named. */
#include "xapi/pool/host_record.h"

static const char *const features[] = {
    "ad", "batch_hotfix_apply", "cbt", "certificate_verification", "checkpoint", "cifs", "connection", "corosync", "cpu_masking",
    "dmc", "dr", "email_alerting", "equalogic", "export_resource_data", "gpu", "guest_agent_auto_update", "guest_ip_setting", "ha",
    "health_check", "historical_performance", "hotfix_apply", "igmp_snooping", "integrated_gpu_passthrough", "intellicache", "lab",
    "live_patching", "management_on_vlan", "marathon", "netapp", "network_sriov", "nrpe", "pci_device_for_auto_update",
    "pool_attached_storage", "pool_secret_rotation", "pool_size", "pooling", "pvs_proxy", "qos", "rbac", "read_caching", "rpu",
    "set_vcpus_number_live", "ssl_legacy_switch", "stage", "storage_choice", "storage_xen_motion", "storagelink",
    "storagelink_site_recovery", "updates", "usb_passthrough", "vcpu_min", "vga_passthrough", "vgpu", "vif", "vlan", "vm_anti_affinity",
    "vm_group", "vmpr", "vmss", "vss", "vswitch_controller", "vtpm", "web_selfservice", "web_selfservice_manager", "wlb", "xcm",
    "xen_motion", "zstd_export",
};

static void add_restrictions(struct arena *arena, struct value_dict *d)
{
    for (unsigned i = 0; i < ARRAY_LEN(features); i++)
        value_dict_add(arena, d, arena_printf(arena, "restrict_%s", features[i]), value_string("false"));
    value_dict_add(arena, d, "enable_xha", value_string("true"));
    value_dict_add(arena, d, "regular_nag_dialog", value_string("false"));
}

struct value license_restrictions(struct arena *arena)
{
    struct value_dict d = { 0 };

    add_restrictions(arena, &d);
    return value_dict_value(&d);
}

struct value license_params(struct arena *arena)
{
    static const char *const fixed[][2] = {
        { "sku_type", "enterprise" }, { "sku_marketing_name", "" }, { "version", "" },   { "serialnumber", "" },
        { "productcode", "" },        { "sockets", "32" },           { "expiry", "20991231T23:00:00Z" }, { "grace", "no" },
        { "name", "" },               { "company", "" },             { "address1", "" },  { "address2", "" },
        { "city", "" },               { "state", "" },               { "postalcode", "" }, { "country", "" },
        { "license_type", "" },
    };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(fixed); i++)
        value_dict_add(arena, &d, fixed[i][0], value_string(fixed[i][1]));
    add_restrictions(arena, &d);
    return value_dict_value(&d);
}
