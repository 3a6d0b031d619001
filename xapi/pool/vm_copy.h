/* New VM rows from old ones: clones, copies, snapshots, checkpoints; disks first, then all rows at once.
 *
 * A step that fails, and a cancel at any point, takes back what was made. Fault points: vm.snapshot.disk (before
 * each disk), vm.snapshot.image, vm.snapshot.rows, and the same of vm.clone and vm.copy. */
#ifndef XAPI_POOL_VM_COPY_H
#define XAPI_POOL_VM_COPY_H

#include "xapi/core/api_call.h"

enum vm_copy_kind { VM_COPY_CLONE, VM_COPY_FULL, VM_COPY_SNAPSHOT, VM_COPY_CHECKPOINT };

struct vm_copy_plan {
    const char *vm, *name;
    enum vm_copy_kind kind;
    const char *sr;                  /* FULL: where the disks go; NULL: each beside its original */
    const struct value *ignore_vdis; /* SNAPSHOT: refs of disks left out, or NULL */
    const char *power_state;         /* at the moment it is of, for snapshot_info; NULL: as the row says */
    bool share_image;                /* CHECKPOINT: the suspend image becomes the checkpoint's, too */
};
NODISCARD struct error *vm_copy(struct api_call *c, const struct vm_copy_plan *, const char **ref_r);

/* A full copy of a suspend image in its SR, provisional. */
NODISCARD struct error *vm_image_copy(struct api_call *c, const char *vdi_ref, const char **ref_r);

/* Device rows of 'to' like those of 'from', inside a transaction. vdis: what each VBD of 'from' is to hold, in the
 * order of from's VBDs; NULL: leave that one out. mac_seed NULL: interfaces keep their addresses. attached: devices that
 * count as plugged in still do. */
struct vm_devices { const struct row *from; const char *to, *mac_seed; const char *const *vdis; bool attached; };
NODISCARD struct error *vm_devices_copy(struct api_call *c, struct txn *, const struct vm_devices *);
/* VM_metrics and VM_guest_metrics of 'to' (which has none) like those of 'from'. */
NODISCARD struct error *vm_metrics_copy(struct api_call *c, struct txn *, const struct row *from, const char *to);

#endif
