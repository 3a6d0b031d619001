/* VM.snapshot_metadata: the record of a VM as it was when a snapshot of it was taken, as text (JSON). */
#ifndef XAPI_POOL_VM_METADATA_H
#define XAPI_POOL_VM_METADATA_H

#include "xapi/core/api_call.h"

/* In the arena. */
const char *vm_metadata_write(struct arena *, const struct row *vm);
/* The fields that a revert restores, as values for F_VM_* of the row; those that follow from what the VM is and does
 * (uuid, power state, devices, snapshots, parent …) are left out. Empty where the text is no such record. */
struct vm_metadata { struct field_value *fields; unsigned n; const char *uuid; };
struct vm_metadata vm_metadata_read(struct arena *, const char *text);

#endif
