/* Files that are kept for the pool's objects, on the coordinator: measurements of VMs (RRDs: <dir>/rrd/<uuid>.gz, opaque here)
 * and the contents of blobs (<dir>/blobs/<uuid of the ref>). */
#ifndef XAPI_METADATA_VM_FILES_H
#define XAPI_METADATA_VM_FILES_H

#include "rpc/base/text.h"
#include "xapi/core/api_call.h"

#define RRD_MAX ((size_t)16 << 20)
#define BLOB_MAX ((size_t)64 << 20)

enum vm_file { VM_FILE_RRD, VM_FILE_BLOB };

/* name: the VM's uuid, the blob's ref. *found_r: is there one? Bytes in the arena. Block on the disk. */
NODISCARD struct error *vm_file_read(struct api_call *, enum vm_file, const char *name, const char **bytes_r, size_t *len_r, bool *found_r);
/* Durable. */
NODISCARD struct error *vm_file_write(struct api_call *, enum vm_file, const char *name, const void *, size_t len);
void vm_file_remove(struct api_call *, enum vm_file, const char *name);

#endif
