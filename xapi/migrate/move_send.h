/* The memory of a running VM: "migrate.send" on its host, again when the guest rebooted meanwhile. */
#ifndef XAPI_MIGRATE_MOVE_SEND_H
#define XAPI_MIGRATE_MOVE_SEND_H

#include "xapi/migrate/move.h"

/* Fills move->attempt and move->result; the note is in stage "send" before the host is asked. At most three attempts, as the
 * guest may reboot in between. A guest that shuts down: move->guest becomes MOVE_HALTED and the error comes back where the
 * move can go on without it (migrate_send), else VM_BAD_POWER_STATE. from: where progress begins.
 * VM_MIGRATE_FAILED [vm uuid; source uuid; destination uuid; text] for goals that could not be kept. */
NODISCARD struct error *move_send(struct api_call *, struct move *, double from);

#endif
