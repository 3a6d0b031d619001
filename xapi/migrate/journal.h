/* The write-ahead record of every migration on each of its hosts: what happened last, durably.
 *
 * One file per migration and side under <dir>/journal/, append-only, each record a line of a checksum
 * (XXH64 of the rest, 20 decimal digits) and JSON, fsync'd before journal_write returns. A torn last
 * line is ignored when read.
 * One writer at a time for an id and side (the migration's own thread or lock sees to it); no lock here.
 * States: source PREPARED, STREAMING, SUSPENDED, GO-SENT, DONE, RESUMED; destination PREPARED, READY, COMMITTED,
 * RUNNING, ABORTED. Rules: GO-SENT is written before GO is sent; COMMITTED before it is answered; ABORTED
 * refuses that id for ever. */
#ifndef XAPI_MIGRATE_JOURNAL_H
#define XAPI_MIGRATE_JOURNAL_H

#include "rpc/base/error.h"
#include "rpc/base/value.h"

enum journal_side { JOURNAL_SOURCE, JOURNAL_DESTINATION };
enum journal_state {
    JOURNAL_PREPARED, JOURNAL_STREAMING, JOURNAL_SUSPENDED, JOURNAL_GO_SENT, JOURNAL_DONE, JOURNAL_RESUMED,
    JOURNAL_READY, JOURNAL_COMMITTED, JOURNAL_RUNNING, JOURNAL_ABORTED
};
const char *journal_state_name(enum journal_state);

struct journal; /* a directory */
NODISCARD struct error *journal_open(struct arena *, const char *dir, struct journal **);
void journal_close(struct journal *);
/* Appends and makes durable. 'facts': a map of strings kept with the record (vm uuid, peer, temp uuid …). */
NODISCARD struct error *journal_write(struct arena *, struct journal *, const char *migration_id, enum journal_side, enum journal_state,
                                      const struct value *facts);
/* The last state; false when this id is unknown here. */
bool journal_state(struct journal *, const char *migration_id, enum journal_side, enum journal_state *state_r);
struct journal_entry { const char *migration_id; enum journal_side side; enum journal_state state; struct value facts; };
/* All migrations on record, unfinished first; in the arena. */
NODISCARD struct error *journal_list(struct arena *, struct journal *, struct journal_entry **entries_r, unsigned *n_r);
/* Forgets what finished and was last written before that wall second. */
void journal_expire(struct journal *, int64_t before);
/* Forgets a finished one (DONE, RESUMED, RUNNING); ABORTED stays as a tombstone. */
void journal_forget(struct journal *, const char *migration_id, enum journal_side);

#endif
