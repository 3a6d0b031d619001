/* Everything that is asked before VM.migrate_send moves anything, in xapi's order (specs §1.5, §1.6); VM.assert_can_migrate
 * is this and nothing else. */
#ifndef XAPI_MIGRATE_SEND_CHECKS_H
#define XAPI_MIGRATE_SEND_CHECKS_H

#include "xapi/migrate/move.h"

struct send_request {
    const char *vm;
    const struct value *dest, *vdi_map, *vif_map, *vgpu_map, *format_map, *options;
};
/* Makes the move's description: destination, guest, disks, vifs, options; nothing is changed anywhere. 'sending': also what
 * only the sender checks (specs §1.5 1–10), else only assert_can_migrate's. A remote destination's dry run of the metadata
 * import is part of it. *eject_r: VBDs whose CD is to be ejected before. */
NODISCARD struct error *send_checks(struct api_call *, const struct send_request *, bool sending, struct move *, const char *const **eject_r,
                                    unsigned *n_eject_r);

#endif
