#include <string.h>

#include "db/idlc/emit.h"

struct flag_name {
    unsigned flag;
    const char *name;
};

#define FLAG(f)                                                                                                        \
    {                                                                                                                  \
        f, #f                                                                                                          \
    }
static const struct flag_name field_flags[] = {
    FLAG(FIELD_VOLATILE),      FLAG(FIELD_NULLABLE),    FLAG(FIELD_SECRET), FLAG(FIELD_INVERSE),
    FLAG(FIELD_CUSTOM_SETTER), FLAG(FIELD_UNPUBLISHED), FLAG(FIELD_ADDED),  { 0, NULL },
};
static const struct flag_name class_flags[] = {
    FLAG(CLASS_VOLATILE),  FLAG(CLASS_GET_ALL),    FLAG(CLASS_NAME_LABEL), FLAG(CLASS_CREATE),   FLAG(CLASS_DESTROY),
    FLAG(CLASS_NO_EVENTS), FLAG(CLASS_NOT_STORED), FLAG(CLASS_ADDED),      FLAG(CLASS_EXPLICIT), { 0, NULL },
};
static const struct flag_name param_flags[] = {
    FLAG(PARAM_HAS_DEFAULT), FLAG(PARAM_NULLABLE), FLAG(PARAM_SECRET), FLAG(PARAM_NO_CHECK), { 0, NULL },
};
static const struct flag_name message_flags[] = {
    FLAG(MESSAGE_NO_SESSION),    FLAG(MESSAGE_MISSING),   FLAG(MESSAGE_SYNC_ONLY), FLAG(MESSAGE_REMOVED),
    FLAG(MESSAGE_POOL_INTERNAL), FLAG(MESSAGE_EMERGENCY), FLAG(MESSAGE_INLINE),    FLAG(MESSAGE_ADDED),
    FLAG(MESSAGE_HIDDEN),        FLAG(MESSAGE_NO_TASK),   FLAG(MESSAGE_IMPLIED),   { 0, NULL },
};
static const struct flag_name roles[] = {
    FLAG(ROLE_POOL_ADMIN),  FLAG(ROLE_POOL_OPERATOR), FLAG(ROLE_VM_POWER_ADMIN), FLAG(ROLE_VM_ADMIN),
    FLAG(ROLE_VM_OPERATOR), FLAG(ROLE_CLIENT_CERT),   FLAG(ROLE_READ_ONLY),      { 0, NULL },
};

static void emit_flags(struct text *out, const struct flag_name *names, unsigned flags)
{
    const char *between = "";

    for (; names->name != NULL; names++)
        if (flags & names->flag) {
            text_printf(out, "%s%s", between, names->name);
            between = " | ";
        }
    if (*between == '\0')
        text_add_byte(out, '0');
}

/* ", .member = "text"" when there is one. */
static void emit_member(struct text *out, const char *member, const char *s)
{
    if (s == NULL)
        return;
    text_printf(out, ", .%s = ", member);
    emit_c_string(out, s);
}

static void emit_field(struct text *out, const struct idl_class *c, const struct idl_field *f)
{
    static const char *const qualifiers[] = {
        [FIELD_RW] = "FIELD_RW",
        [FIELD_RO_RUNTIME] = "FIELD_RO_RUNTIME",
        [FIELD_RO_CONSTRUCTOR] = "FIELD_RO_CONSTRUCTOR",
    };
    AUTO_TEXT items = TEXT_INIT;

    text_printf(&items, "default_%s_%s", c->name, f->name);
    text_printf(out, "    { .name = \"%s\", .type = &types[%d], .qualifier = %s, .flags = ", f->name, f->type->index,
                qualifiers[f->qualifier]);
    emit_flags(out, field_flags, f->flags);
    text_add(out, ",\n      .fallback = ");
    emit_value(out, f->type, f->fallback, items.bytes);
    if (f->required)
        text_add(out, ", .required = true");
    if (f->flags & FIELD_INVERSE)
        text_printf(out, ",\n      .inverse_class = &model_classes[CLASS_%s], .inverse_field = F_%s_%s",
                    f->other_class->name, f->other_class->name, f->other_field->name);
    if (f->qualifier == FIELD_RW) {
        text_add(out, ",\n      .writer_roles = ");
        emit_flags(out, roles, f->has_writers ? f->writers : c->roles);
    }
    if (f->protect.n > 0)
        text_printf(out, ",\n      .protected_keys = protected_%s_%s", c->name, f->name);
    text_add(out, ",\n     ");
    text_printf(out, " .since = \"%s\"", f->since != NULL ? f->since : c->since != NULL ? c->since : "");
    emit_member(out, "doc", f->doc);
    text_add(out, " },\n");
}

