/* Which disks of a VM move, where, and how: specs/migration-semantics.md §1.5 steps 3 to 9, design §10. For send_checks.c,
 * which calls these in xapi's order; another pool is asked for its records once. */
#ifndef XAPI_MIGRATE_DISK_PLAN_H
#define XAPI_MIGRATE_DISK_PLAN_H

#include "xapi/migrate/move.h"

/* Fills move->disks (move->vm, guest, destination and options are set) from vdi_map (VDI -> SR there) and vdi_format_map: disks
 * of the VM, of its snapshots (not with copy), and suspend images; by virtual size, then snapshot time.
 *   Unmapped: the SR of the same uuid there, then of the same name and type, then the pool's default SR, each only where it is
 *   plugged on the destination host. Snapshots' disks: the SR of their snapshot_of. Suspend images: where they are if that is
 *   seen there, then suspend_image_SR of pool, host.
 *   Same SR (by ref in this pool; in another by uuid, with relax-xsm-sr-check): MOVE_DISK_STAYS, target* filled; but what a
 *   copy would write moves. Own disks that are written: MIRROR, whatever the power state; others: COPY.
 *   A CD whose SR does not follow: with options.eject_cds it is listed in *eject_r (refs of VBDs), else it blocks. A
 *   snapshot's is left out.
 * VDI_NOT_IN_MAP [vdi] for the VM's own; what else finds no place has target_sr NULL. HANDLE_INVALID [SR; ref],
 * VM_REQUIRES_SR [vm; sr] where the destination host cannot reach the SR asked for. */
NODISCARD struct error *disk_plan_make(struct api_call *, struct move *, const struct value *vdi_map, const struct value *format_map,
                                       const char *const **eject_r, unsigned *n_eject_r);
/* Of what moves: features of SRs (VDI_SNAPSHOT, and VDI_MIRROR at the source, VDI_MIRROR_IN at the destination):
 * SR_DOES_NOT_SUPPORT_MIGRATION [sr; missing, joined by ';']. */
NODISCARD struct error *disk_plan_check_features(struct api_call *, const struct move *);
/* VDI_CBT_ENABLED [vdi], VDI_IS_ENCRYPTED [vdi]. */
NODISCARD struct error *disk_plan_check_contents(struct api_call *, const struct move *);
/* VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION [vdi] of the VM's own; SUSPEND_IMAGE_NOT_ACCESSIBLE [vdi] from move->from. */
NODISCARD struct error *disk_plan_check_source(struct api_call *, const struct move *);
/* VDI_NOT_IN_MAP [vdi] for what has no place. */
NODISCARD struct error *disk_plan_check_places(struct api_call *, const struct move *);
/* VDI_INCOMPATIBLE_TYPE [text] for formats that an SR does not take. */
NODISCARD struct error *disk_plan_check_formats(struct api_call *, const struct move *);
/* Is there room for what moves? SR_FULL [needed; available] by the rules of xapi/pool/sr_room.h. */
NODISCARD struct error *disk_plan_check_room(struct api_call *, const struct move *);

/* VIFs of the VM and its snapshots (vif_plan.c): to another pool an unmapped one takes the network of a mapped one with the same
 * MAC, else VIF_NOT_IN_MAP [vif]; HANDLE_INVALID [network; ref]. Within a pool a map that is not empty is OPERATION_NOT_ALLOWED. */
NODISCARD struct error *vif_plan_make(struct api_call *, struct move *, const struct value *vif_map);

#endif
