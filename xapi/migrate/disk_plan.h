/* Which disks of a VM move, where, and how: specs/migration-semantics.md §1.5 steps 3 to 9, design §10. */
#ifndef XAPI_MIGRATE_DISK_PLAN_H
#define XAPI_MIGRATE_DISK_PLAN_H

#include "xapi/migrate/move.h"

/* Fills move->disks from vdi_map (VDI -> SR there) and vdi_format_map: disks of the VM, of its snapshots (not with copy), and
 * suspend images. Unmapped ones: the SR of the same uuid there, then of the same name and type, then the pool's default SR;
 * snapshots' disks: the SR of their snapshot_of; suspend images: suspend_image_SR of pool, host. Same SR (by uuid, with
 * relax-xsm-sr-check; by ref in this pool) and the disk is there: MOVE_DISK_STAYS. A CD whose SR does not follow: blocks with
 * VDI_NOT_IN_MAP… unless options.eject_cds (it is listed in *eject_r: refs of VBDs). Order: by virtual size, then
 * snapshot time. VDI_NOT_IN_MAP [vdi], VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION [vdi], SUSPEND_IMAGE_NOT_ACCESSIBLE [vdi],
 * VDI_CBT_ENABLED [vdi], VDI_IS_ENCRYPTED [vdi], VDI_INCOMPATIBLE_TYPE [text], in that order. */
NODISCARD struct error *disk_plan_make(struct api_call *, struct move *, const struct value *vdi_map, const struct value *format_map,
                                       const char *const **eject_r, unsigned *n_eject_r);
/* VIFs: complete the map by MAC for snapshots' VIFs; VIF_NOT_IN_MAP [vif]; within a pool a map that is not empty is
 * OPERATION_NOT_ALLOWED. */
NODISCARD struct error *vif_plan_make(struct api_call *, struct move *, const struct value *vif_map);
/* SR capabilities of what moves: SR_DOES_NOT_SUPPORT_MIGRATION [sr; missing]. */
NODISCARD struct error *disk_plan_check(struct api_call *, const struct move *);

#endif
