/* Fills a pool database with VMs as big as real ones: bench_fill file count
 *
 * Each halted VM comes with its metrics, three disks' worth of VBDs (empty drives: there is no storage
 * behind them), two VIFs and a console. The file is one that a daemon has made and closed before. */
#include <stdio.h>
#include <stdlib.h>

#include "db/db.h"
#include "db/txn.h"
#include "gen/model_ids.h"
#include "rpc/base/text.h"

#define BATCH 250u

struct fill { struct txn *txn; struct arena *arena; const char *network; };

static void need(const struct error *error)
{
    if (error == NULL)
        return;
    fprintf(stderr, "bench_fill: %s: %s\n", error->code, error->n_params > 0 ? error->params[0] : "");
    exit(1);
}

struct pair { const char *key, *value; };

static struct value map_of(struct arena *a, const struct pair *pairs, unsigned n)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < n; i++)
        value_dict_add(a, &d, pairs[i].key, value_string(pairs[i].value));
    return value_dict_value(&d);
}
#define MAP(a, pairs) map_of(a, pairs, ARRAY_LEN(pairs))

static const struct pair platform[] = {
    { "acpi", "1" }, { "apic", "true" }, { "cores-per-socket", "2" }, { "device-model", "qemu-upstream-uefi" }, { "device_id", "0002" },
    { "exp-nested-hvm", "false" }, { "hpet", "true" }, { "nx", "true" }, { "pae", "true" }, { "secureboot", "false" },
    { "timeoffset", "3600" }, { "vga", "std" }, { "videoram", "8" }, { "viridian", "true" }, { "viridian_reference_tsc", "true" },
    { "viridian_time_ref_count", "true" },
};
static const struct pair other_config[] = {
    { "auto_poweron", "true" }, { "base_template_name", "Debian Bookworm 12" }, { "folder", "/production/north/web" },
    { "import_task", "OpaqueRef:d3d1c7f7-47b1-42a9-8e3d-6b0b1f6b4c5e" }, { "install-methods", "cdrom,nfs,http,ftp" },
    { "linux_template", "true" }, { "mac_seed", "5c3e1f77-52f8-4a3e-9f5e-1f0d6f1a2b3c" }, { "vgpu_pci", "" },
    { "xo:backup:datetime", "20261121T23:00:05Z" }, { "xo:backup:job", "4a3d5d2e-6d5c-4f9e-8f3b-0d3d6f1a2b3c" },
    { "xo:backup:schedule", "0e8dd4f6-31f5-4ca8-b2b6-6f3a5d9b7c10" }, { "xo:resource_set", "north" },
    { "XenCenter.CustomFields.owner", "operations & support" }, { "xo:creation", "2024-03-01 by <admin>" },
};
static const struct pair bios_strings[] = {
    { "bios-vendor", "Xen" }, { "bios-version", "" }, { "system-manufacturer", "Xen" }, { "system-product-name", "HVM domU" },
    { "system-version", "" }, { "system-serial-number", "" }, { "baseboard-manufacturer", "" }, { "baseboard-product-name", "" },
    { "baseboard-version", "" }, { "baseboard-serial-number", "" }, { "baseboard-asset-tag", "" }, { "baseboard-location-in-chassis", "" },
    { "enclosure-asset-tag", "" }, { "hp-rombios", "" }, { "oem-1", "Xen" }, { "oem-2", "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d" },
    { "oem-3", "" }, { "oem-4", "" },
};
static const struct pair xenstore_data[] = {
    { "vm-data", "" }, { "vm-data/mmio-hole-size", "268435456" }, { "vm-data/ip", "10.20.30.40" }, { "vm-data/role", "web" },
};
static const struct pair boot_params[] = { { "firmware", "uefi" }, { "order", "cdn" } };
static const struct pair cpu_flags[] = { { "vendor", "AuthenticAMD" }, { "features", "178bfbff-f6d83203-2e500800-040001f3-0000000f-219c01a9" } };
static const struct pair nvram[] = { { "EFI-variables-backend", "xapidb" } };
static const struct pair vcpus_params[] = { { "weight", "256" }, { "cap", "0" } };
static const char recommendations[] =
    "<restrictions><restriction field=\"memory-static-max\" max=\"1649267441664\"/><restriction field=\"vcpus-max\" max=\"32\"/>"
    "<restriction field=\"has-vendor-device\" value=\"true\"/><restriction max=\"255\" property=\"number-of-vbds\"/>"
    "<restriction max=\"7\" property=\"number-of-vifs\"/><restriction field=\"supports-uefi\" value=\"yes\"/></restrictions>";

static const char *make(struct fill *f, unsigned class_id, const struct field_value *fields, unsigned n)
{
    const char *ref;

    need(txn_create(f->txn, class_id, NULL, NULL, fields, n, &ref));
    return ref;
}

