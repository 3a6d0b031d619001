#include "db/store.h"

#include <stdlib.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/memory.h"

void store_init(struct db *db)
{
    CHECK(model_n_classes <= DB_MAX_CLASSES);
    lock_init(&db->txn_lock, LOCK_DB_TXN);
    lock_init(&db->queue_lock, LOCK_DB_QUEUE);
    lock_init(&db->watch_lock, LOCK_LEAF);
    rwlock_init(&db->store_lock, LOCK_DB_STORE);
    cond_init(&db->queue_filled);
    cond_init(&db->watch_moved);
    db->queue_end = &db->queue;
    db->classes = xcalloc(model_n_classes, sizeof(*db->classes));
    for (unsigned i = 0; i < model_n_classes; i++) {
        const struct class_info *class = &model_classes[i];
        CHECK(class->id == i && class->n_fields <= FIELD_SET_WORDS * 64);
        db->classes[i].class = class;
        db->classes[i].mirrors = xcalloc(class->n_fields + 1, sizeof(struct mirror *));
    }
}

static void class_release(struct class_store *cs)
{
    for (unsigned i = 0; i < cs->n_slots; i++)
        slot_free(cs->slots[i]);
    for (unsigned i = 0; i < cs->class->n_fields; i++) {
        for (struct mirror *m = cs->mirrors[i], *next; m != NULL; m = next) {
            next = m->next;
            xfree(m);
        }
    }
    change_log_release(cs);
    xfree(cs->mirrors);
    xfree(cs->slots);
}

void store_release(struct db *db)
{
    for (unsigned i = 0; i < model_n_classes; i++)
        class_release(&db->classes[i]);
    xfree(db->classes);
    index_release(&db->by_ref);
    index_release(&db->by_uuid);
    index_release(&db->by_name);
    cond_release(&db->watch_moved);
    cond_release(&db->queue_filled);
    rwlock_release(&db->store_lock);
    lock_release(&db->watch_lock);
    lock_release(&db->queue_lock);
    lock_release(&db->txn_lock);
}

bool slot_is_visible(const struct slot *slot) { return slot->visible != NULL; }

struct slot *store_find_ref(const struct db *db, const char *ref, slot_fits_fn *fits)
{
    struct index_node *n = index_first(&db->by_ref, index_hash(ref, strlen(ref)));
    for (; n != NULL; n = index_next(n)) {
        struct slot *slot = CONTAINER_OF(n, struct slot, by_ref);
        if (fits(slot) && strcmp(slot->ref, ref) == 0)
            return slot;
    }
    return NULL;
}

struct slot *store_find_uuid(const struct db *db, const struct class_info *class, const char *uuid, slot_fits_fn *fits)
{
    struct index_node *n = index_first(&db->by_uuid, index_hash(uuid, strlen(uuid)));
    for (; n != NULL; n = index_next(n)) {
        struct slot *slot = CONTAINER_OF(n, struct slot, by_uuid);
        if (slot->class == class && fits(slot) && strcmp(slot->uuid, uuid) == 0)
            return slot;
    }
    return NULL;
}

/* Closes the holes that deletions left, once they are half of the array. */
static void class_compact(struct class_store *cs)
{
    if (cs->n_holes < 64 || cs->n_holes < cs->n_slots / 2)
        return;
    unsigned n = 0;
    for (unsigned i = 0; i < cs->n_slots; i++) {
        if (cs->slots[i] == NULL)
            continue;
        cs->slots[i]->position = n;
        cs->slots[n++] = cs->slots[i];
    }
    cs->n_slots = n;
    cs->n_holes = 0;
}

