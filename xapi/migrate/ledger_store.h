/* The ledger's file, in SQL; only ledger.c uses it, under its lock. Notes and facts are JSON text here. */
#ifndef XAPI_MIGRATE_LEDGER_STORE_H
#define XAPI_MIGRATE_LEDGER_STORE_H

#include "xapi/migrate/ledger.h"

struct ledger_store;
struct ledger_record { struct ledger_row row; const char *note, *facts; }; /* row.note and row.facts are not used */

/* path NULL: in memory. A damaged file is moved aside (ledger.h). */
NODISCARD struct error *ledger_store_open(struct arena *, const char *path, struct ledger_store **);
void ledger_store_close(struct ledger_store *); /* NULL is fine */

NODISCARD struct error *ledger_store_put(struct arena *, struct ledger_store *, const struct ledger_record *);
NODISCARD struct error *ledger_store_get(struct arena *, struct ledger_store *, const char *id, enum ledger_side, struct ledger_record *, bool *found_r);
NODISCARD struct error *ledger_store_by_key(struct arena *, struct ledger_store *, const char *key, struct ledger_record *, bool *found_r);
NODISCARD struct error *ledger_store_rename(struct arena *, struct ledger_store *, const char *id, enum ledger_side, const char *new_id);
NODISCARD struct error *ledger_store_facts(struct arena *, struct ledger_store *, const char *id, enum ledger_side, const char *facts);
/* note NULL: as it was. */
NODISCARD struct error *ledger_store_stage(struct arena *, struct ledger_store *, const char *id, enum ledger_side, const char *stage, const char *note);
NODISCARD struct error *ledger_store_end(struct arena *, struct ledger_store *, const char *id, enum ledger_side, const char *outcome,
                                         const char *cause, const char *recovery, int64_t ended_ms);
NODISCARD struct error *ledger_store_list(struct arena *, struct ledger_store *, const struct ledger_query *, struct ledger_record **records_r,
                                          unsigned *n_r);
NODISCARD struct error *ledger_store_prune(struct arena *, struct ledger_store *, int64_t before_ms, unsigned *gone_r);
/* What SQLite would do for that query, a line a step: for tests. */
NODISCARD struct error *ledger_store_plan(struct arena *, struct ledger_store *, const struct ledger_query *, const char **plan_r);

#endif
