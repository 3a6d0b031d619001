#include "db/idlc/check.h"

#include <string.h>

#include "db/idlc/resolve.h"
#include "db/idlc/type.h"

static void check_default(struct idl *idl, struct idl_pos pos, const struct idl_type *t, const struct idl_literal *l)
{
    const char *wrong = l != NULL ? literal_check(idl->arena, t, l) : NULL;

    if (wrong != NULL)
        idl_complain(idl, pos, "bad default: %s", wrong);
}

static void check_relation(struct idl *idl, const struct idl_class *c, const struct idl_field *f)
{
    const struct idl_field *other = f->other_field;

    if (other == NULL)
        return;
    if (other->other_field != f) {
        idl_complain(idl, f->pos, "one-sided relation: %s.%s does not name %s.%s", f->other_class->name, other->name,
                     c->name, f->name);
        return;
    }
    if (f->kept == other->kept)
        idl_complain(idl, f->pos, "relation %s.%s <-> %s: one side is 'inverse', the other 'mirrored_by'", c->name,
                     f->name, f->other);
    if (f->kept &&
        (f->type->kind != TYPE_SET || f->type->item->kind != TYPE_REF || f->type->item->class != f->other_class))
        idl_complain(idl, f->pos, "%s.%s is 'inverse', so it is a '%s ref set'", c->name, f->name,
                     f->other_class->name);
    if (!f->kept) {
        const struct idl_type *t = f->type->kind == TYPE_SET ? f->type->item : f->type;

        if (t->kind != TYPE_REF || t->class != f->other_class)
            idl_complain(idl, f->pos, "%s.%s is 'mirrored_by %s', so it is a '%s ref' or a set of them", c->name,
                         f->name, f->other, f->other_class->name);
    }
}

static bool stored(const struct idl_class *c) { return !(c->flags & CLASS_NOT_STORED); }

static void check_field(struct idl *idl, const struct idl_class *c, const struct idl_field *f)
{
    if (f->doc == NULL)
        idl_complain(idl, f->pos, "field %s.%s has no description", c->name, f->name);
    if (f->type->kind == TYPE_VOID)
        idl_complain(idl, f->pos, "field %s.%s has no type", c->name, f->name);
    if (f->flags & FIELD_NULLABLE && f->type->kind != TYPE_REF)
        idl_complain(idl, f->pos, "field %s.%s is nullable but no reference", c->name, f->name);
    if (f->required && f->qualifier == FIELD_RO_RUNTIME)
        idl_complain(idl, f->pos, "field %s.%s is required but no constructor takes it", c->name, f->name);
    if (f->protect.n > 0 && (f->type->kind != TYPE_MAP || f->qualifier != FIELD_RW))
        idl_complain(idl, f->pos, "field %s.%s has protected keys but is no writable map", c->name, f->name);
    if (f->qualifier == FIELD_RW && stored(c) && !f->has_writers && !c->has_role)
        idl_complain(idl, f->pos, "no role for the setter of %s.%s: give 'writers', or the class a 'role'", c->name,
                     f->name);
    check_default(idl, f->pos, f->type, f->fallback);
    check_relation(idl, c, f);
}

/* What current_operations of the first parameter's object may hold. */
static const struct idl_enum *operations_of(const struct idl_message *m)
{
    const struct idl_param *p = m->params.n > 0 ? m->params.items[0] : NULL;
    const struct idl_field *f;

    if (p == NULL || p->type->kind != TYPE_REF || p->type->class == NULL)
        return NULL;
    f = idl_find_field(p->type->class, "allowed_operations");
    if (f == NULL || f->type->kind != TYPE_SET || f->type->item->kind != TYPE_ENUM)
        return NULL;
    return f->type->item->enum_;
}

static bool has_host_param(const struct idl_message *m)
{
    IDL_EACH(const struct idl_param, p, &m->params)
        if (p->type->kind == TYPE_REF && p->type->name != NULL && strcmp(p->type->name, "host") == 0)
            return true;
    return false;
}