struct slot *store_add_locked(struct db *db, const struct class_info *class, uint64_t id, const char *ref,
                              const char *uuid)
{
    struct class_store *cs = db_class(db, class);
    size_t ref_len = strlen(ref), uuid_len = strlen(uuid);
    struct slot *slot = xcalloc(1, sizeof(*slot) + ref_len + uuid_len + 2);
    char *text = (char *)(slot + 1);

    memcpy(text, ref, ref_len + 1);
    memcpy(text + ref_len + 1, uuid, uuid_len + 1);
    slot->class = class;
    slot->id = id;
    slot->ref = text;
    slot->uuid = text + ref_len + 1;
    index_add(&db->by_ref, &slot->by_ref, index_hash(ref, ref_len));
    index_add(&db->by_uuid, &slot->by_uuid, index_hash(uuid, uuid_len));
    if (cs->n_slots == cs->cap) {
        cs->cap = cs->cap != 0 ? cs->cap * 2 : 16;
        cs->slots = xrealloc(cs->slots, cs->cap * sizeof(struct slot *));
    }
    slot->position = cs->n_slots;
    cs->slots[cs->n_slots++] = slot;
    return slot;
}

struct slot *store_add(struct db *db, const struct class_info *class, uint64_t id, const char *ref, const char *uuid)
{
    rwlock_write(&db->store_lock);
    struct slot *slot = store_add_locked(db, class, id, ref, uuid);
    rwlock_drop(&db->store_lock);
    return slot;
}

void store_remove_locked(struct db *db, struct slot *slot)
{
    struct class_store *cs = db_class(db, slot->class);
    CHECK(slot->visible == NULL && cs->slots[slot->position] == slot);
    index_remove(&db->by_ref, &slot->by_ref);
    index_remove(&db->by_uuid, &slot->by_uuid);
    cs->slots[slot->position] = NULL;
    cs->n_holes++;
    class_compact(cs);
}

void slot_free(struct slot *slot)
{
    if (slot == NULL)
        return;
    row_unref(slot->visible);
    row_unref(slot->newest);
    xfree(slot);
}

/* --- names ------------------------------------------------------------------------------------------ */

static const struct value *row_name(const struct row *row)
{
    if (row == NULL || row->class->name_label_field < 0)
        return NULL;
    return row_value(row, (unsigned)row->class->name_label_field);
}

static void rename_locked(struct db *db, struct slot *slot, const struct value *old, const struct value *new)
{
    if (old != NULL && new != NULL && value_equal(old, new))
        return;
    if (slot->named)
        index_remove(&db->by_name, &slot->by_name);
    slot->named = new != NULL;
    if (new != NULL)
        index_add(&db->by_name, &slot->by_name, index_hash(new->s, new->len));
}

void store_show_locked(struct db *db, struct slot *slot, struct row *row, uint64_t generation)
{
    struct class_store *cs = db_class(db, slot->class);
    struct row *old = slot->visible;

    rename_locked(db, slot, row_name(old), row_name(row));
    slot->visible = row != NULL ? row_ref(row) : NULL;
    atomic_store_explicit(&cs->changed_at, generation, memory_order_release);
    if (row != NULL) {
        change_log_moved_locked(cs, slot);
        if (old == NULL)
            atomic_fetch_add_explicit(&cs->n_visible, 1, memory_order_relaxed);
    } else if (old != NULL) {
        change_log_gone_locked(cs, slot);
        change_log_deleted_locked(cs, old, generation);
        atomic_fetch_sub_explicit(&cs->n_visible, 1, memory_order_relaxed);
    }
    row_unref(old);
}

/* --- reading ---------------------------------------------------------------------------------------- */

static struct row *find_row(struct db *db, const struct class_info *class, const char *ref)
{
    if (ref == NULL)
        return NULL;
    rwlock_read(&db->store_lock);
    struct slot *slot = store_find_ref(db, ref, slot_is_visible);
    struct row *row = slot != NULL && (class == NULL || slot->class == class) ? row_ref(slot->visible) : NULL;
    rwlock_drop(&db->store_lock);
    return row;
}

/* Hands the caller's reference to the arena. */
static const struct row *hold(struct arena *arena, struct row *row)
{
    if (row == NULL)
        return NULL;
    const struct row *held = row_hold(arena, row);
    row_unref(row);
    return held;
}

