#include "db/idlc/resolve.h"

#include <stdlib.h>
#include <string.h>

static bool same_values(const struct idl_enum *a, const struct idl_enum *b)
{
    if (a->values.n != b->values.n)
        return false;
    for (unsigned i = 0; i < a->values.n; i++)
        if (strcmp(a->values.items[i], b->values.items[i]) != 0)
            return false;
    return true;
}

/* An enum of the own class, or the one that another class has under this name. */
static void bind_enum(struct idl *idl, struct idl_pos pos, const struct idl_class *class, struct idl_type *t)
{
    t->enum_ = idl_find_enum(class, t->name);
    if (t->enum_ != NULL)
        return;
    IDL_EACH(struct idl_class, c, &idl->classes) {
        struct idl_enum *e = idl_find_enum(c, t->name);

        if (e == NULL)
            continue;
        if (t->enum_ == NULL)
            t->enum_ = e;
        else if (!same_values(t->enum_, e))
            idl_complain(idl, pos, "enum '%s' is ambiguous: %s and %s differ", t->name, t->enum_->owner->name, c->name);
    }
    if (t->enum_ == NULL)
        idl_complain(idl, pos, "unknown enum '%s'", t->name);
}

static void bind_type(struct idl *idl, struct idl_pos pos, const struct idl_class *class, struct idl_type *t)
{
    switch (t->kind) {
    case TYPE_ENUM:
        bind_enum(idl, pos, class, t);
        break;
    case TYPE_REF:
    case TYPE_RECORD:
        t->class = t->name != NULL ? idl_find_class(idl, t->name) : NULL;
        if (t->name != NULL && t->class == NULL)
            idl_complain(idl, pos, "%s to an unknown class '%s'", t->kind == TYPE_REF ? "reference" : "record",
                         t->name);
        break;
    case TYPE_MAP:
        bind_type(idl, pos, class, t->key);
        bind_type(idl, pos, class, t->item);
        break;
    case TYPE_SET:
    case TYPE_OPTION:
        bind_type(idl, pos, class, t->item);
        break;
    case TYPE_VOID:
    case TYPE_STRING:
    case TYPE_INT:
    case TYPE_BOOL:
    case TYPE_FLOAT:
    case TYPE_DATETIME:
    case TYPE_ANY:
        break;
    }
}

/* Finds "VBD.VM". */
static void bind_relation(struct idl *idl, struct idl_field *f)
{
    const char *dot = strchr(f->other, '.');
    char *class_name = arena_strndup(idl->arena, f->other, (size_t)(dot - f->other));
    struct idl_class *c = idl_find_class(idl, class_name);
    struct idl_field *other = c != NULL ? idl_find_field(c, dot + 1) : NULL;

    if (other == NULL) {
        idl_complain(idl, f->pos, "unknown field '%s'", f->other);
        return;
    }
    f->other_class = c;
    f->other_field = other;
    if (f->kept)
        f->flags |= FIELD_INVERSE;
}

static struct idl_type *make_type(struct idl *idl, enum type_kind kind, const struct idl_class *class)
{
    struct idl_type *t = arena_alloc(idl->arena, sizeof(*t));

    t->kind = kind;
    t->index = -1;
    t->class = class;
    t->name = class != NULL ? class->name : NULL;
    t->spelling = kind == TYPE_REF      ? arena_printf(idl->arena, "%s ref", class->name)
                  : kind == TYPE_RECORD ? arena_printf(idl->arena, "%s record", class->name)
                  : kind == TYPE_VOID   ? "void"
                                        : "string";
    return t;
}

static void add_param(struct idl *idl, struct idl_message *m, const char *name, struct idl_type *type, unsigned flags)
{
    struct idl_param *p = arena_alloc(idl->arena, sizeof(*p));

    p->pos = m->pos;
    p->name = name;
    p->type = type;
    p->flags = flags;
    idl_list_add(idl->arena, &m->params, p);
}

