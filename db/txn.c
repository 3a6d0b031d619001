#include "db/txn.h"

#include <string.h>

#include "db/change_set.h"
#include "db/commit.h"
#include "db/inverse.h"
#include "db/types.h"
#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/uuid.h"

struct txn *txn_begin(struct db *db, struct arena *arena)
{
    struct txn *txn = arena_alloc(arena, sizeof(*txn));
    *txn = (struct txn){ .db = db, .arena = arena };
    txn->changes_end = &txn->changes;
    lock_take(&db->txn_lock);
    return txn;
}

/* --- drafts ----------------------------------------------------------------------------------------- */

bool txn_slot_exists(const struct slot *slot)
{
    return slot->change != NULL ? !slot->change->deleted : slot->newest != NULL;
}

const struct value *txn_slot_fields(const struct slot *slot)
{
    return slot->change != NULL ? slot->change->draft : slot->newest->fields;
}

static struct txn_change *change_new(struct txn *txn, struct slot *slot)
{
    struct txn_change *change = arena_alloc(txn->arena, sizeof(*change));
    unsigned n = slot->class->n_fields;

    change->slot = slot;
    change->draft = arena_calloc(txn->arena, n, sizeof(struct value));
    if (slot->newest != NULL) {
        change->before = row_ref(slot->newest);
        memcpy(change->draft, slot->newest->fields, n * sizeof(struct value));
    }
    slot->change = change;
    *txn->changes_end = change;
    txn->changes_end = &change->next;
    return change;
}

struct txn_change *txn_touch_slot(struct txn *txn, struct slot *slot)
{
    return slot->change != NULL ? slot->change : change_new(txn, slot);
}

void txn_draft_changed(struct txn *txn, struct txn_change *change)
{
    if (change->after == NULL)
        return;
    struct old_rows *old = arena_alloc(txn->arena, sizeof(*old));
    *old = (struct old_rows){ .row = change->after, .next = txn->old };
    txn->old = old;
    change->after = NULL;
}

/* The row as the transaction sees it. */
static const struct row *slot_row(struct slot *slot)
{
    struct txn_change *change = slot->change;
    if (change == NULL)
        return slot->newest;
    if (change->after == NULL)
        change->after = row_new(slot->class, slot->ref, change->before != NULL ? change->before->created : 0,
                                change->before != NULL ? change->before->generation : 0, change->draft);
    return change->after;
}

static struct slot *find_slot(struct txn *txn, const struct class_info *class, const char *ref)
{
    CHECK(!txn->finished);
    if (ref == NULL)
        return NULL;
    rwlock_read(&txn->db->store_lock);
    struct slot *slot = store_find_ref(txn->db, ref, txn_slot_exists);
    rwlock_drop(&txn->db->store_lock);
    return slot != NULL && slot->class == class ? slot : NULL;
}

static struct error *need_slot(struct txn *txn, unsigned class_id, const char *ref, struct slot **slot_r)
{
    const struct class_info *class = &model_classes[class_id];
    *slot_r = find_slot(txn, class, ref);
    return *slot_r != NULL ? NULL : err_handle_invalid(txn->arena, class->name, ref != NULL ? ref : "");
}

/* --- reading ---------------------------------------------------------------------------------------- */

const struct row *txn_get(struct txn *txn, const struct class_info *class, const char *ref)
{
    struct slot *slot = find_slot(txn, class, ref);
    return slot != NULL ? slot_row(slot) : NULL;
}

struct error *txn_need(struct txn *txn, unsigned class_id, const char *ref, const struct row **row_r)
{
    struct slot *slot;
    *row_r = NULL;
    TRY(need_slot(txn, class_id, ref, &slot));
    *row_r = slot_row(slot);
    return NULL;
}

struct row_list txn_all(struct txn *txn, const struct class_info *class)
{
    struct class_store *cs = db_class(txn->db, class);
    unsigned n = 0;

    CHECK(!txn->finished);
    rwlock_read(&txn->db->store_lock);
    const struct row **rows = arena_calloc(txn->arena, cs->n_slots + 1, sizeof(*rows));
    for (unsigned i = 0; i < cs->n_slots; i++)
        if (cs->slots[i] != NULL && txn_slot_exists(cs->slots[i]))
            rows[n++] = slot_row(cs->slots[i]);
    rwlock_drop(&txn->db->store_lock);
    return (struct row_list){ .rows = rows, .n = n };
}

