/* Where the file systems of SRs are mounted: "<sr_drivers_base>/<sr uuid>".
 *
 * A mount outlives this process, as the tapds do that have files open in it: mounting what is mounted from the same
 * place is fine. All block. Errors: SR_BACKEND_FAILURE. */
#ifndef STORAGE_DRIVERS_MOUNT_POINT_H
#define STORAGE_DRIVERS_MOUNT_POINT_H

#include <stdbool.h>

#include "storage/sr_driver.h"

struct mount_source {
    const char *what;       /* a device, a directory (bind), "server:/path" (nfs) */
    const char *type;       /* "ext4", "xfs"; "bind"; "nfs": through mount.nfs */
    const char *options;    /* "" or as mount takes them after -o; for nfs */
};

const char *mount_point(struct call *, const char *name); /* its path */
bool mount_point_is_mounted(struct call *, const char *path);
NODISCARD struct error *mount_point_mount(struct call *, const char *path, const struct mount_source *);
/* Not mounted is fine. Busy is an error: it is mounted still. */
NODISCARD struct error *mount_point_unmount(struct call *, const char *path);
/* Mounts it in a place of its own, calls fn with that path, unmounts. */
NODISCARD struct error *mount_point_visit(struct call *, const struct mount_source *, struct error *(*fn)(struct call *, const char *path, void *), void *ctx);

#endif
