/* A plain description of a VM for the host that is to run it: no database, no references.
 *
 * Made by xapi/ from the database, sent to other hosts as a value (vm_spec_to_value). */
#ifndef XENOPS_VM_SPEC_H
#define XENOPS_VM_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/error.h"
#include "rpc/base/value.h"

enum vm_kind { VM_KIND_HVM, VM_KIND_PV, VM_KIND_PVH };

struct disk_spec {
    const char *device;   /* userdevice, "0" */
    const char *vdi_uuid; /* "" for an empty CD drive */
    const char *path;     /* what to open on this host; "" for an empty drive */
    int64_t size;         /* bytes */
    bool read_only, cdrom;
};
struct nic_spec { const char *device, *mac, *bridge; int64_t mtu; };

struct vm_spec {
    const char *uuid, *name;
    enum vm_kind kind;
    int64_t memory_static_max, memory_dynamic_max, memory_dynamic_min; /* bytes */
    unsigned vcpus_max, vcpus;
    const char *kernel, *ramdisk, *cmdline;
    struct value platform;      /* map of strings: VM.platform, with the sim-* keys */
    struct value xenstore_data; /* map of strings */
    const struct disk_spec *disks;
    unsigned n_disks;
    const struct nic_spec *nics;
    unsigned n_nics;
    const char *on_poweroff, *on_reboot, *on_crash; /* "destroy", "restart" … */
};

struct value vm_spec_to_value(struct arena *, const struct vm_spec *);
NODISCARD struct error *vm_spec_from_value(struct arena *, const struct value *, struct vm_spec *);

#endif
