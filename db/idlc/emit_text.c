#include <stdlib.h>
#include <string.h>

#include "db/idlc/emit.h"

static void emit_roles(struct text *out, unsigned roles)
{
    const char *between = "";

    for (unsigned i = 0; i < N_ROLES; i++)
        if (roles & 1u << i) {
            text_printf(out, "%s%s", between, idl_role_names[i]);
            between = ",";
        }
}

static void add_line(struct idl *idl, struct idl_list *lines, struct text *line, bool added)
{
    if (added)
        text_add(line, " added");
    idl_list_add(idl->arena, lines, arena_strdup(idl->arena, line->bytes));
    text_clear(line);
}

static void dump_field(struct idl *idl, struct idl_list *lines, const struct idl_class *c, const struct idl_field *f)
{
    static const char *const qualifiers[] = {
        [FIELD_RW] = "RW",
        [FIELD_RO_RUNTIME] = "RO/runtime",
        [FIELD_RO_CONSTRUCTOR] = "RO/constructor",
    };
    AUTO_TEXT line = TEXT_INIT;

    text_printf(&line, "field %s.%s %s %s", c->name, f->name, qualifiers[f->qualifier], f->type->spelling);
    add_line(idl, lines, &line, c->flags & CLASS_ADDED || f->flags & FIELD_ADDED);
}

/* One line; with_added: all parameters, else those of 24.16. */
static void dump_message(struct idl *idl, struct idl_list *lines, const struct idl_message *m, bool with_added,
                         bool added)
{
    AUTO_TEXT line = TEXT_INIT;
    const char *between = "";

    text_printf(&line, "message %s.%s(", m->owner->name, m->name);
    IDL_EACH(const struct idl_param, p, &m->params) {
        if (p->added && !with_added)
            continue;
        text_printf(&line, "%s%s %s", between, p->type->spelling, p->name);
        between = ", ";
    }
    text_printf(&line, ") -> %s roles=", m->result->spelling);
    emit_roles(&line, m->roles);
    if (m->flags & MESSAGE_MISSING)
        text_add(&line, " missing");
    add_line(idl, lines, &line, added);
}

static void dump_class(struct idl *idl, struct idl_list *lines, const struct idl_class *c)
{
    AUTO_TEXT line = TEXT_INIT;

    IDL_EACH(const struct idl_enum, e, &c->enums) {
        text_printf(&line, "enum %s.%s", c->name, e->name);
        IDL_EACH(const char, v, &e->values)
            text_printf(&line, " %s", v);
        add_line(idl, lines, &line, c->flags & CLASS_ADDED);
    }
    IDL_EACH(const struct idl_field, f, &c->fields)
        dump_field(idl, lines, c, f);
    IDL_EACH(const struct idl_message, m, &c->messages) {
        bool added = c->flags & CLASS_ADDED || m->flags & MESSAGE_ADDED, added_param = false;

        if (m->flags & MESSAGE_IMPLIED)
            continue;
        IDL_EACH(const struct idl_param, p, &m->params)
            added_param |= p->added;
        dump_message(idl, lines, m, added, added);
        if (added_param && !added)
            dump_message(idl, lines, m, true, true);
    }
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

void emit_dump(struct idl *idl, struct text *out)
{
    struct idl_list lines = { 0 };
    AUTO_TEXT line = TEXT_INIT;

    IDL_EACH(const struct idl_class, c, &idl->classes)
        dump_class(idl, &lines, c);
    IDL_EACH(const struct idl_error, e, &idl->errors) {
        text_printf(&line, "error %s", e->code);
        IDL_EACH(const char, p, &e->params)
            text_printf(&line, "%s%s", p_i == 0 ? " " : ",", p);
        add_line(idl, &lines, &line, e->added);
    }
    if (lines.n > 1)
        qsort(lines.items, lines.n, sizeof(*lines.items), by_text);
    IDL_EACH(const char, l, &lines)
        text_printf(out, "%s\n", l);
}

void emit_todo(struct idl *idl, struct text *out)
{
    unsigned total = 0, all = 0;

    IDL_EACH(const struct idl_class, c, &idl->classes) {
        unsigned missing = 0;

        IDL_EACH(const struct idl_message, m, &c->messages)
            missing += (m->flags & MESSAGE_MISSING) != 0;
        if (missing > 0)
            text_printf(out, "%-20s %3u of %3u\n", c->name, missing, c->messages.n);
        total += missing;
        all += c->messages.n;
    }
    text_printf(out, "%-20s %3u of %3u\n", "total missing", total, all);
}

static uint64_t fnv1a(uint64_t hash, const char *s)
{
    for (; *s != '\0'; s++)
        hash = (hash ^ (unsigned char)*s) * 0x100000001b3u;
    return (hash ^ '\n') * 0x100000001b3u;
}

/* Enum values may come and go without a new layout, so all enums are alike here. */
static const char *layout_of(struct idl *idl, const struct idl_type *t)
{
    switch (t->kind) {
    case TYPE_ENUM:
        return "enum";
    case TYPE_SET:
    case TYPE_OPTION:
        return arena_printf(idl->arena, "%s set", layout_of(idl, t->item));
    case TYPE_MAP:
        return arena_printf(idl->arena, "(%s -> %s) map", layout_of(idl, t->key), layout_of(idl, t->item));
    case TYPE_VOID:
    case TYPE_STRING:
    case TYPE_INT:
    case TYPE_BOOL:
    case TYPE_FLOAT:
    case TYPE_DATETIME:
    case TYPE_REF:
    case TYPE_RECORD:
    case TYPE_ANY:
        return t->spelling;
    }
    return "";
}

const char *emit_schema_checksum(struct idl *idl)
{
    uint64_t hash = 0xcbf29ce484222325u;

    IDL_EACH(const struct idl_class, c, &idl->classes) {
        if (c->flags & (CLASS_NOT_STORED | CLASS_VOLATILE))
            continue;
        IDL_EACH(const struct idl_field, f, &c->fields)
            if (!(f->flags & (FIELD_VOLATILE | FIELD_INVERSE)))
                hash = fnv1a(hash, arena_printf(idl->arena, "%s.%s %s", c->name, f->name, layout_of(idl, f->type)));
    }
    return arena_printf(idl->arena, "%016llx", (unsigned long long)hash);
}
