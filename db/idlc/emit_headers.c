#include <string.h>

#include "db/idlc/emit.h"

void emit_model_ids(struct idl *idl, struct text *out)
{
    unsigned n = 0;

    emit_banner(out, "Indices into the tables of db/model.h.");
    text_add(out, "#ifndef GEN_MODEL_IDS_H\n#define GEN_MODEL_IDS_H\n\n/* in model_classes */\nenum {\n");
    IDL_EACH(const struct idl_class, c, &idl->classes)
        text_printf(out, "    CLASS_%s = %u,\n", c->name, c->id);
    text_printf(out, "    N_CLASSES = %u\n};\n\n", idl->classes.n);
    IDL_EACH(const struct idl_class, with_fields, &idl->classes) {
        text_printf(out, "enum {\n");
        IDL_EACH(const struct idl_field, f, &with_fields->fields)
            text_printf(out, "    F_%s_%s = %u,\n", with_fields->name, f->name, f->index);
        text_printf(out, "    N_FIELDS_%s = %u\n};\n\n", with_fields->name, with_fields->fields.n);
    }
    text_add(out, "/* in model_messages and api_handlers */\nenum {\n");
    IDL_EACH(const struct idl_class, owner, &idl->classes)
        IDL_EACH(const struct idl_message, m, &owner->messages) {
            text_printf(out, "    M_%s_%s = %u,\n", owner->name, m->name, m->id);
            n++;
        }
    text_printf(out, "    N_MESSAGES = %u\n};\n\n#endif\n", n);
}

void emit_errors(struct idl *idl, struct text *out)
{
    emit_banner(out, "One constructor per error code: a wrong number or type of parameters does not compile.");
    text_add(out, "#ifndef GEN_ERRORS_H\n#define GEN_ERRORS_H\n\n#include \"rpc/base/error.h\"\n\n");
    IDL_EACH(const struct idl_error, e, &idl->errors) {
        text_printf(out, "#define err_%s(arena", idl_c_lower(idl->arena, e->code));
        IDL_EACH(const char, p, &e->params)
            text_printf(out, ", %s", idl_c_lower(idl->arena, p));
        text_printf(out, ") \\\n    error_make((arena), __FILE__, __LINE__, \"%s\", %u", e->code, e->params.n);
        IDL_EACH(const char, q, &e->params)
            text_printf(out, ", (const char *) { (%s) }", idl_c_lower(idl->arena, q));
        text_add(out, ")\n");
    }
    text_add(out, "\n#endif\n");
}

static const char *c_type(const struct idl_type *t)
{
    switch (t->kind) {
    case TYPE_STRING:
    case TYPE_ENUM:
    case TYPE_REF:
        return "const char *";
    case TYPE_INT:
    case TYPE_DATETIME:
        return "int64_t ";
    case TYPE_BOOL:
        return "bool ";
    case TYPE_FLOAT:
        return "double ";
    case TYPE_VOID:
    case TYPE_SET:
    case TYPE_MAP:
    case TYPE_RECORD:
    case TYPE_OPTION:
    case TYPE_ANY:
        break;
    }
    return "const struct value *";
}

static void emit_proto(struct idl *idl, struct text *out, const struct idl_message *m)
{
    const char *class = m->owner->name;

    text_printf(out, "/* %s */\nstruct api_%s_%s_args {\n", m->doc, class, m->name);
    IDL_EACH(const struct idl_param, p, &m->params)
        text_printf(out, "    %s%s; /* %s */\n", c_type(p->type), idl_c_name(idl->arena, p->name), p->type->spelling);
    if (m->params.n == 0)
        text_add(out, "    char none;\n");
    text_printf(
        out,
        "};\nstruct error *api_%s_%s(struct api_call *, const struct api_%s_%s_args *, struct value *result_r);\n\n",
        class, m->name, class, m->name);
}

void emit_api_proto(struct idl *idl, struct text *out)
{
    emit_banner(out, "Arguments and handlers of all messages. The dispatcher has checked and converted the arguments.");
    text_add(out, "#ifndef GEN_API_PROTO_H\n#define GEN_API_PROTO_H\n\n#include <stdbool.h>\n#include <stdint.h>\n\n"
                  "struct api_call;\nstruct error;\nstruct value;\n\n"
                  "typedef struct error *api_handler_fn(struct api_call *, const void *args, struct value *result_r);\n"
                  "/* By message id; NULL where a message has no code. */\n"
                  "extern api_handler_fn *const api_handlers[];\n\n");
    IDL_EACH(const struct idl_class, c, &idl->classes)
        IDL_EACH(const struct idl_message, m, &c->messages)
            emit_proto(idl, out, m);
    text_add(out, "#endif\n");
}

static bool has_code(const struct idl_message *m) { return !(m->flags & (MESSAGE_MISSING | MESSAGE_REMOVED)); }

void emit_api_table(struct idl *idl, struct text *out)
{
    emit_banner(out, "Message id -> handler.");
    text_add(out, "#include \"gen/api_proto.h\"\n\n#include <stddef.h>\n\n#include \"gen/model_ids.h\"\n\n");
    IDL_EACH(const struct idl_class, c, &idl->classes)
        IDL_EACH(const struct idl_message, m, &c->messages)
            if (has_code(m))
                text_printf(
                    out,
                    "static struct error *call_%s_%s(struct api_call *c, const void *args, struct value *result_r)\n"
                    "{\n    return api_%s_%s(c, args, result_r);\n}\n\n",
                    c->name, m->name, c->name, m->name);
    text_add(out, "api_handler_fn *const api_handlers[N_MESSAGES + 1] = {\n");
    IDL_EACH(const struct idl_class, owner, &idl->classes)
        IDL_EACH(const struct idl_message, row, &owner->messages)
            if (has_code(row))
                text_printf(out, "    [M_%s_%s] = call_%s_%s,\n", owner->name, row->name, owner->name, row->name);
    text_add(out, "    [N_MESSAGES] = NULL,\n};\n");
}
