/* The engine of the drivers that keep images as files in a directory: "file", "ext", "nfs", "gfs2", "dummy".
 *
 * A driver object brings its directory (mounts it, makes it) and calls file_sr_open; all verbs on VDIs are the
 * engine's. State: the directory is the truth, nothing but marks of what runs is kept in memory.
 *
 * Snapshots and clones of VHD and QCOW2 images make trees: the data become a hidden base image, both VDIs are
 * children of it (image_fork.h). Raw images are copied, or share blocks where the file system can. */
#ifndef STORAGE_DRIVERS_FILE_SR_H
#define STORAGE_DRIVERS_FILE_SR_H

#include "storage/drivers/image_dir.h"
#include "storage/drivers/image_turn.h"
#include "storage/sr_driver.h"

#define FILE_CHAIN_MAX 30u /* images in one chain */

struct file_sr { /* sr->state */
    char *dir;                       /* where the images are; heap; NULL: closed */
    const struct image_ops *format;  /* of images whose format nobody chose */
    bool cached;                     /* through the page cache */
    bool reflink;                    /* files can share blocks (FICLONE) */
    int64_t limit;                   /* most bytes the images may take; 0: what the file system has */
    struct image_turn turn;
};

/* device-config every one of them knows, for their tables. */
#define FILE_SR_KEYS                                                                                              \
    { "image-format", false, false, "format of new images: vhd (default), raw or qcow2" },                        \
    { "o_direct", false, false, "false: disks go through the page cache of this host (default true)" }

#define FILE_SR_CAPS                                                                                                             \
    (SR_CAP_PROBE | SR_CAP_UPDATE | SR_CAP_VDI_CREATE | SR_CAP_VDI_DELETE | SR_CAP_VDI_RESIZE | SR_CAP_VDI_RESIZE_ONLINE |       \
     SR_CAP_VDI_CLONE | SR_CAP_VDI_SNAPSHOT | SR_CAP_VDI_REVERT | SR_CAP_VDI_CONFIG_CBT | SR_CAP_VDI_INTRODUCE |                 \
     SR_CAP_VDI_UPDATE | SR_CAP_VDI_ATTACH | SR_CAP_THIN | SR_CAP_VDI_RESET_ON_BOOT)

/* The directory is there: looks after what a crash left, and is ready for verbs. On error it is closed again. */
NODISCARD struct error *file_sr_open(struct call *, struct sr *, const char *dir);
void file_sr_close(struct sr *); /* closed is fine */
const char *file_sr_dir(struct call *, const struct sr *); /* of an open one; in the arena */
/* For sr_destroy: removes the directory's hidden leftovers. SR_NOT_EMPTY where a VDI is in it. */
NODISCARD struct error *file_sr_empty(struct call *, const char *dir);

/* The turn on the tree, with everything mended that an earlier holder left undone. */
NODISCARD struct error *file_tree_begin(struct call *, struct sr *);
void file_tree_end(struct sr *);

struct vdi_where file_where(struct call *, struct sr *, const struct image *);
/* For an image no tapd of this host serves: refuses what another host writes to. */
NODISCARD struct error *file_not_elsewhere(struct call *, struct sr *, const struct image *);
/* SR_FULL unless 'need' bytes are free. */
NODISCARD struct error *file_room(struct call *, struct sr *, int64_t need);
/* The image of a location as a VDI. VDI_MISSING. */
extern vdi_stat_fn file_vdi_stat;

/* Removes a VDI's image and the bases nobody else needs; gone is fine. With the turn. */
NODISCARD struct error *file_images_destroy(struct call *, struct sr *, const char *location);

/* The verbs, for the driver objects. */
extern sr_stat_fn file_sr_stat;
extern sr_scan_fn file_sr_scan;
extern vdi_create_fn file_vdi_create;
extern vdi_fn file_vdi_destroy, file_vdi_activate, file_vdi_deactivate;
extern vdi_resize_fn file_vdi_resize;
extern vdi_attach_fn file_vdi_attach;
extern vdi_clone_fn file_vdi_snapshot, file_vdi_clone, file_vdi_revert;          /* file_copies.c */
extern sr_clean_fn file_sr_clean;                                                /* image_coalesce.c */
extern vdi_fn file_vdi_enable_cbt, file_vdi_disable_cbt, file_vdi_data_destroy;  /* file_cbt_verbs.c */
extern vdi_changed_fn file_vdi_changed_blocks;

#define FILE_SR_VERBS                                                                                                            \
    .state_size = sizeof(struct file_sr), .sr_stat = file_sr_stat, .sr_scan = file_sr_scan, .vdi_create = file_vdi_create,       \
    .vdi_destroy = file_vdi_destroy, .vdi_resize = file_vdi_resize, .vdi_clone = file_vdi_clone,                                 \
    .vdi_snapshot = file_vdi_snapshot, .vdi_revert = file_vdi_revert, .vdi_enable_cbt = file_vdi_enable_cbt,                     \
    .vdi_disable_cbt = file_vdi_disable_cbt, .vdi_data_destroy = file_vdi_data_destroy,                                          \
    .vdi_changed_blocks = file_vdi_changed_blocks, .sr_clean = file_sr_clean, .vdi_stat = file_vdi_stat,                         \
    .vdi_attach = file_vdi_attach, .vdi_activate = file_vdi_activate, .vdi_deactivate = file_vdi_deactivate

#endif