/* The parameters behind self of an accessor 'verb' of a field; false where the field has no such one. */
static bool add_setter_params(struct idl *idl, struct idl_message *m, struct idl_field *f, const char *verb)
{
    bool map = f->type->kind == TYPE_MAP, set = f->type->kind == TYPE_SET;

    if (f->qualifier != FIELD_RW)
        return false;
    if (strcmp(verb, "set_") == 0) {
        add_param(idl, m, "value", f->type, f->flags & FIELD_NULLABLE ? PARAM_NULLABLE : 0);
    } else if (map && (strcmp(verb, "add_to_") == 0 || strcmp(verb, "remove_from_") == 0)) {
        add_param(idl, m, "key", f->type->key, 0);
        if (verb[0] == 'a')
            add_param(idl, m, "value", f->type->item, 0);
    } else if (set && (strcmp(verb, "add_") == 0 || strcmp(verb, "remove_") == 0)) {
        add_param(idl, m, "value", f->type->item, 0);
    } else {
        return false;
    }
    f->flags |= FIELD_CUSTOM_SETTER;
    return true;
}

/* An implied message: gets its parameters from the class or the field it serves. */
static void bind_implied(struct idl *idl, struct idl_class *c, struct idl_message *m)
{
    static const char *const verbs[] = { "set_", "add_to_", "remove_from_", "add_", "remove_" };

    if (m->params.n > 0 || m->result != NULL)
        idl_complain(idl, m->pos, "the implied message %s.%s declares neither parameters nor a result", c->name,
                     m->name);
    m->params.n = 0;
    if (!m->has_role) {
        m->has_role = c->has_role;
        m->roles = c->roles;
    }
    if (strcmp(m->name, "create") == 0) {
        add_param(idl, m, "record", make_type(idl, TYPE_RECORD, c), 0);
        m->result = make_type(idl, TYPE_REF, c);
        c->flags |= CLASS_CREATE;
        return;
    }
    add_param(idl, m, "self", make_type(idl, TYPE_REF, c), 0);
    if (strcmp(m->name, "destroy") == 0) {
        c->flags |= CLASS_DESTROY;
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        size_t n = strlen(verbs[i]);
        struct idl_field *f = strncmp(m->name, verbs[i], n) == 0 ? idl_find_field(c, m->name + n) : NULL;

        if (f != NULL && add_setter_params(idl, m, f, verbs[i])) {
            if (f->has_writers)
                m->roles = f->writers;
            return;
        }
    }
    idl_complain(idl, m->pos, "no message %s.%s is implied", c->name, m->name);
}

static void bind_message(struct idl *idl, struct idl_class *c, struct idl_message *m)
{
    if (m->result == NULL && !(m->flags & MESSAGE_IMPLIED))
        m->result = make_type(idl, TYPE_VOID, NULL);
    if (m->flags & MESSAGE_IMPLIED)
        bind_implied(idl, c, m);
    if (m->result == NULL)
        m->result = make_type(idl, TYPE_VOID, NULL);
    IDL_EACH(struct idl_param, p, &m->params)
        bind_type(idl, p->pos, c, p->type);
    bind_type(idl, m->pos, c, m->result);
    if (strncmp(m->name, "set_", 4) == 0) {
        struct idl_field *f = idl_find_field(c, m->name + 4);

        if (f != NULL)
            f->flags |= FIELD_CUSTOM_SETTER;
    }
}

static int by_class_name(const void *a, const void *b)
{
    return strcmp((*(struct idl_class *const *)a)->name, (*(struct idl_class *const *)b)->name);
}

static int by_message_name(const void *a, const void *b)
{
    return strcmp((*(struct idl_message *const *)a)->name, (*(struct idl_message *const *)b)->name);
}

static int by_code(const void *a, const void *b)
{
    return strcmp((*(struct idl_error *const *)a)->code, (*(struct idl_error *const *)b)->code);
}

static void sort(struct idl_list *list, int (*order)(const void *, const void *))
{
    if (list->n > 1)
        qsort(list->items, list->n, sizeof(*list->items), order);
}

void idl_resolve(struct idl *idl)
{
    unsigned n_messages = 0, n_classes = 0;

    sort(&idl->classes, by_class_name);
    sort(&idl->errors, by_code);
    IDL_EACH(struct idl_class, c, &idl->classes) {
        c->id = n_classes++;
        IDL_EACH(struct idl_field, f, &c->fields) {
            f->index = f_i;
            bind_type(idl, f->pos, c, f->type);
            if (f->other != NULL)
                bind_relation(idl, f);
        }
    }
    IDL_EACH(struct idl_class, owner, &idl->classes) {
        sort(&owner->messages, by_message_name);
        IDL_EACH(struct idl_message, m, &owner->messages) {
            m->id = n_messages++;
            bind_message(idl, owner, m);
        }
    }
}
