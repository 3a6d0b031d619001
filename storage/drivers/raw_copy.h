/* Snapshots, clones and reverts of images that can have no parent: whole copies, of one moment.
 *
 * Where the file system shares blocks it takes one call inside a pause; else the tapd that serves the VDI copies
 * what is about to be overwritten first (vdi_live.copy_point), or, where none does, the kernel copies. The room is
 * asked for before anything begins. Without the turn. */
#ifndef STORAGE_DRIVERS_RAW_COPY_H
#define STORAGE_DRIVERS_RAW_COPY_H

#include "storage/drivers/image_fork.h"

/* 'made' becomes what 'source' is. Old contents of made stay until then. */
NODISCARD struct error *raw_copy(struct call *, struct sr *, const struct fork *);

#endif
