/* What the database says of a disk's move, and what the host's tapds say: private to disk_move.c and its recovery. */
#ifndef XAPI_MIGRATE_DISK_MOVE_ROWS_H
#define XAPI_MIGRATE_DISK_MOVE_ROWS_H

#include "xapi/migrate/disk_move.h"

/* The note on the source: target, SR, host and task by reference, quarantine, and how far it is. */
struct disk_move_note { const char *target, *sr, *host, *task; int64_t quarantine_s; bool moved; };
NODISCARD bool disk_move_note_of(struct arena *, const struct row *vdi, struct disk_move_note *);

/* The note, and the provisional target becomes a VDI, in one transaction. */
NODISCARD struct error *disk_move_announce(struct api_call *, const struct disk_move *, const struct row *source);
/* The target goes, image and row, then the note. Failures are logged; the note stays then. */
void disk_move_roll_back(struct api_call *, const struct disk_move *);

/* The tapd went over: every VBD and snapshot of the source names the target. */
NODISCARD struct error *disk_move_commit(struct api_call *, const struct disk_move *);
/* After that: the source is destroyed, or put into quarantine. Failures are logged; the note stays then. */
void disk_move_old_away(struct api_call *, const struct disk_move *);

enum disk_move_outcome { DISK_MOVE_UNKNOWN, DISK_MOVE_SWITCHED, DISK_MOVE_RUNNING, DISK_MOVE_NEVER };
/* Asks the host. A switch that its daemon has not noted yet is completed. */
enum disk_move_outcome disk_move_outcome(struct api_call *, const struct disk_move *, const char *from_sr, const char *location, const char *to_sr,
                                         const char *to_location);

#endif