static void check_params(struct idl *idl, const struct idl_message *m)
{
    bool defaults = false, added = false;

    IDL_EACH(const struct idl_param, p, &m->params) {
        bool has = p->flags & PARAM_HAS_DEFAULT;

        if (p->type->kind == TYPE_VOID)
            idl_complain(idl, p->pos, "parameter '%s' has no type", p->name);
        if (defaults && !has)
            idl_complain(idl, p->pos, "parameter '%s' without a default behind one that has it", p->name);
        if (added && !p->added)
            idl_complain(idl, p->pos, "parameter '%s' behind an added one", p->name);
        if (p->flags & PARAM_NULLABLE && p->type->kind != TYPE_REF)
            idl_complain(idl, p->pos, "parameter '%s' is nullable but no reference", p->name);
        check_default(idl, p->pos, p->type, p->fallback);
        defaults |= has;
        added |= p->added;
    }
}

static void check_message(struct idl *idl, const struct idl_class *c, const struct idl_message *m)
{
    const unsigned both = MESSAGE_MISSING | MESSAGE_REMOVED;

    if (m->doc == NULL)
        idl_complain(idl, m->pos, "message %s.%s has no description", c->name, m->name);
    if (!m->has_role)
        idl_complain(idl, m->pos, "message %s.%s has no role", c->name, m->name);
    if ((m->flags & both) == both)
        idl_complain(idl, m->pos, "message %s.%s is removed, so it cannot be missing", c->name, m->name);
    for (unsigned i = 0; i < m->errors.n; i++) {
        if (idl_find_error(idl, m->errors.items[i]) == NULL)
            idl_complain(idl, m->pos, "unknown error '%s' of %s.%s", (char *)m->errors.items[i], c->name, m->name);
        for (unsigned k = 0; k < i; k++)
            if (strcmp(m->errors.items[i], m->errors.items[k]) == 0)
                idl_complain(idl, m->pos, "error '%s' twice at %s.%s", (char *)m->errors.items[i], c->name, m->name);
    }
    if (m->operation != NULL && (operations_of(m) == NULL || !idl_enum_has(operations_of(m), m->operation)))
        idl_complain(idl, m->pos, "operation '%s' of %s.%s is none of its first parameter's allowed_operations",
                     m->operation, c->name, m->name);
    if (m->runs_on == RUNS_ON_HOST_PARAM && !has_host_param(m))
        idl_complain(idl, m->pos, "%s.%s runs on host_param but has no parameter of type 'host ref'", c->name, m->name);
    check_params(idl, m);
}

static void check_class(struct idl *idl, const struct idl_class *c)
{
    const struct idl_field *first = c->fields.n > 0 ? c->fields.items[0] : NULL;
    const struct idl_field *label = idl_find_field(c, "name_label");

    if (c->doc == NULL)
        idl_complain(idl, c->pos, "class %s has no description", c->name);
    if (stored(c) && (first == NULL || strcmp(first->name, "uuid") != 0 || first->type->kind != TYPE_STRING))
        idl_complain(idl, c->pos, "the first field of class %s must be 'uuid string'", c->name);
    if (c->flags & CLASS_NAME_LABEL && (label == NULL || label->type->kind != TYPE_STRING))
        idl_complain(idl, c->pos, "class %s is found by name_label but has no such string", c->name);
    IDL_EACH(const struct idl_enum, e, &c->enums)
        if (e->values.n == 0)
            idl_complain(idl, e->pos, "enum %s.%s has no values", c->name, e->name);
    IDL_EACH(const struct idl_field, f, &c->fields)
        check_field(idl, c, f);
    IDL_EACH(const struct idl_message, m, &c->messages)
        check_message(idl, c, m);
}

bool idl_check(struct idl *idl)
{
    idl_resolve(idl);
    IDL_EACH(const struct idl_class, c, &idl->classes)
        check_class(idl, c);
    idl_check_names(idl);
    return idl->complaints.n == 0;
}