static void emit_fields(struct text *out, const struct idl_class *c)
{
    AUTO_TEXT name = TEXT_INIT;

    if (c->fields.n == 0)
        return;
    IDL_EACH(const struct idl_field, f, &c->fields) {
        text_clear(&name);
        text_printf(&name, "default_%s_%s", c->name, f->name);
        emit_value_items(out, f->type, f->fallback, name.bytes);
        if (f->protect.n == 0)
            continue;
        text_printf(out, "static const struct protected_key protected_%s_%s[] = {\n", c->name, f->name);
        IDL_EACH(const struct idl_protect, p, &f->protect) {
            text_add(out, "    { ");
            emit_c_string(out, p->key);
            text_add(out, ", ");
            emit_flags(out, roles, p->roles);
            text_add(out, " },\n");
        }
        text_add(out, "    { 0 },\n};\n");
    }
    text_printf(out, "static const struct field_info fields_%s[] = {\n", c->name);
    IDL_EACH(const struct idl_field, field, &c->fields)
        emit_field(out, c, field);
    text_add(out, "};\n");
}

static void emit_shape(struct text *out, const struct idl_class *c)
{
    if (c->fields.n == 0) {
        text_printf(out, "static const struct record_shape shape_%s = { .class_name = \"%s\" };\n\n", c->name, c->name);
        return;
    }
    text_printf(out, "static const char *const names_%s[] = {\n", c->name);
    IDL_EACH(const struct idl_field, a, &c->fields)
        text_printf(out, "    \"%s\",\n", a->name);
    text_printf(out, "};\nstatic const char *const xml_%s[] = {\n", c->name);
    IDL_EACH(const struct idl_field, b, &c->fields)
        text_printf(out, "    \"<member><name>%s</name><value>\",\n", b->name);
    text_printf(out, "};\nstatic const char *const json_%s[] = {\n", c->name);
    IDL_EACH(const struct idl_field, d, &c->fields)
        text_printf(out, "    \"\\\"%s\\\":\",\n", d->name);
    text_printf(out, "};\nstatic const uint8_t published_%s[] = {", c->name);
    IDL_EACH(const struct idl_field, e, &c->fields)
        text_printf(out, "%s%d,", e_i % 30 == 0 ? "\n    " : " ", e->flags & FIELD_UNPUBLISHED ? 0 : 1);
    text_printf(out,
                "\n};\nstatic const struct record_shape shape_%s = {\n    \"%s\", %u, names_%s, xml_%s, json_%s, "
                "published_%s\n};\n\n",
                c->name, c->name, c->fields.n, c->name, c->name, c->name, c->name);
}

static void emit_params(struct idl *idl, struct text *out, const struct idl_message *m)
{
    AUTO_TEXT name = TEXT_INIT;

    if (m->params.n == 0)
        return;
    IDL_EACH(const struct idl_param, p, &m->params) {
        text_clear(&name);
        text_printf(&name, "argument_%s_%s_%s", m->owner->name, m->name, p->name);
        emit_value_items(out, p->type, p->fallback, name.bytes);
    }
    text_printf(out, "static const struct param_info params_%s_%s[] = {\n", m->owner->name, m->name);
    IDL_EACH(const struct idl_param, q, &m->params) {
        text_clear(&name);
        text_printf(&name, "argument_%s_%s_%s", m->owner->name, m->name, q->name);
        text_printf(out, "    { .name = \"%s\", .type = &types[%d], .flags = ", q->name, q->type->index);
        emit_flags(out, param_flags, q->flags);
        if (q->flags & PARAM_HAS_DEFAULT) {
            text_add(out, ", .fallback = ");
            emit_value(out, q->type, q->fallback, name.bytes);
        }
        text_printf(out, ",\n      .offset = offsetof(struct api_%s_%s_args, %s) },\n", m->owner->name, m->name,
                    idl_c_name(idl->arena, q->name));
    }
    text_add(out, "};\n");
}

