/* The ledger: what every migration of this pool did, durably; also what recovery and the queue need to go on.
 *
 * One SQLite file "migrations.db" in the coordinator's state directory (WAL, synchronous FULL). A migration between two
 * pools stands in both ledgers, as LEDGER_OUT in the source's and LEDGER_IN in the destination's; a write is durable when
 * it returns. All may block on disk; lock class LEDGER inside. Rows are never deleted but by age: those that ended more
 * than ledger-days (xapi.conf, 400) ago. 100,000 rows are paged within 200 ms (indices on began_ms, vm_uuid, outcome).
 *
 * A file of a newer version is refused. A damaged one is moved aside as migrations.db.corrupt-<time>, loudly, and a new
 * one begun: the daemon must serve. A NULL ledger (a member's) keeps nothing and knows nothing. */
#ifndef XAPI_MIGRATE_LEDGER_H
#define XAPI_MIGRATE_LEDGER_H

#include "rpc/base/error.h"
#include "rpc/base/value.h"

enum ledger_side { LEDGER_OUT, LEDGER_IN };

struct ledger_row {
    const char *id;               /* the migration's uuid; with side the key */
    enum ledger_side side;
    const char *stage;            /* "queued", "open", "send", "commit", "clean", "undo", "done" */
    const char *outcome;          /* "" until done: "success", "failed", "cancelled" */
    const char *cause;            /* of a failure: code and parameters, and why */
    const char *recovery;         /* "" or what recovery did */
    const char *kind;             /* "pool_migrate", "migrate_send", "VDI.pool_migrate" */
    const char *vm_uuid, *vm_name, *user, *from_host, *to_host; /* hosts by uuid */
    const char *from_name, *to_name;
    const char *key;              /* credentials.h */
    int64_t began_ms, ended_ms;   /* wall; 0: not yet */
    struct value note;            /* map: what whoever runs it needs after a crash */
    struct value facts;           /* map of strings: what was measured; names in the README (phase.*, bytes, rounds, …) */
};

struct xapi;
struct ledger;
/* xapi->ledger of a coordinator, and its housekeeping once an hour; a member has none. stop: when nobody writes any more. */
NODISCARD struct error *ledger_start(struct arena *, struct xapi *);
void ledger_stop(struct xapi *);

NODISCARD struct error *ledger_open(struct arena *, const char *path, struct ledger **); /* path NULL: in memory (tests) */
void ledger_close(struct ledger *); /* NULL is fine */

/* Inserts, or replaces the row of that id and side. NULL strings count as "". */
NODISCARD struct error *ledger_put(struct arena *, struct ledger *, const struct ledger_row *);
/* False when there is none; strings in the arena. */
NODISCARD struct error *ledger_get(struct arena *, struct ledger *, const char *id, enum ledger_side, struct ledger_row *, bool *found_r);
/* The row goes on under another id. */
NODISCARD struct error *ledger_rename(struct arena *, struct ledger *, const char *id, enum ledger_side, const char *new_id);
/* The row with that key (one that is under way before one that is done). */
NODISCARD struct error *ledger_by_key(struct arena *, struct ledger *, const char *key, struct ledger_row *, bool *found_r);
/* Merges into facts (a map of strings); an unknown id is fine. */
NODISCARD struct error *ledger_add_facts(struct arena *, struct ledger *, const char *id, enum ledger_side, const struct value *facts);
/* Sets stage (and note, when not NULL) of a row. */
NODISCARD struct error *ledger_stage(struct arena *, struct ledger *, const char *id, enum ledger_side, const char *stage, const struct value *note);
/* stage "done" with its outcome and the end's time. The first end of a row counts: a later one changes nothing. */
NODISCARD struct error *ledger_end(struct arena *, struct ledger *, const char *id, enum ledger_side, const char *outcome, const char *cause,
                                   const char *recovery, int64_t ended_ms);

struct ledger_query {
    bool active;                  /* only those that are not done */
    const char *vm_uuid, *outcome; /* NULL: any */
    int64_t since_ms, before_ms;  /* of began_ms; 0: any */
    unsigned limit, offset;       /* limit 0: 100 */
};
/* Newest first; in the arena. */
NODISCARD struct error *ledger_list(struct arena *, struct ledger *, const struct ledger_query *, struct ledger_row **rows_r, unsigned *n_r);

/* Deletes what ended before that time. */
NODISCARD struct error *ledger_prune(struct arena *, struct ledger *, int64_t before_ms, unsigned *gone_r);

/* Sums over all rows that are done, for metrics: read once, then kept up. */
struct ledger_totals;
NODISCARD struct error *ledger_totals(struct arena *, struct ledger *, struct ledger_totals *); /* ledger_totals.h */

#endif
