/* The ledger: what every migration of this pool did, durably; also what recovery and the queue need to go on.
 *
 * One SQLite file "migrations.db" in the coordinator's state directory (WAL, synchronous FULL). A migration between two
 * pools stands in both ledgers, as LEDGER_OUT in the source's and LEDGER_IN in the destination's; a write is durable when
 * it returns. All may block on disk; lock class LEDGER inside. Rows are never deleted but by age: those that ended more
 * than ledger-days (xapi.conf, 400) ago. 100,000 rows are paged within 200 ms (indices on began_ms, vm_uuid, outcome). */
#ifndef XAPI_MIGRATE_LEDGER_H
#define XAPI_MIGRATE_LEDGER_H

#include "rpc/base/error.h"
#include "rpc/base/value.h"

enum ledger_side { LEDGER_OUT, LEDGER_IN };

struct ledger_row {
    const char *id;               /* the migration's uuid; with side the key */
    enum ledger_side side;
    const char *stage;            /* "queued", "open", "send", "commit", "done" */
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

struct ledger;
NODISCARD struct error *ledger_open(struct arena *, const char *path, struct ledger **); /* path NULL: in memory (tests) */
void ledger_close(struct ledger *); /* NULL is fine */

/* Inserts, or replaces the row of that id and side. NULL strings count as "". */
NODISCARD struct error *ledger_put(struct arena *, struct ledger *, const struct ledger_row *);
/* False when there is none; strings in the arena. */
NODISCARD struct error *ledger_get(struct arena *, struct ledger *, const char *id, enum ledger_side, struct ledger_row *, bool *found_r);
/* Merges into facts (a map of strings); an unknown id is fine. */
NODISCARD struct error *ledger_add_facts(struct arena *, struct ledger *, const char *id, enum ledger_side, const struct value *facts);
/* Sets stage (and note, when not NULL) of a row. */
NODISCARD struct error *ledger_stage(struct arena *, struct ledger *, const char *id, enum ledger_side, const char *stage, const struct value *note);
/* stage "done" with its outcome and the end's time. */
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

#endif
