/* Positions and names of block devices: "0", "xvda", "hda" and "sda" are the same place. */
#ifndef XAPI_CORE_VBD_DEVICE_H
#define XAPI_CORE_VBD_DEVICE_H

#include "xapi/core/api_call.h"

#define VBD_DEVICES_MAX 255u        /* positions a guest may use; a control domain has one more */
#define VBD_FLOPPY_FIRST 1000u      /* fda; fdb is the next: QEMU has two */

/* The position that a userdevice or device name means; false when it means none ("autodetect", ""). */
bool vbd_device_number(const char *device, unsigned *number_r);
/* How the guest sees it: "xvda", "xvdaa", "fdb". In the arena; "" for a name that is none. */
const char *vbd_device_name(struct arena *, const char *userdevice);
/* Does a VBD of the VM hold this place? Reads inside the transaction. */
bool vbd_device_used(struct txn *, const struct row *vm, unsigned number);
/* Free positions of a VM for disks (or floppies), lowest first: decimal strings ("fda" for floppies). */
struct value vbd_devices_free(struct arena *, struct txn *, const struct row *vm, bool floppy);

#endif
