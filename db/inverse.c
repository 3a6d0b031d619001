#include "db/inverse.h"

#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"

/* A ref that some mirrored field names and that no object carries. */
struct dangling {
    struct index_node node;
    unsigned n;
    char ref[];
};

void inverse_init(struct db *db)
{
    for (unsigned id = 0; id < model_n_classes; id++) {
        const struct class_info *class = &model_classes[id];
        for (unsigned f = 0; f < class->n_fields; f++) {
            const struct field_info *field = &class->fields[f];
            if ((field->flags & FIELD_INVERSE) == 0 || field->inverse_class == NULL)
                continue;
            struct mirror **list = &db_class(db, field->inverse_class)->mirrors[field->inverse_field];
            struct mirror *m = xcalloc(1, sizeof(*m));
            *m = (struct mirror){ .class = class, .field = f, .next = *list };
            *list = m;
        }
    }
}

/* --- refs to nothing -------------------------------------------------------------------------------- */

static struct dangling *dangling_find(const struct db *db, const char *ref)
{
    struct index_node *n = index_first(&db->dangling, index_hash(ref, strlen(ref)));
    for (; n != NULL; n = index_next(n)) {
        struct dangling *d = CONTAINER_OF(n, struct dangling, node);
        if (strcmp(d->ref, ref) == 0)
            return d;
    }
    return NULL;
}

static void dangling_count(struct db *db, const char *ref, int delta)
{
    struct dangling *d = dangling_find(db, ref);
    size_t len = strlen(ref);

    if (d == NULL) {
        CHECK(delta > 0);
        d = xcalloc(1, sizeof(*d) + len + 1);
        memcpy(d->ref, ref, len + 1);
        index_add(&db->dangling, &d->node, index_hash(ref, len));
    }
    CHECK(delta > 0 || d->n >= (unsigned)-delta);
    d->n += (unsigned)delta;
    if (d->n == 0) {
        index_remove(&db->dangling, &d->node);
        xfree(d);
    }
}

static void step(struct txn *txn, const char *ref, int delta)
{
    struct dangling_step *s = arena_alloc(txn->arena, sizeof(*s));
    *s = (struct dangling_step){ .ref = arena_strdup(txn->arena, ref), .delta = delta, .next = txn->steps };
    txn->steps = s;
    dangling_count(txn->db, ref, delta);
}

void inverse_abort(struct txn *txn)
{
    for (struct dangling_step *s = txn->steps; s != NULL; s = s->next)
        dangling_count(txn->db, s->ref, -s->delta);
}

void inverse_release(struct db *db)
{
    for (size_t i = 0; i < db->dangling.n_buckets; i++) {
        for (struct index_node *n = db->dangling.buckets[i], *next; n != NULL; n = next) {
            next = n->next;
            xfree(CONTAINER_OF(n, struct dangling, node));
        }
    }
    index_release(&db->dangling);
}

/* --- sets that follow -------------------------------------------------------------------------------- */

static struct grown_set *grown_set(struct txn *txn, struct txn_change *change, unsigned field)
{
    struct grown_set *g = change->grown;
    while (g != NULL && g->field != field)
        g = g->next;
    if (g != NULL)
        return g;
    const struct value *v = &change->draft[field];
    g = arena_alloc(txn->arena, sizeof(*g));
    *g = (struct grown_set){ .field = field, .next = change->grown };
    g->list.n = v->len;
    g->list.cap = v->len + v->len / 2 + 4;
    g->list.items = arena_calloc(txn->arena, g->list.cap, sizeof(struct value));
    if (v->len > 0)
        memcpy(g->list.items, v->items, v->len * sizeof(struct value));
    change->grown = g;
    return g;
}

static void list_remove(struct value_list *list, const char *ref)
{
    size_t len = strlen(ref);
    for (unsigned i = 0; i < list->n; i++) {
        if (list->items[i].len != len || memcmp(list->items[i].s, ref, len) != 0)
            continue;
        list->n--;
        memmove(&list->items[i], &list->items[i + 1], (list->n - i) * sizeof(struct value));
        return;
    }
}

/* 'ref' now names, or no longer names, 'target', which may not exist. */
static void follow(struct txn *txn, const struct mirror *m, const char *target, const char *ref, bool names)
{
    if (ref_is_null(target))
        return;
    rwlock_read(&txn->db->store_lock);
    struct slot *slot = store_find_ref(txn->db, target, txn_slot_exists);
    rwlock_drop(&txn->db->store_lock);
    if (slot == NULL || slot->class != m->class) {
        step(txn, target, names ? 1 : -1);
        return;
    }
    struct txn_change *change = txn_touch_slot(txn, slot);
    txn_draft_changed(txn, change);
    struct grown_set *g = grown_set(txn, change, m->field);
    if (names)
        value_list_add(txn->arena, &g->list, value_string(ref));
    else
        list_remove(&g->list, ref);
    change->draft[m->field] = value_list_value(&g->list);
}

static bool set_has(const struct value *set, uint32_t n, const struct value *item)
{
    for (uint32_t i = 0; i < n; i++)
        if (value_equal(&set->items[i], item))
            return true;
    return false;
}

/* Every item of 'set' that is not in 'other', once. */
static void follow_set(struct txn *txn, const struct mirror *m, const struct value *set, const struct value *other,
                       const char *ref, bool names)
{
    if (set == NULL)
        return;
    for (uint32_t i = 0; i < set->len; i++) {
        const struct value *item = &set->items[i];
        if (!set_has(set, i, item) && (other == NULL || !set_has(other, other->len, item)))
            follow(txn, m, item->s, ref, names);
    }
}