static void emit_message_errors(struct text *out, const struct idl_message *m)
{
    if (m->errors.n == 0)
        return;
    text_printf(out, "static const char *const errors_%s_%s[] = {\n   ", m->owner->name, m->name);
    IDL_EACH(const char, e, &m->errors)
        text_printf(out, " \"%s\",", e);
    text_add(out, " NULL\n};\n");
}

static unsigned count_required(const struct idl_message *m)
{
    unsigned n = 0;

    IDL_EACH(const struct idl_param, p, &m->params)
        n += !(p->flags & PARAM_HAS_DEFAULT);
    return n;
}

static void emit_message(struct text *out, const struct idl_message *m)
{
    static const char *const places[] = {
        [RUNS_ON_COORDINATOR] = "RUNS_ON_COORDINATOR",
        [RUNS_HERE] = "RUNS_HERE",
        [RUNS_ON_HOST_PARAM] = "RUNS_ON_HOST_PARAM",
    };
    const char *class = m->owner->name, *name = m->name, *since = m->since != NULL ? m->since : m->owner->since;

    text_printf(
        out,
        "    [M_%s_%s] = { .name = \"%s\", .full_name = \"%s.%s\", .class = &model_classes[CLASS_%s], .id = M_%s_%s,\n",
        class, name, name, class, name, class, class, name);
    if (m->params.n > 0)
        text_printf(out, "      .params = params_%s_%s, .n_params = %u, .n_required = %u,\n", class, name, m->params.n,
                    count_required(m));
    text_printf(out, "      .result = &types[%d], .roles = ", m->result->index);
    emit_flags(out, roles, m->roles);
    text_add(out, ",\n      .flags = ");
    emit_flags(out, message_flags, m->flags);
    text_printf(out, ", .runs_on = %s", places[m->runs_on]);
    emit_member(out, "operation", m->operation);
    if (m->errors.n > 0)
        text_printf(out, ",\n      .errors = errors_%s_%s", class, name);
    else
        text_add(out, ",\n      .errors = no_errors");
    text_printf(out, ", .args_size = sizeof(struct api_%s_%s_args)", class, name);
    emit_member(out, "code_file", m->code_file);
    text_add(out, ",\n     ");
    text_printf(out, " .since = \"%s\"", since != NULL ? since : "");
    emit_member(out, "doc", m->doc);
    text_add(out, " },\n");
}

static void emit_messages(struct idl *idl, struct text *out)
{
    text_add(out, "static const char *const no_errors[] = { NULL };\n");
    IDL_EACH(const struct idl_class, c, &idl->classes)
        IDL_EACH(const struct idl_message, m, &c->messages) {
            emit_params(idl, out, m);
            emit_message_errors(out, m);
        }
    text_add(out, "\nconst struct message_info model_messages[N_MESSAGES + 1] = {\n");
    IDL_EACH(const struct idl_class, owner, &idl->classes)
        IDL_EACH(const struct idl_message, message, &owner->messages)
            emit_message(out, message);
    text_add(out, "};\nconst unsigned model_n_messages = N_MESSAGES;\n\n");
}

static int name_label_index(const struct idl_class *c)
{
    const struct idl_field *f = idl_find_field(c, "name_label");

    return f != NULL ? (int)f->index : -1;
}

