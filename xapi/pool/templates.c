#include "xapi/pool/templates.h"

#include "rpc/base/uuid.h"

#define FIELD(class_field, v) { F_##class_field, v }
#define MIB ((int64_t)1 << 20)
#define GIB ((int64_t)1 << 30)

struct template {
    const char *name, *description, *uuid; /* uuid: the same in every pool */
    int64_t memory, memory_min, disk;      /* disk 0: none */
    int64_t vcpus;
    const char *install_methods, *distro;
    bool viridian;
};

static const struct template templates[] = {
    { "Other install media", "Template which allows VM installation from install media", "7a5f1f9c-63e1-4a9d-8d0b-1f3f0b6a2c01", 256 * MIB, 256 * MIB, 0, 1,
      "cdrom", NULL, true },
    { "Debian Bookworm 12", "Template that allows VM installation from the network or from install media", "7a5f1f9c-63e1-4a9d-8d0b-1f3f0b6a2c02", 1 * GIB,
      512 * MIB, 10 * GIB, 1, "cdrom,http,ftp", "debianlike", false },
    { "Ubuntu Noble Numbat 24.04", "Template that allows VM installation from install media", "7a5f1f9c-63e1-4a9d-8d0b-1f3f0b6a2c03", 2 * GIB, 1 * GIB,
      10 * GIB, 1, "cdrom,http,ftp", "debianlike", false },
    { "Simulated guest", "A small guest of the simulator that writes its disk and checks its memory", "7a5f1f9c-63e1-4a9d-8d0b-1f3f0b6a2c04", 32 * MIB,
      16 * MIB, 16 * MIB, 1, "", NULL, false },
};

static struct value map_of(struct arena *arena, const char *const pairs[][2], unsigned n)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < n; i++)
        value_dict_add(arena, &d, pairs[i][0], value_string(pairs[i][1]));
    return value_dict_value(&d);
}

static struct value platform(struct arena *arena, const struct template *t)
{
    const char *const pairs[][2] = {
        { "acpi", "1" }, { "apic", "true" }, { "pae", "true" }, { "nx", "true" }, { "hpet", "true" }, { "vga", "std" }, { "videoram", "8" },
        { "timeoffset", "0" }, { "device_id", "0001" }, { "device-model", "qemu-upstream-compat" }, { "cores-per-socket", "1" },
        { "viridian", t->viridian ? "true" : "false" },
    };

    return map_of(arena, pairs, ARRAY_LEN(pairs));
}

static struct value boot_params(struct arena *arena)
{
    static const char *const pairs[][2] = { { "order", "cdn" }, { "firmware", "bios" } };

    return map_of(arena, pairs, ARRAY_LEN(pairs));
}

static struct value other_config(struct arena *arena, const struct template *t)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "default_template", value_string("true"));
    value_dict_add(arena, &d, "mac_seed", value_string(uuid_make(arena)));
    value_dict_add(arena, &d, "linux_template", value_string(t->distro != NULL ? "true" : "false"));
    value_dict_add(arena, &d, "install-methods", value_string(t->install_methods));
    if (t->distro != NULL)
        value_dict_add(arena, &d, "install-distro", value_string(t->distro));
    if (t->disk > 0)
        value_dict_add(arena, &d, "disks",
                       value_string(arena_printf(arena,
                                                 "<provision><disk device=\"0\" size=\"%lld\" sr=\"\" bootable=\"true\" type=\"system\"/></provision>",
                                                 (long long)t->disk)));
    return value_dict_value(&d);
}

static const char recommendations[] =
    "<restrictions><restriction field=\"memory-static-max\" max=\"1649267441664\"/>"
    "<restriction field=\"vcpus-max\" max=\"32\"/><restriction field=\"has-vendor-device\" value=\"false\"/>"
    "<restriction max=\"255\" property=\"number-of-vbds\"/><restriction max=\"7\" property=\"number-of-vifs\"/></restrictions>";

static struct error *template_create(struct txn *txn, struct arena *arena, const struct template *t)
{
    const char *ref;
    const struct field_value fields[] = {
        FIELD(VM_name_label, value_string(t->name)),
        FIELD(VM_name_description, value_string(t->description)),
        FIELD(VM_is_a_template, value_bool(true)),
        FIELD(VM_is_default_template, value_bool(true)),
        FIELD(VM_power_state, value_string("Halted")),
        FIELD(VM_user_version, value_int(1)),
        FIELD(VM_memory_target, value_int(t->memory)),
        FIELD(VM_memory_static_max, value_int(t->memory)),
        FIELD(VM_memory_dynamic_max, value_int(t->memory)),
        FIELD(VM_memory_dynamic_min, value_int(t->memory)),
        FIELD(VM_memory_static_min, value_int(t->memory_min)),
        FIELD(VM_VCPUs_max, value_int(t->vcpus)),
        FIELD(VM_VCPUs_at_startup, value_int(t->vcpus)),
        FIELD(VM_actions_after_shutdown, value_string("destroy")),
        FIELD(VM_actions_after_reboot, value_string("restart")),
        FIELD(VM_actions_after_crash, value_string("restart")),
        FIELD(VM_HVM_boot_policy, value_string("BIOS order")),
        FIELD(VM_HVM_boot_params, boot_params(arena)),
        FIELD(VM_platform, platform(arena, t)),
        FIELD(VM_other_config, other_config(arena, t)),
        FIELD(VM_domid, value_int(-1)),
        FIELD(VM_recommendations, value_string(recommendations)),
        FIELD(VM_hardware_platform_version, value_int(0)),
        FIELD(VM_domain_type, value_string("hvm")),
    };

    return txn_create(txn, CLASS_VM, NULL, t->uuid, fields, ARRAY_LEN(fields), &ref);
}

struct error *templates_create(struct txn *txn, struct arena *arena)
{
    for (unsigned i = 0; i < ARRAY_LEN(templates); i++)
        TRY(template_create(txn, arena, &templates[i]));
    return NULL;
}
