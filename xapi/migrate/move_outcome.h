/* What became of the switch, as the two hosts' journals say: the coordinator never decides. */
#ifndef XAPI_MIGRATE_MOVE_OUTCOME_H
#define XAPI_MIGRATE_MOVE_OUTCOME_H

#include "xapi/migrate/move.h"

enum move_outcome { MOVE_UNKNOWN, MOVE_PENDING /* still going on */, MOVE_COMMITTED, MOVE_ABORTED };

/* Was that error the source host's own word (and so the move rolled back there), or was the host not heard? */
bool move_answered(const struct error *);
/* Asks the source host for this attempt; when it is not live, the destination host, whose answer then is final. patient: asks
 * again for half a minute while neither answers or it goes on. Blocks. */
enum move_outcome move_outcome(struct api_call *, const struct move *, bool patient);

#endif