static void emit_class(struct idl *idl, struct text *out, const struct idl_class *c)
{
    char *lower = arena_strdup(idl->arena, c->name);
    const struct idl_message *first = c->messages.n > 0 ? c->messages.items[0] : NULL;

    for (char *s = lower; *s != '\0'; s++)
        if (*s >= 'A' && *s <= 'Z')
            *s = (char)(*s - 'A' + 'a');
    text_printf(out, "    [CLASS_%s] = { .name = \"%s\", .lower = \"%s\", .id = CLASS_%s, .flags = ", c->name, c->name,
                lower, c->name);
    emit_flags(out, class_flags, c->flags);
    text_add(out, ",\n     ");
    if (c->fields.n > 0)
        text_printf(out, " .fields = fields_%s, .n_fields = N_FIELDS_%s,", c->name, c->name);
    text_printf(out, " .shape = &shape_%s,", c->name);
    if (first != NULL)
        text_printf(out, "\n      .messages = &model_messages[M_%s_%s], .n_messages = %u,", c->name, first->name,
                    c->messages.n);
    text_printf(out, "\n      .name_label_field = %d, .default_roles = ", name_label_index(c));
    emit_flags(out, roles, c->roles);
    text_add(out, ",\n     ");
    text_printf(out, " .since = \"%s\"", c->since != NULL ? c->since : "");
    emit_member(out, "doc", c->doc);
    text_add(out, " },\n");
}

static void emit_error_rows(struct idl *idl, struct text *out)
{
    IDL_EACH(const struct idl_error, e, &idl->errors) {
        if (e->params.n == 0)
            continue;
        text_printf(out, "static const char *const error_params_%s[] = {", e->code);
        IDL_EACH(const char, p, &e->params) {
            text_add_byte(out, ' ');
            emit_c_string(out, p);
            text_add_byte(out, ',');
        }
        text_add(out, " };\n");
    }
    text_printf(out, "const struct error_info model_errors[%u] = {\n", idl->errors.n + 1);
    IDL_EACH(const struct idl_error, row, &idl->errors)
        if (row->params.n > 0)
            text_printf(out, "    { \"%s\", error_params_%s, %u },\n", row->code, row->code, row->params.n);
        else
            text_printf(out, "    { \"%s\", NULL, 0 },\n", row->code);
    text_printf(out, "};\nconst unsigned model_n_errors = %u;\n\n", idl->errors.n);
    text_printf(out, "const struct alert_info model_alerts[%u] = {\n", idl->alerts.n + 1);
    IDL_EACH(const struct idl_alert, a, &idl->alerts)
        text_printf(out, "    { \"%s\", %d },\n", a->name, a->priority);
    text_printf(out, "};\nconst unsigned model_n_alerts = %u;\n\n", idl->alerts.n);
}

void emit_model_tables(struct idl *idl, struct text *out)
{
    emit_banner(out, "The datamodel as const tables: see db/model.h.");
    text_add(out, "#include \"db/model.h\"\n\n#include <stddef.h>\n\n"
                  "#include \"gen/api_proto.h\"\n#include \"gen/model_ids.h\"\n\n"
                  "#define PLAIN(x) { .kind = VALUE_STRING, .flags = VALUE_PLAIN, .len = sizeof(x) - 1, .s = x }\n"
                  "#define ESCAPED(x) { .kind = VALUE_STRING, .len = sizeof(x) - 1, .s = x }\n\n"
                  "const char *const role_names[N_ROLES] = {\n   ");
    for (unsigned i = 0; i < N_ROLES; i++)
        text_printf(out, " \"%s\",", idl_role_names[i]);
    text_add(out, "\n};\n\n");
    emit_types(idl, out);
    IDL_EACH(const struct idl_class, c, &idl->classes) {
        emit_fields(out, c);
        emit_shape(out, c);
    }
    emit_messages(idl, out);
    text_add(out, "const struct class_info model_classes[N_CLASSES + 1] = {\n");
    IDL_EACH(const struct idl_class, class, &idl->classes)
        emit_class(idl, out, class);
    text_add(out, "};\nconst unsigned model_n_classes = N_CLASSES;\n\n");
    emit_error_rows(idl, out);
    text_printf(out, "const unsigned model_schema_version = %u;\n", idl->schema_version);
}
