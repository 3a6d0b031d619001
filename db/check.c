/* Consistency of the objects in a database file. */
#include <string.h>

#include "db/maintenance.h"
#include "db/sqlite.h"
#include "db/store.h"
#include "rpc/base/check.h"
#include "rpc/base/uuid.h"

struct checker {
    struct db *db;
    struct arena *arena;
    struct text *report;
    struct maintenance_findings *found;
};

static void error_found(struct checker *c, const struct row *row, const char *text)
{
    text_printf(c->report, "error: %s %s: %s\n", row->class->name, row->ref, text);
    c->found->n_errors++;
}

static void note_found(struct checker *c, const struct row *row, const char *text)
{
    text_printf(c->report, "note: %s %s: %s\n", row->class->name, row->ref, text);
    c->found->n_notes++;
}

/* --- refs -------------------------------------------------------------------------------------------- */

static void check_ref(struct checker *c, const struct row *row, const struct field_info *f,
                      const struct class_info *class, const char *ref)
{
    bool volatile_target = class != NULL && !class_is_stored(class);
    if (ref_is_null(ref) || volatile_target)
        return;
    const struct row *target = db_find_ref(c->db, c->arena, ref);
    if (target != NULL && (class == NULL || target->class == class))
        return;
    const char *text = arena_printf(c->arena, "%s names %s, which is no %s", f->name, ref,
                                    class != NULL ? class->name : "object");
    bool required = f->type->kind == TYPE_REF && (f->flags & FIELD_NULLABLE) == 0;
    if (required)
        error_found(c, row, text);
    else
        note_found(c, row, text);
}

static void check_refs(struct checker *c, const struct row *row, unsigned field)
{
    const struct field_info *f = &row->class->fields[field];
    const struct value *v = &row->fields[field];

    if ((f->flags & FIELD_INVERSE) != 0)
        return;
    if (f->type->kind == TYPE_REF)
        check_ref(c, row, f, f->type->class, v->s);
    if (f->type->kind == TYPE_SET && f->type->item->kind == TYPE_REF)
        for (uint32_t i = 0; i < v->len; i++)
            check_ref(c, row, f, f->type->item->class, v->items[i].s);
    if (f->type->kind == TYPE_MAP && f->type->item->kind == TYPE_REF)
        for (uint32_t i = 0; i < v->len; i++)
            check_ref(c, row, f, f->type->item->class, v->members[i].value.s);
}

/* --- inverse sets: counted from the other side ---------------------------------------------------------- */

static unsigned count_naming(const struct row_list *list, unsigned field, const char *ref)
{
    unsigned n = 0;
    for (unsigned i = 0; i < list->n; i++) {
        const struct value *v = &list->rows[i]->fields[field];
        n += v->kind == VALUE_SET ? value_set_has(v, ref) : strcmp(v->s, ref) == 0;
    }
    return n;
}

/* Sums, not every set: a set that is too short or too long shows, at a cost linear in the objects. */
static void check_inverse(struct checker *c, const struct class_info *class, unsigned field)
{
    const struct field_info *f = &class->fields[field];
    struct row_list owners = db_all(c->db, c->arena, class), others = db_all(c->db, c->arena, f->inverse_class);

    for (unsigned i = 0; i < owners.n; i++) {
        const struct value *set = &owners.rows[i]->fields[field];
        for (uint32_t k = 0; k < set->len; k++) {
            const struct row *other = db_get(c->db, c->arena, f->inverse_class, set->items[k].s);
            struct row_list one = { .rows = &other, .n = other != NULL };
            if (count_naming(&one, f->inverse_field, owners.rows[i]->ref) != 1)
                error_found(c, owners.rows[i],
                            arena_printf(c->arena, "%s has %s, which does not name it", f->name, set->items[k].s));
        }
    }
    for (unsigned i = 0; i < others.n; i++) {
        const struct value *v = &others.rows[i]->fields[f->inverse_field];
        const struct row *owner = v->kind == VALUE_STRING ? db_get(c->db, c->arena, class, v->s) : NULL;
        if (owner != NULL && !value_set_has(&owner->fields[field], others.rows[i]->ref))
            error_found(c, owner, arena_printf(c->arena, "%s lacks %s", f->name, others.rows[i]->ref));
    }
}

/* --- values ------------------------------------------------------------------------------------------ */

static void check_enum(struct checker *c, const struct row *row, const struct field_info *f,
                       const struct type_info *type, const struct value *v)
{
    if (type->kind == TYPE_ENUM && v->kind == VALUE_STRING && !model_enum_has(type->enum_info, v->s))
        note_found(c, row, arena_printf(c->arena, "%s has the unknown value '%s'", f->name, v->s));
}

static void check_values(struct checker *c, const struct row *row, unsigned field)
{
    const struct field_info *f = &row->class->fields[field];
    const struct value *v = &row->fields[field];

    check_enum(c, row, f, f->type, v);
    if (f->type->kind == TYPE_SET)
        for (uint32_t i = 0; i < v->len; i++)
            check_enum(c, row, f, f->type->item, &v->items[i]);
}

static void check_row(struct checker *c, const struct row *row)
{
    c->found->n_objects++;
    if (strncmp(row->ref, "OpaqueRef:", 10) != 0)
        note_found(c, row, "is no OpaqueRef");
    for (unsigned field = 0; field < row->class->n_fields; field++) {
        if (!field_is_stored(&row->class->fields[field]))
            continue;
        check_refs(c, row, field);
        check_values(c, row, field);
    }
}

static void check_class(struct checker *c, const struct class_info *class)
{
    AUTO_ARENA arena = arena_new();
    struct checker inner = *c;
    inner.arena = arena;
    struct row_list all = db_all(c->db, arena, class);
    for (unsigned i = 0; i < all.n; i++)
        check_row(&inner, all.rows[i]);
    for (unsigned field = 0; field < class->n_fields; field++) {
        const struct field_info *f = &class->fields[field];
        if ((f->flags & FIELD_INVERSE) != 0 && f->inverse_class != NULL && class_is_stored(f->inverse_class))
            check_inverse(&inner, class, field);
    }
}

struct error *maintenance_check(struct arena *arena, const char *path, struct text *report,
                                struct maintenance_findings *found)
{
    struct db *db;
    const char *pages;

    *found = (struct maintenance_findings){ 0 };
    TRY(sqlite_check_pages(arena, path, &pages));
    if (strcmp(pages, "ok") != 0) {
        text_printf(report, "error: damaged pages: %s\n", pages);
        found->n_errors++;
    }
    TRY(db_look(arena, path, &db));
    struct checker c = { .db = db, .arena = arena, .report = report, .found = found };
    for (unsigned i = 0; i < model_n_classes; i++)
        if (class_is_stored(&model_classes[i]))
            check_class(&c, &model_classes[i]);
    db_close(db);
    return NULL;
}