const struct row *db_get(struct db *db, struct arena *arena, const struct class_info *class, const char *ref)
{
    return hold(arena, find_row(db, class, ref));
}

const struct row *db_find_ref(struct db *db, struct arena *arena, const char *ref)
{
    return hold(arena, find_row(db, NULL, ref));
}

struct error *db_need(struct db *db, struct arena *arena, unsigned class_id, const char *ref, const struct row **row_r)
{
    const struct class_info *class = &model_classes[class_id];
    *row_r = db_get(db, arena, class, ref);
    if (*row_r == NULL)
        return err_handle_invalid(arena, class->name, ref != NULL ? ref : "");
    return NULL;
}

const struct row *db_by_uuid(struct db *db, struct arena *arena, const struct class_info *class, const char *uuid)
{
    if (uuid == NULL)
        return NULL;
    rwlock_read(&db->store_lock);
    struct slot *slot = store_find_uuid(db, class, uuid, slot_is_visible);
    struct row *row = slot != NULL ? row_ref(slot->visible) : NULL;
    rwlock_drop(&db->store_lock);
    return hold(arena, row);
}

struct row_list db_all(struct db *db, struct arena *arena, const struct class_info *class)
{
    struct class_store *cs = db_class(db, class);
    unsigned n = 0;

    rwlock_read(&db->store_lock);
    unsigned room = atomic_load_explicit(&cs->n_visible, memory_order_relaxed);
    struct row **rows = arena_calloc(arena, room + 1, sizeof(struct row *));
    for (unsigned i = 0; i < cs->n_slots; i++) {
        struct slot *slot = cs->slots[i];
        if (slot != NULL && slot->visible != NULL)
            rows[n++] = row_ref(slot->visible);
    }
    rwlock_drop(&db->store_lock);
    CHECK(n <= room);
    row_hold_list(arena, rows, n);
    return (struct row_list){ .rows = (const struct row *const *)rows, .n = n };
}

static int slot_order(const void *left, const void *right)
{
    const struct slot *a = *(struct slot *const *)left, *b = *(struct slot *const *)right;
    return (a->position > b->position) - (a->position < b->position);
}

/* The visible slots of that name, in order of creation; *n_r in: room, out: all there are. */
static void find_named(struct db *db, const struct class_info *class, const char *name, struct slot **slots,
                       unsigned *n_r)
{
    unsigned n = 0;
    size_t len = strlen(name);
    struct index_node *node = index_first(&db->by_name, index_hash(name, len));

    for (; node != NULL; node = index_next(node)) {
        struct slot *slot = CONTAINER_OF(node, struct slot, by_name);
        const struct value *v = row_name(slot->visible);
        if (slot->class != class || v->len != len || memcmp(v->s, name, len) != 0)
            continue;
        if (n < *n_r)
            slots[n] = slot;
        n++;
    }
    *n_r = n;
}

struct row_list db_by_name(struct db *db, struct arena *arena, const struct class_info *class, const char *name_label)
{
    rwlock_read(&db->store_lock);
    unsigned n = 0;
    find_named(db, class, name_label, NULL, &n);
    struct slot **slots = arena_calloc(arena, n + 1, sizeof(struct slot *));
    find_named(db, class, name_label, slots, &n);
    qsort(slots, n, sizeof(struct slot *), slot_order);
    struct row **rows = arena_calloc(arena, n + 1, sizeof(struct row *));
    for (unsigned i = 0; i < n; i++)
        rows[i] = row_ref(slots[i]->visible);
    rwlock_drop(&db->store_lock);
    row_hold_list(arena, rows, n);
    return (struct row_list){ .rows = (const struct row *const *)rows, .n = n };
}

unsigned db_count(struct db *db, const struct class_info *class)
{
    return atomic_load_explicit(&db_class(db, class)->n_visible, memory_order_relaxed);
}

uint64_t db_generation(struct db *db) { return atomic_load_explicit(&db->generation, memory_order_acquire); }
