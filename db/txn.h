/* Changing the database: a change set that becomes visible whole, after it is durable, or not at all.
 *
 * txn_begin() takes the transaction lock: transactions under construction are serial, so what one
 * reads stays true until it ends (read-modify-write is safe). Keep them short: no I/O, no RPC, no
 * waiting between begin and commit. txn_commit() releases the lock, queues the change set for group
 * commit, and returns when it is durable and visible.
 *
 * A transaction sees its own changes and those of transactions queued before it. If the disk fails,
 * the batch and everything queued behind it fail with INTERNAL_ERROR and nothing becomes visible.
 *
 *   struct txn *txn = txn_begin(db, arena);
 *   UNDO: txn_abort() is a no-op after commit, so CLEANUP(txn_cleanup) is always right. */
#ifndef DB_TXN_H
#define DB_TXN_H

#include "db/db.h"

struct txn;

struct txn *txn_begin(struct db *, struct arena *); /* blocks for the lock only */
void txn_abort(struct txn *);                        /* NULL and a finished txn are fine */
static inline void txn_cleanup(struct txn **t) { txn_abort(*t); }
#define AUTO_TXN CLEANUP(txn_cleanup) struct txn *

/* Waits until durable and visible. *generation_r may be NULL. The txn is finished either way. */
NODISCARD struct error *txn_commit(struct txn *, uint64_t *generation_r);

/* Reading inside: rows live until the txn ends. */
const struct row *txn_get(struct txn *, const struct class_info *, const char *ref);
NODISCARD struct error *txn_need(struct txn *, unsigned class_id, const char *ref, const struct row **row_r);
struct row_list txn_all(struct txn *, const struct class_info *);
const struct row *txn_by_uuid(struct txn *, const struct class_info *, const char *uuid);

/* Makes an object. ref and uuid NULL: fresh ones. Fields not given take their defaults. Values are
 * copied. The new ref is returned in the arena. UUID clash: UUID in use is INTERNAL_ERROR. */
struct field_value { unsigned field; struct value value; };
NODISCARD struct error *txn_create(struct txn *, unsigned class_id, const char *ref, const char *uuid,
                                   const struct field_value *, unsigned n, const char **ref_r);
/* Writes one field. An equal value changes nothing (no new version, no event). HANDLE_INVALID when absent. */
NODISCARD struct error *txn_set(struct txn *, unsigned class_id, const char *ref, unsigned field, struct value);
NODISCARD struct error *txn_set_string(struct txn *, unsigned class_id, const char *ref, unsigned field, const char *);
NODISCARD struct error *txn_set_int(struct txn *, unsigned class_id, const char *ref, unsigned field, int64_t);
NODISCARD struct error *txn_set_bool(struct txn *, unsigned class_id, const char *ref, unsigned field, bool);
NODISCARD struct error *txn_set_float(struct txn *, unsigned class_id, const char *ref, unsigned field, double);
/* Maps and sets. add: MAP_DUPLICATE_KEY [class; field; uuid; key]. remove of a missing key is fine. */
NODISCARD struct error *txn_map_add(struct txn *, unsigned class_id, const char *ref, unsigned field, const char *key, struct value);
NODISCARD struct error *txn_map_put(struct txn *, unsigned class_id, const char *ref, unsigned field, const char *key, struct value);
NODISCARD struct error *txn_map_remove(struct txn *, unsigned class_id, const char *ref, unsigned field, const char *key);
NODISCARD struct error *txn_set_add(struct txn *, unsigned class_id, const char *ref, unsigned field, const char *item);
NODISCARD struct error *txn_set_remove(struct txn *, unsigned class_id, const char *ref, unsigned field, const char *item);
NODISCARD struct error *txn_delete(struct txn *, unsigned class_id, const char *ref);
/* A new version of the row without a change (event.inject). */
NODISCARD struct error *txn_touch(struct txn *, unsigned class_id, const char *ref);

/* One-shot forms: begin, do, commit. */
NODISCARD struct error *db_set(struct db *, struct arena *, unsigned class_id, const char *ref, unsigned field, struct value);
NODISCARD struct error *db_map_put(struct db *, struct arena *, unsigned class_id, const char *ref, unsigned field, const char *key, const char *value);
NODISCARD struct error *db_delete(struct db *, struct arena *, unsigned class_id, const char *ref);

#endif