void inverse_field_changed(struct txn *txn, struct slot *slot, unsigned field, const struct value *from,
                           const struct value *to)
{
    const struct mirror *m = db_class(txn->db, slot->class)->mirrors[field];

    for (; m != NULL; m = m->next) {
        if (slot->class->fields[field].type->kind == TYPE_SET) {
            follow_set(txn, m, from, to, slot->ref, false);
            follow_set(txn, m, to, from, slot->ref, true);
            continue;
        }
        if (from != NULL)
            follow(txn, m, from->s, slot->ref, false);
        if (to != NULL)
            follow(txn, m, to->s, slot->ref, true);
    }
}

/* --- objects that come and go under refs already in use ------------------------------------------------ */

static bool names(const struct value *v, const char *ref)
{
    return v->kind == VALUE_SET ? value_set_has(v, ref) : strcmp(v->s, ref) == 0;
}

/* The refs of all objects of the mirrored class that name 'slot'. */
static struct value collect(struct txn *txn, const struct slot *slot, const struct field_info *set)
{
    const struct class_store *cs = db_class(txn->db, set->inverse_class);
    struct value_list list = { 0 };

    rwlock_read(&txn->db->store_lock);
    for (unsigned i = 0; i < cs->n_slots; i++) {
        const struct slot *from = cs->slots[i];
        if (from != NULL && txn_slot_exists(from) && names(&txn_slot_fields(from)[set->inverse_field], slot->ref))
            value_list_add(txn->arena, &list, value_string(from->ref));
    }
    rwlock_drop(&txn->db->store_lock);
    return value_list_value(&list);
}

void inverse_object_made(struct txn *txn, struct slot *slot)
{
    const struct dangling *d = dangling_find(txn->db, slot->ref);
    if (d == NULL)
        return;
    int n = (int)d->n, left = n;
    struct txn_change *change = txn_touch_slot(txn, slot);
    txn_draft_changed(txn, change);
    for (unsigned f = 0; f < slot->class->n_fields; f++) {
        const struct field_info *field = &slot->class->fields[f];
        if ((field->flags & FIELD_INVERSE) == 0 || field->inverse_class == NULL)
            continue;
        left -= (int)change->draft[f].len;
        change->draft[f] = collect(txn, slot, field);
        left += (int)change->draft[f].len;
    }
    /* Refs of another class may share the count: what the sets did not take stays. */
    change->grown = NULL;
    int taken = left - n;
    if (taken > 0)
        step(txn, slot->ref, taken < n ? -taken : -n);
}

void inverse_object_deleted(struct txn *txn, struct slot *slot, const struct value *fields)
{
    for (unsigned f = 0; f < slot->class->n_fields; f++)
        if ((slot->class->fields[f].flags & FIELD_INVERSE) != 0 && fields[f].len > 0)
            step(txn, slot->ref, (int)fields[f].len);
}

/* --- at open, and after a failure --------------------------------------------------------------------- */

typedef void each_fn(struct txn *, struct slot *, unsigned field, const struct value *);

/* Every mirrored field of every object that is there when nothing is queued. */
static void each_mirrored(struct txn *txn, each_fn *fn)
{
    for (unsigned id = 0; id < model_n_classes; id++) {
        struct class_store *cs = &txn->db->classes[id];
        for (unsigned f = 0; f < cs->class->n_fields; f++) {
            for (unsigned i = 0; cs->mirrors[f] != NULL && i < cs->n_slots; i++) {
                struct slot *slot = cs->slots[i];
                if (slot != NULL && slot->newest != NULL)
                    fn(txn, slot, f, &slot->newest->fields[f]);
            }
        }
    }
}

static void load_field(struct txn *txn, struct slot *slot, unsigned field, const struct value *v)
{
    inverse_field_changed(txn, slot, field, NULL, v);
}

void inverse_load(struct db *db)
{
    AUTO_ARENA arena = arena_new();
    struct txn txn = { .db = db, .arena = arena };
    txn.changes_end = &txn.changes;

    each_mirrored(&txn, load_field);
    for (struct txn_change *c = txn.changes; c != NULL; c = c->next) {
        struct slot *slot = c->slot;
        struct row *row = row_new(slot->class, slot->ref, c->before->created, c->before->generation, c->draft);
        slot->change = NULL;
        row_unref(slot->visible);
        slot->visible = row;
        row_unref(slot->newest);
        slot->newest = row_ref(row);
        row_unref(c->before);
    }
}

static void recount_target(struct db *db, const struct mirror *m, const struct value *target)
{
    if (ref_is_null(target->s))
        return;
    rwlock_read(&db->store_lock);
    const struct slot *slot = store_find_ref(db, target->s, txn_slot_exists);
    rwlock_drop(&db->store_lock);
    if (slot == NULL || slot->class != m->class)
        dangling_count(db, target->s, 1);
}

static void recount_field(struct txn *txn, struct slot *slot, unsigned field, const struct value *v)
{
    for (const struct mirror *m = db_class(txn->db, slot->class)->mirrors[field]; m != NULL; m = m->next) {
        if (v->kind != VALUE_SET)
            recount_target(txn->db, m, v);
        for (uint32_t i = 0; v->kind == VALUE_SET && i < v->len; i++)
            if (!set_has(v, i, &v->items[i]))
                recount_target(txn->db, m, &v->items[i]);
    }
}

void inverse_recount(struct db *db)
{
    struct txn txn = { .db = db };
    inverse_release(db);
    each_mirrored(&txn, recount_field);
}
