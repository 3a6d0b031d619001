/* Everything that is asked before VM.migrate_send moves anything, in xapi's order (specs §1.5, §1.6); VM.assert_can_migrate
 * is this and nothing else. The profile's own rules (move_rules.h) follow the planning of the disks. Whether the VM's state allows the operation is the caller's business. */
#ifndef XAPI_MIGRATE_SEND_CHECKS_H
#define XAPI_MIGRATE_SEND_CHECKS_H

#include "xapi/migrate/move.h"

struct send_request {
    const char *vm;
    const struct value *dest, *vdi_map, *vif_map, *vgpu_map, *format_map, *options;
};
/* Makes the move's description: vm_uuid, guest (a paused VM counts as running, with options.paused), from (when sending),
 * destination (targets without cookie; peer open), disks, vifs, vgpus, options; id and key where they are NULL. Nothing is
 * changed anywhere, but when sending the SRs that disks go to are plugged on the destination host (specs §1.5).
 * 'sending': also what only the sender checks (specs §1.5 1–10), else only assert_can_migrate's; room for the disks in both. A
 * remote destination's dry run of the metadata import is part of it. *eject_r: VBDs whose CD is to be ejected before.
 * Blocks: another pool is asked. */
NODISCARD struct error *send_checks(struct api_call *, const struct send_request *, bool sending, struct move *, const char *const **eject_r,
                                    unsigned *n_eject_r);

#endif