const struct row *txn_by_uuid(struct txn *txn, const struct class_info *class, const char *uuid)
{
    CHECK(!txn->finished);
    rwlock_read(&txn->db->store_lock);
    struct slot *slot = store_find_uuid(txn->db, class, uuid, txn_slot_exists);
    rwlock_drop(&txn->db->store_lock);
    return slot != NULL ? slot_row(slot) : NULL;
}

/* --- making and deleting ---------------------------------------------------------------------------- */

static struct error *draft_fill(struct txn *txn, const struct class_info *class, struct value *draft,
                                const struct field_value *given, unsigned n)
{
    for (unsigned i = 0; i < class->n_fields; i++)
        draft[i] = (class->fields[i].flags & FIELD_INVERSE) != 0 ? value_set(NULL, 0) : class->fields[i].fallback;
    for (unsigned i = 0; i < n; i++) {
        CHECK(given[i].field < class->n_fields);
        const struct field_info *field = &class->fields[given[i].field];
        if (given[i].field == 0 || (field->flags & FIELD_INVERSE) != 0)
            return err_internal(txn->arena, "%s.%s is never written", class->name, field->name);
        if (!type_takes(field->type, &given[i].value))
            return err_internal(txn->arena, "%s.%s wants %s", class->name, field->name, field->type->spelling);
        draft[given[i].field] = type_convert(field->type, value_dup(txn->arena, &given[i].value));
    }
    return NULL;
}

static struct error *check_free(struct txn *txn, const struct class_info *class, const char *ref, const char *uuid)
{
    rwlock_read(&txn->db->store_lock);
    bool ref_taken = store_find_ref(txn->db, ref, txn_slot_exists) != NULL;
    bool uuid_taken = store_find_uuid(txn->db, class, uuid, txn_slot_exists) != NULL;
    rwlock_drop(&txn->db->store_lock);
    if (ref_taken)
        return err_internal(txn->arena, "%s: the reference %s is in use", class->name, ref);
    if (uuid_taken)
        return err_internal(txn->arena, "%s: the uuid %s is in use", class->name, uuid);
    return NULL;
}

struct error *txn_create(struct txn *txn, unsigned class_id, const char *ref, const char *uuid,
                         const struct field_value *fields, unsigned n, const char **ref_r)
{
    const struct class_info *class = &model_classes[class_id];
    struct value *draft = arena_calloc(txn->arena, class->n_fields, sizeof(*draft));

    CHECK(!txn->finished);
    if ((class->flags & CLASS_NOT_STORED) != 0)
        return err_internal(txn->arena, "%s has no objects", class->name);
    TRY(draft_fill(txn, class, draft, fields, n));
    ref = ref != NULL ? arena_strdup(txn->arena, ref) : ref_make(txn->arena);
    uuid = uuid != NULL ? arena_strdup(txn->arena, uuid) : uuid_make(txn->arena);
    TRY(check_free(txn, class, ref, uuid));
    draft[0] = value_string(uuid);

    struct slot *slot = store_add(txn->db, class, ++txn->db->next_id, ref, uuid);
    struct txn_change *change = change_new(txn, slot);
    change->draft = draft;
    for (unsigned i = 0; i < class->n_fields; i++)
        inverse_field_changed(txn, slot, i, NULL, &draft[i]);
    inverse_object_made(txn, slot);
    if (ref_r != NULL)
        *ref_r = ref;
    return NULL;
}

struct error *txn_delete(struct txn *txn, unsigned class_id, const char *ref)
{
    struct slot *slot;
    TRY(need_slot(txn, class_id, ref, &slot));

    struct txn_change *change = txn_touch_slot(txn, slot);
    for (unsigned i = 0; i < slot->class->n_fields; i++)
        inverse_field_changed(txn, slot, i, &change->draft[i], NULL);
    txn_draft_changed(txn, change);
    const struct value *fields = change->draft;
    change->draft = NULL;
    change->deleted = true;
    change->nothing = change->before == NULL;
    inverse_object_deleted(txn, slot, fields);
    return NULL;
}

struct error *txn_touch(struct txn *txn, unsigned class_id, const char *ref)
{
    struct slot *slot;
    TRY(need_slot(txn, class_id, ref, &slot));
    txn_touch_slot(txn, slot);
    return NULL;
}

