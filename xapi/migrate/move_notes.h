/* What is known of a move, as text: into its task's other_config and the ledger. */
#ifndef XAPI_MIGRATE_MOVE_NOTES_H
#define XAPI_MIGRATE_MOVE_NOTES_H

#include "xapi/core/api_call.h"

/* A plain value as text, in the arena; NULL of a map, a set, or nothing. */
const char *move_note_text(struct arena *, const struct value *);
/* Writes a map of strings into the other_config of the call's task as "migrate:<name>", what changed of it, in one commit. */
void move_notes_write(struct api_call *, const struct value *notes);

/* Since when a move is in its phase; of this process's moves. */
struct move_clocks;
struct move_clocks *move_clocks_new(void);
void move_clocks_free(struct move_clocks *);
struct phase_times { int64_t at_ms, last_ms; char last[32]; }; /* since the move's begin; the last phase (or "") and how long it took */
/* phase NULL: the move has ended and is forgotten. */
struct phase_times move_clocks_phase(struct move_clocks *, const char *id, const char *phase, int64_t now_ms);

#endif
