#include "db/idlc/emit.h"

static const char *text_or(const char *s, const char *other) { return s != NULL ? s : other; }

static void doc_roles(struct text *out, unsigned roles)
{
    if (roles == 0)
        text_add(out, "local root only");
    else if (roles == (1u << N_ROLES) - 1)
        text_add(out, "any role");
    for (unsigned i = 0; roles != (1u << N_ROLES) - 1 && i < N_ROLES; i++)
        if (roles & 1u << i)
            text_printf(out, "%s%s", roles & ((1u << i) - 1) ? ", " : "", idl_role_names[i]);
}

static void doc_fields(struct text *out, const struct idl_class *c)
{
    static const char *const qualifiers[] = {
        [FIELD_RW] = "read, write",
        [FIELD_RO_RUNTIME] = "read",
        [FIELD_RO_CONSTRUCTOR] = "read; set when created",
    };

    if (c->fields.n == 0)
        return;
    text_add(out, "| field | type | access | description |\n|---|---|---|---|\n");
    IDL_EACH(const struct idl_field, f, &c->fields) {
        text_printf(out, "| %s | `%s` | %s | %s", f->name, f->type->spelling, qualifiers[f->qualifier],
                    text_or(f->doc, ""));
        if (f->state != NULL)
            text_printf(out, " *(%s)*", f->state);
        text_add(out, " |\n");
    }
    text_add_byte(out, '\n');
}

static void doc_message(struct text *out, const struct idl_message *m)
{
    const char *between = "";

    text_printf(out, "### %s.%s\n\n`%s %s(", m->owner->name, m->name, m->result->spelling, m->name);
    IDL_EACH(const struct idl_param, p, &m->params) {
        text_printf(out, "%s%s %s%s", between, p->type->spelling, p->name, p->flags & PARAM_HAS_DEFAULT ? "?" : "");
        between = ", ";
    }
    text_printf(out, ")`\n\n%s\n\nRoles: ", text_or(m->doc, ""));
    doc_roles(out, m->roles);
    text_printf(out, ". Since %s.", text_or(m->since, text_or(m->owner->since, "?")));
    if (m->state != NULL)
        text_printf(out, " This message is %s.", m->state);
    if (m->flags & MESSAGE_MISSING)
        text_add(out, " Not implemented yet.");
    if (m->errors.n > 0)
        text_add(out, "\n\nErrors:");
    IDL_EACH(const char, e, &m->errors)
        text_printf(out, " %s", e);
    text_add(out, "\n\n");
}

void emit_doc(struct idl *idl, struct text *out)
{
    text_add(out, "# API reference\n\nGenerated from db/model/ by `idlc --doc`.\n\n");
    IDL_EACH(const struct idl_class, c, &idl->classes) {
        text_printf(out, "## %s\n\n%s Since %s.", c->name, text_or(c->doc, ""), text_or(c->since, "?"));
        if (c->state != NULL)
            text_printf(out, " This class is %s.", c->state);
        text_add(out, "\n\n");
        IDL_EACH(const struct idl_enum, e, &c->enums) {
            text_printf(out, "`enum %s`:", e->name);
            IDL_EACH(const char, v, &e->values)
                text_printf(out, " %s", v);
            text_add(out, "\n\n");
        }
        doc_fields(out, c);
        IDL_EACH(const struct idl_message, m, &c->messages)
            doc_message(out, m);
    }
    text_add(out, "## Errors\n\n| code | parameters |\n|---|---|\n");
    IDL_EACH(const struct idl_error, error, &idl->errors) {
        text_printf(out, "| %s |", error->code);
        IDL_EACH(const char, p, &error->params)
            text_printf(out, "%s %s", p_i > 0 ? "," : "", p);
        text_add(out, " |\n");
    }
}
