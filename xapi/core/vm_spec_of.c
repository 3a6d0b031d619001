/* From a VM's rows to the plain description a host works from. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/vdi_path.h"

static enum vm_kind kind_of(const struct row *vm)
{
    const char *type = vm_domain_type(vm);
    if (strcmp(type, "pv") == 0)
        return VM_KIND_PV;
    return strcmp(type, "hvm") == 0 ? VM_KIND_HVM : VM_KIND_PVH;
}

enum purpose { FOR_START, FOR_BOOT, FOR_MOVE };

static struct error *disk_spec_for(struct api_call *c, const struct row *vbd, const struct row *vdi, const char *host_ref, enum purpose purpose,
                                   struct disk_spec *disk)
{
    *disk = (struct disk_spec){ .device = row_string(vbd, F_VBD_userdevice), .vdi_uuid = "", .path = "",
                                .read_only = strcmp(row_string(vbd, F_VBD_mode), "RO") == 0,
                                .cdrom = strcmp(row_string(vbd, F_VBD_type), "CD") == 0 };
    if (vdi == NULL)
        return NULL;
    disk->vdi_uuid = row_string(vdi, F_VDI_uuid);
    disk->size = row_int(vdi, F_VDI_virtual_size);
    const struct vdi_path_use use = {
        .user = vdi_user_of_vbd(c->arena, vbd),
        .read_only = disk->read_only || disk->cdrom,
        .cached = strcmp(row_map(vbd, F_VBD_other_config, "cached", ""), "true") == 0,
        .activate = purpose != FOR_MOVE || disk->read_only || disk->cdrom,
    };
    return vdi_path(c, vdi->ref, host_ref, &use, &disk->path);
}

struct error *vm_disk_spec(struct api_call *c, const struct row *vbd, const struct row *vdi, const char *host_ref, struct disk_spec *disk)
{
    return disk_spec_for(c, vbd, vdi, host_ref, FOR_START, disk);
}

struct purpose_of { enum purpose purpose; const struct value *instead; };

static struct error *disks_of(struct api_call *c, const struct row *vm, const char *host_ref, const struct purpose_of *of, struct vm_spec *spec)
{
    bool all = strcmp(row_string(vm, F_VM_power_state), "Halted") == 0;
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    struct disk_spec *disks = arena_calloc(c->arena, vbds->len + 1, sizeof *disks);
    unsigned n = 0;
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd == NULL || (!all && !row_bool(vbd, F_VBD_currently_attached)))
            continue;
        const char *vdi = row_bool(vbd, F_VBD_empty) ? REF_NULL : row_string(vbd, F_VBD_VDI);
        vdi = of->instead != NULL ? value_get_string(of->instead, vdi, vdi) : vdi;
        TRY(disk_spec_for(c, vbd, db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi), host_ref, of->purpose, &disks[n]));
        if (disks[n].cdrom || disks[n].path[0] != '\0')
            n++;
    }
    spec->disks = disks;
    spec->n_disks = n;
    return NULL;
}

static void nics_of(struct api_call *c, const struct row *vm, bool all, struct vm_spec *spec)
{
    const struct value *vifs = row_value(vm, F_VM_VIFs);
    struct nic_spec *nics = arena_calloc(c->arena, vifs->len + 1, sizeof *nics);
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = db_get(c->db, c->arena, &model_classes[CLASS_VIF], vifs->items[i].s);
        if (vif == NULL || (!all && !row_bool(vif, F_VIF_currently_attached)))
            continue;
        const struct row *network = db_get(c->db, c->arena, &model_classes[CLASS_network], row_string(vif, F_VIF_network));
        nics[spec->n_nics++] = (struct nic_spec){ .device = row_string(vif, F_VIF_device), .mac = row_string(vif, F_VIF_MAC),
                                                  .bridge = network != NULL ? row_string(network, F_network_bridge) : "",
                                                  .mtu = row_int(vif, F_VIF_MTU) };
    }
    spec->nics = nics;
}

static struct error *make_spec(struct api_call *c, const char *vm_ref, const char *host_ref, struct purpose_of of, struct vm_spec *spec)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    bool halted = strcmp(row_string(vm, F_VM_power_state), "Halted") == 0;
    struct vm_memory memory = vm_memory_of(vm);
    vm_memory_coerce(&memory);
    *spec = (struct vm_spec){
        .uuid = row_string(vm, F_VM_uuid),
        .name = row_string(vm, F_VM_name_label),
        .kind = kind_of(vm),
        .memory_static_max = memory.static_max,
        .memory_dynamic_max = memory.dynamic_max,
        .memory_dynamic_min = memory.dynamic_min,
        .vcpus_max = (unsigned)row_int(vm, F_VM_VCPUs_max),
        .vcpus = (unsigned)row_int(vm, F_VM_VCPUs_at_startup),
        .kernel = row_string(vm, F_VM_PV_kernel),
        .ramdisk = row_string(vm, F_VM_PV_ramdisk),
        .cmdline = row_string(vm, F_VM_PV_args),
        .platform = *row_value(vm, F_VM_platform),
        .xenstore_data = *row_value(vm, F_VM_xenstore_data),
        .on_poweroff = row_string(vm, F_VM_actions_after_shutdown),
        .on_reboot = row_string(vm, F_VM_actions_after_reboot),
        .on_crash = row_string(vm, F_VM_actions_after_crash),
    };
    nics_of(c, vm, halted || of.purpose == FOR_BOOT, spec);
    return disks_of(c, vm, host_ref, &of, spec);
}

struct error *vm_spec_of(struct api_call *c, const char *vm_ref, const char *host_ref, struct vm_spec *spec)
{
    return make_spec(c, vm_ref, host_ref, (struct purpose_of){ FOR_START, NULL }, spec);
}

struct error *vm_spec_of_move(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *instead, struct vm_spec *spec)
{
    return make_spec(c, vm_ref, host_ref, (struct purpose_of){ FOR_MOVE, instead }, spec);
}

struct error *vm_spec_of_boot(struct api_call *c, const char *vm_ref, const char *host_ref, struct vm_spec *spec)
{
    return make_spec(c, vm_ref, host_ref, (struct purpose_of){ FOR_BOOT, NULL }, spec);
}