static void make_devices(struct fill *f, const char *vm, unsigned number)
{
    static const char *const places[] = { "0", "1", "3" };

    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        const struct field_value vbd[] = {
            { F_VBD_VM, value_string(vm) }, { F_VBD_userdevice, value_string(places[i]) }, { F_VBD_type, value_string("CD") },
            { F_VBD_mode, value_string("RO") }, { F_VBD_empty, value_bool(true) }, { F_VBD_bootable, value_bool(i == 0) },
        };
        make(f, CLASS_VBD, vbd, ARRAY_LEN(vbd));
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct field_value vif[] = {
            { F_VIF_VM, value_string(vm) }, { F_VIF_network, value_string(f->network) }, { F_VIF_device, value_string(places[i]) },
            { F_VIF_MAC, value_string(arena_printf(f->arena, "02:%02x:%02x:%02x:%02x:00", i, number >> 16 & 255, number >> 8 & 255, number & 255)) },
        };
        make(f, CLASS_VIF, vif, ARRAY_LEN(vif));
    }
    const struct field_value console[] = {
        { F_console_VM, value_string(vm) }, { F_console_protocol, value_string("rfb") },
        { F_console_location, value_string(arena_printf(f->arena, "https://127.0.0.1/console?uuid=%08x", number)) },
    };
    make(f, CLASS_console, console, ARRAY_LEN(console));
}

static void make_vm(struct fill *f, unsigned number)
{
    struct arena *a = f->arena;
    struct value tag = value_string("production");
    const struct field_value metrics[] = { { F_VM_metrics_memory_actual, value_int(4ll << 30) }, { F_VM_metrics_VCPUs_number, value_int(4) } };
    const struct field_value fields[] = {
        { F_VM_name_label, value_string(arena_printf(a, "web front end %05u, north site", number)) },
        { F_VM_name_description, value_string("web front end & cache of the \"north\" site\nask <ops> before you stop it") },
        { F_VM_user_version, value_int(1) },
        { F_VM_memory_overhead, value_int(22020096) },
        { F_VM_memory_static_max, value_int(4ll << 30) },
        { F_VM_memory_dynamic_max, value_int(4ll << 30) },
        { F_VM_memory_dynamic_min, value_int(4ll << 30) },
        { F_VM_memory_static_min, value_int(1ll << 30) },
        { F_VM_VCPUs_params, MAP(a, vcpus_params) },
        { F_VM_VCPUs_max, value_int(4) },
        { F_VM_VCPUs_at_startup, value_int(4) },
        { F_VM_PV_bootloader, value_string("pygrub") },
        { F_VM_PV_args, value_string("console=hvc0 root=/dev/xvda1 ro quiet") },
        { F_VM_HVM_boot_policy, value_string("BIOS order") },
        { F_VM_HVM_boot_params, MAP(a, boot_params) },
        { F_VM_platform, MAP(a, platform) },
        { F_VM_other_config, MAP(a, other_config) },
        { F_VM_domarch, value_string("x86_64") },
        { F_VM_last_boot_CPU_flags, MAP(a, cpu_flags) },
        { F_VM_recommendations, value_string(recommendations) },
        { F_VM_xenstore_data, MAP(a, xenstore_data) },
        { F_VM_ha_restart_priority, value_string("restart") },
        { F_VM_tags, value_set(&tag, 1) },
        { F_VM_bios_strings, MAP(a, bios_strings) },
        { F_VM_generation_id, value_string("4862573928745063421:1837465920175639284") },
        { F_VM_reference_label, value_string("debian-12-bookworm") },
        { F_VM_domain_type, value_string("hvm") },
        { F_VM_NVRAM, MAP(a, nvram) },
        { F_VM_metrics, value_string(make(f, CLASS_VM_metrics, metrics, ARRAY_LEN(metrics))) },
    };

    make_devices(f, make(f, CLASS_VM, fields, ARRAY_LEN(fields)), number);
}

static void fill(struct db *db, const char *network, unsigned count)
{
    for (unsigned i = 0; i < count;) {
        AUTO_ARENA arena = arena_new();
        AUTO_TXN txn = txn_begin(db, arena);
        struct fill f = { .txn = txn, .arena = arena, .network = network };
        for (unsigned end = i + BATCH; i < end && i < count; i++)
            make_vm(&f, i);
        need(txn_commit(txn, NULL));
    }
}

int main(int argc, char **argv)
{
    AUTO_ARENA arena = arena_new();
    uint64_t count;
    struct db *db;

    if (argc != 3 || !text_to_uint(argv[2], &count) || count > 100000) {
        fprintf(stderr, "usage: bench_fill file count\n");
        return 2;
    }
    const struct db_options options = { .path = argv[1], .clock = &clock_real };
    need(db_open(arena, &options, &db));
    struct row_list networks = db_all(db, arena, &model_classes[CLASS_network]);
    if (networks.n == 0) {
        fprintf(stderr, "bench_fill: %s holds no pool yet\n", argv[1]);
        return 1;
    }
    fill(db, networks.rows[0]->ref, (unsigned)count);
    db_close(db);
    return 0;
}
