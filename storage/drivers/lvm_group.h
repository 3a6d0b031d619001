/* One volume group through LVM's tools: its logical volumes, and where their bytes are.
 *
 * A group is "VG_XenStorage-<sr uuid>", as the field's. The tools see no device but the ones of this SR, keep their
 * locks in the directory of the SRs, ask no udev and no daemon. Where the kernel has no device-mapper they keep to
 * the metadata: volumes are then reached through their segments of the devices, never activated.
 *
 * All block; errors SR_BACKEND_FAILURE with what the tool said. Results in c's arena. */
#ifndef STORAGE_DRIVERS_LVM_GROUP_H
#define STORAGE_DRIVERS_LVM_GROUP_H

#include "storage/sr_driver.h"

struct lvm_segment { const char *device; int64_t offset, length; }; /* bytes */
struct lvm_volume {
    const char *name;
    int64_t size;
    const char *tags;                  /* joined by commas */
    struct lvm_segment *segments;      /* in order; NULL: of a kind we do not know */
    unsigned n_segments;
};
struct lvm_group {
    const char *name;
    const char *devices[16];           /* real paths */
    unsigned n_devices;
};
struct lvm_sizes { int64_t size, free, extent; };

/* device-config "device": paths joined by commas. */
NODISCARD struct error *lvm_group_of(struct call *, const char *sr_uuid, const struct value *device_config, struct lvm_group *);
bool lvm_has_device_mapper(void);

/* The tool's verb (vgcreate, lvcreate …) with the options all of them need; argv ends with NULL. */
NODISCARD struct error *lvm_run(struct call *, const struct lvm_group *, const char *const *argv, char **output_r);
/* The group each device belongs to: "" none. */
NODISCARD struct error *lvm_group_on(struct call *, const struct lvm_group *, const char *device, const char **name_r, int64_t *size_r);
NODISCARD struct error *lvm_sizes(struct call *, const struct lvm_group *, struct lvm_sizes *);
NODISCARD struct error *lvm_volumes(struct call *, const struct lvm_group *, struct lvm_volume **volumes_r, unsigned *n_r);

/* "segments:DEVICE@OFFSET+LENGTH;…": what tapd opens. */
const char *lvm_segments_path(struct call *, const struct lvm_volume *);
/* The volume's bytes from 'offset' on become zeros. Progress, cancel. */
NODISCARD struct error *lvm_zero(struct call *, const struct lvm_volume *, int64_t offset);

#endif