/* --- writing ---------------------------------------------------------------------------------------- */

struct error *txn_set(struct txn *txn, unsigned class_id, const char *ref, unsigned field, struct value value)
{
    struct slot *slot;
    TRY(need_slot(txn, class_id, ref, &slot));

    CHECK(field < slot->class->n_fields);
    const struct field_info *info = &slot->class->fields[field];
    if (field == 0 || (info->flags & FIELD_INVERSE) != 0)
        return err_internal(txn->arena, "%s.%s is never written", slot->class->name, info->name);
    if (!type_takes(info->type, &value))
        return err_internal(txn->arena, "%s.%s wants %s", slot->class->name, info->name, info->type->spelling);
    value = type_convert(info->type, value);
    if (value_equal(&txn_slot_fields(slot)[field], &value))
        return NULL;

    struct txn_change *change = txn_touch_slot(txn, slot);
    txn_draft_changed(txn, change);
    struct value from = change->draft[field];
    change->draft[field] = value_dup(txn->arena, &value);
    if (field_is_stored(info))
        field_set_add(&change->dirty, field);
    inverse_field_changed(txn, slot, field, &from, &change->draft[field]);
    return NULL;
}

struct error *txn_set_string(struct txn *txn, unsigned class_id, const char *ref, unsigned field, const char *s)
{
    return txn_set(txn, class_id, ref, field, value_string(s));
}

struct error *txn_set_int(struct txn *txn, unsigned class_id, const char *ref, unsigned field, int64_t i)
{
    bool datetime = model_classes[class_id].fields[field].type->kind == TYPE_DATETIME;
    return txn_set(txn, class_id, ref, field, datetime ? value_datetime(i) : value_int(i));
}

struct error *txn_set_bool(struct txn *txn, unsigned class_id, const char *ref, unsigned field, bool b)
{
    return txn_set(txn, class_id, ref, field, value_bool(b));
}

struct error *txn_set_float(struct txn *txn, unsigned class_id, const char *ref, unsigned field, double f)
{
    return txn_set(txn, class_id, ref, field, value_float(f));
}

/* --- ending ----------------------------------------------------------------------------------------- */

/* Unlinks and frees the slots of objects that never came to be. */
static void drop_unborn(struct txn *txn)
{
    for (struct txn_change *c = txn->changes; c != NULL; c = c->next) {
        c->slot->change = NULL;
        if (c->before != NULL)
            continue;
        rwlock_write(&txn->db->store_lock);
        store_remove_locked(txn->db, c->slot);
        rwlock_drop(&txn->db->store_lock);
        slot_free(c->slot);
    }
}

void txn_release_rows(struct txn *txn)
{
    for (struct txn_change *c = txn->changes; c != NULL; c = c->next) {
        row_unref(c->before);
        row_unref(c->after);
    }
    for (struct old_rows *old = txn->old; old != NULL; old = old->next)
        row_unref(old->row);
}

void txn_abort(struct txn *txn)
{
    if (txn == NULL || txn->finished)
        return;
    txn->finished = true;
    inverse_abort(txn);
    drop_unborn(txn);
    lock_drop(&txn->db->txn_lock);
    txn_release_rows(txn);
}

struct error *txn_commit(struct txn *txn, uint64_t *generation_r)
{
    CHECK(!txn->finished);
    txn->finished = true;
    struct error *error = commit_and_wait(txn, generation_r);
    txn_release_rows(txn);
    return error;
}

struct error *db_set(struct db *db, struct arena *arena, unsigned class_id, const char *ref, unsigned field,
                     struct value value)
{
    AUTO_TXN txn = txn_begin(db, arena);
    TRY(txn_set(txn, class_id, ref, field, value));
    return txn_commit(txn, NULL);
}

struct error *db_map_put(struct db *db, struct arena *arena, unsigned class_id, const char *ref, unsigned field,
                         const char *key, const char *value)
{
    AUTO_TXN txn = txn_begin(db, arena);
    TRY(txn_map_put(txn, class_id, ref, field, key, value_string(value)));
    return txn_commit(txn, NULL);
}

struct error *db_delete(struct db *db, struct arena *arena, unsigned class_id, const char *ref)
{
    AUTO_TXN txn = txn_begin(db, arena);
    TRY(txn_delete(txn, class_id, ref));
    return txn_commit(txn, NULL);
}
