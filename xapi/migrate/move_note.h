/* What the ledger's note says of a move, so that recovery can finish or undo it: the parts of struct move that outlive a
 * crash of the coordinator. */
#ifndef XAPI_MIGRATE_MOVE_NOTE_H
#define XAPI_MIGRATE_MOVE_NOTE_H

#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move.h"

/* Writes the row's stage and note; durable when it returns. */
NODISCARD struct error *move_note_put(struct api_call *, const struct move *, const char *stage);
/* The move of a row, in the arena; false: it cannot be read (from a newer version). */
bool move_note_read(struct arena *, const struct ledger_row *, struct move *);

#endif
