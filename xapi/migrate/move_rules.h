/* Rules for VM.migrate_send that the documents state and xapi's code does not have (design §10, requirements XE-35, XE-36,
 * XD-05). Which hold is said by the profile: option migration-profile, of a pool other_config:migration-profile; each can be
 * switched alone by the pool's other_config:migration-rule-<name> = on, off.
 *
 *   checkpoint   VM_HAS_CHECKPOINT [vm] for a VM with a snapshot that holds memory
 *   disks        OPERATION_NOT_ALLOWED [text] for more own disks than sxm-max-vdis that move
 *   cpu-vendor   VM_INCOMPATIBLE_WITH_THIS_HOST [vm; host; text] between AMD and Intel, unless halted; force does not help
 *
 * Profiles: documented, orchestrate and virsh have all of them, xapi has none. An unknown name counts as documented. */
#ifndef XAPI_MIGRATE_MOVE_RULES_H
#define XAPI_MIGRATE_MOVE_RULES_H

#include "xapi/migrate/move.h"

/* Does this rule hold in this pool? */
bool move_rule_holds(struct api_call *, const char *name);
/* move: described, with its disks planned. host_vendor: cpu_info:vendor of the destination host; "" unknown. */
NODISCARD struct error *move_rules_check(struct api_call *, const struct move *, const char *host_vendor);

#endif
