#include "xapi/core/generic.h"

#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/generic_write.h"
#include "xapi/core/query.h"

#define ANY_ROLE ((1u << N_ROLES) - 1)

/* Names of whole-object accessors, and the class flag each needs. */
static const struct { const char *name; enum accessor_kind kind; unsigned flag; } object_accessors[] = {
    { "get_record", ACCESSOR_GET_RECORD, 0 },
    { "get_by_uuid", ACCESSOR_GET_BY_UUID, 0 },
    { "get_by_name_label", ACCESSOR_GET_BY_NAME_LABEL, CLASS_NAME_LABEL },
    { "get_all", ACCESSOR_GET_ALL, CLASS_GET_ALL },
    { "get_all_records", ACCESSOR_GET_ALL_RECORDS, CLASS_GET_ALL },
    { "get_all_records_where", ACCESSOR_GET_ALL_RECORDS_WHERE, CLASS_GET_ALL },
};

/* Prefixes of field accessors; longer ones first where one starts another. */
static const struct { const char *prefix; enum accessor_kind kind; } field_accessors[] = {
    { "get_", ACCESSOR_GET },
    { "set_", ACCESSOR_SET },
    { "add_to_", ACCESSOR_ADD_TO },
    { "remove_from_", ACCESSOR_REMOVE_FROM },
    { "add_", ACCESSOR_ADD },
    { "remove_", ACCESSOR_REMOVE },
};

static bool has_accessors(const struct class_info *class)
{
    return (class->flags & (CLASS_NOT_STORED | CLASS_EXPLICIT)) == 0;
}

static bool field_has(const struct field_info *f, enum accessor_kind kind)
{
    bool writable = f->qualifier == FIELD_RW && (f->flags & FIELD_CUSTOM_SETTER) == 0;

    if (f->flags & FIELD_UNPUBLISHED)
        return false;
    switch (kind) {
    case ACCESSOR_GET:
        return true;
    case ACCESSOR_SET:
        return writable;
    case ACCESSOR_ADD_TO: case ACCESSOR_REMOVE_FROM:
        return writable && f->type->kind == TYPE_MAP;
    case ACCESSOR_ADD: case ACCESSOR_REMOVE:
        return writable && f->type->kind == TYPE_SET && f->type->item->kind == TYPE_STRING;
    case ACCESSOR_GET_RECORD: case ACCESSOR_GET_BY_UUID: case ACCESSOR_GET_BY_NAME_LABEL: case ACCESSOR_GET_ALL:
    case ACCESSOR_GET_ALL_RECORDS: case ACCESSOR_GET_ALL_RECORDS_WHERE:
        break;
    }
    return false;
}

/* Secrets may be read by those who may make them; everything else by everybody. */
static unsigned reader_roles(const struct class_info *class)
{
    return class->id == CLASS_secret ? class->default_roles : ANY_ROLE;
}

static struct accessor accessor_of_field(const struct class_info *class, unsigned index, enum accessor_kind kind)
{
    const struct field_info *f = &class->fields[index];
    unsigned roles = kind == ACCESSOR_GET ? reader_roles(class) : f->writer_roles;

    return (struct accessor){ .kind = kind, .class = class, .field = f, .field_index = index, .roles = roles };
}

bool accessor_find(const struct class_info *class, const char *name, struct accessor *a)
{
    if (!has_accessors(class))
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(object_accessors); i++) {
        unsigned flag = object_accessors[i].flag;
        if (strcmp(object_accessors[i].name, name) == 0 && (class->flags & flag) == flag) {
            *a = (struct accessor){ .kind = object_accessors[i].kind, .class = class, .roles = reader_roles(class) };
            return true;
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(field_accessors); i++) {
        size_t len = strlen(field_accessors[i].prefix);
        if (strncmp(field_accessors[i].prefix, name, len) != 0)
            continue;
        int field = model_field(class, name + len);
        if (field >= 0 && field_has(&class->fields[field], field_accessors[i].kind)) {
            *a = accessor_of_field(class, (unsigned)field, field_accessors[i].kind);
            return true;
        }
    }
    return false;
}

bool accessor_writes(const struct accessor *a) { return a->kind >= ACCESSOR_SET; }

static const struct type_info string_type = { .kind = TYPE_STRING, .spelling = "string" };

static void param_add(struct accessor_params *p, const char *name, const struct type_info *type, unsigned flags)
{
    CHECK(p->n < ACCESSOR_PARAMS_MAX);
    p->params[p->n++] = (struct param_info){ .name = name, .type = type, .flags = flags };
}

void accessor_params(const struct accessor *a, struct accessor_params *p)
{
    const struct type_info *type = a->field != NULL ? a->field->type : NULL;
    unsigned flags = 0;

    *p = (struct accessor_params){ .self = { .kind = TYPE_REF, .spelling = "ref", .class = a->class } };
    if (a->field != NULL)
        flags = (a->field->flags & FIELD_NULLABLE ? PARAM_NULLABLE : 0u) | (a->field->flags & FIELD_SECRET ? PARAM_SECRET : 0u);
    if (a->field != NULL || a->kind == ACCESSOR_GET_RECORD)
        param_add(p, "self", &p->self, PARAM_NO_CHECK); /* reading it tells soon enough */
    switch (a->kind) {
    case ACCESSOR_GET_RECORD: case ACCESSOR_GET_ALL: case ACCESSOR_GET_ALL_RECORDS: case ACCESSOR_GET:
        break;
    case ACCESSOR_GET_BY_UUID:
        param_add(p, "uuid", &string_type, 0);
        break;
    case ACCESSOR_GET_BY_NAME_LABEL:
        param_add(p, "label", &string_type, 0);
        break;
    case ACCESSOR_GET_ALL_RECORDS_WHERE:
        param_add(p, "expr", &string_type, 0);
        break;
    case ACCESSOR_SET:
        param_add(p, "value", type, flags);
        break;
    case ACCESSOR_ADD_TO:
        param_add(p, "key", &string_type, 0);
        param_add(p, "value", type->item, flags);
        break;
    case ACCESSOR_REMOVE_FROM:
        param_add(p, "key", &string_type, 0);
        break;
    case ACCESSOR_ADD: case ACCESSOR_REMOVE:
        param_add(p, "value", type->item, flags);
        break;
    }
}

/* --- reading ------------------------------------------------------------------------------------ */

static struct value refs_value(struct arena *a, const struct row_list *rows)
{
    struct value *items = arena_calloc(a, rows->n + 1, sizeof(*items));

    for (unsigned i = 0; i < rows->n; i++)
        items[i] = value_string(rows->rows[i]->ref);
    return value_set(items, rows->n);
}

static struct error *records_value(struct api_call *c, const struct class_info *class, const struct query *where, struct value *result_r)
{
    struct row_list rows = db_all(c->db, c->arena, class);
    struct member *members = arena_calloc(c->arena, rows.n + 1, sizeof(*members));
    unsigned n = 0;

    for (unsigned i = 0; i < rows.n; i++)
        if (where == NULL || query_matches(where, rows.rows[i]))
            members[n++] = member_of(rows.rows[i]->ref, value_record(&rows.rows[i]->record));
    *result_r = value_map(members, n);
    return NULL;
}

static struct error *records_where(struct api_call *c, const struct class_info *class, const char *expr, struct value *result_r)
{
    struct query *where;

    TRY(query_parse(c->arena, class, expr, &where));
    return records_value(c, class, where, result_r);
}

static struct error *by_uuid(struct api_call *c, const struct class_info *class, const char *uuid, struct value *result_r)
{
    const struct row *row = db_by_uuid(c->db, c->arena, class, uuid);

    if (row == NULL)
        return err_uuid_invalid(c->arena, class->name, uuid);
    *result_r = value_string(row->ref);
    return NULL;
}

struct error *accessor_run(struct api_call *c, const struct accessor *a, const struct value *values, struct value *result_r)
{
    const struct row *row = NULL;
    struct row_list rows;

    if (a->kind == ACCESSOR_GET || a->kind == ACCESSOR_GET_RECORD)
        TRY(db_need(c->db, c->arena, a->class->id, values[0].s, &row));
    *result_r = value_void();
    switch (a->kind) {
    case ACCESSOR_GET_RECORD:
        *result_r = value_record(&row->record);
        return NULL;
    case ACCESSOR_GET:
        *result_r = *row_value(row, a->field_index);
        return NULL;
    case ACCESSOR_GET_BY_UUID:
        return by_uuid(c, a->class, values[0].s, result_r);
    case ACCESSOR_GET_BY_NAME_LABEL:
        rows = db_by_name(c->db, c->arena, a->class, values[0].s);
        *result_r = refs_value(c->arena, &rows);
        return NULL;
    case ACCESSOR_GET_ALL:
        rows = db_all(c->db, c->arena, a->class);
        *result_r = refs_value(c->arena, &rows);
        return NULL;
    case ACCESSOR_GET_ALL_RECORDS:
        return records_value(c, a->class, NULL, result_r);
    case ACCESSOR_GET_ALL_RECORDS_WHERE:
        return records_where(c, a->class, values[0].s, result_r);
    case ACCESSOR_SET: case ACCESSOR_ADD_TO: case ACCESSOR_REMOVE_FROM: case ACCESSOR_ADD: case ACCESSOR_REMOVE:
        break;
    }
    return accessor_write(c, a, values);
}

/* --- all of them ------------------------------------------------------------------------------------ */

static void each_accessor(struct arena *a, const struct class_info *class, void (*fn)(void *, const struct generic_method *), void *ctx)
{
    for (unsigned i = 0; i < ARRAY_LEN(object_accessors); i++) {
        if ((class->flags & object_accessors[i].flag) != object_accessors[i].flag)
            continue;
        fn(ctx, &(struct generic_method){ .name = arena_printf(a, "%s.%s", class->name, object_accessors[i].name),
                                          .roles = reader_roles(class) });
    }
    for (unsigned i = 0; i < class->n_fields; i++) {
        for (unsigned j = 0; j < ARRAY_LEN(field_accessors); j++) {
            if (!field_has(&class->fields[i], field_accessors[j].kind))
                continue;
            struct accessor accessor = accessor_of_field(class, i, field_accessors[j].kind);
            fn(ctx, &(struct generic_method){
                        .name = arena_printf(a, "%s.%s%s", class->name, field_accessors[j].prefix, class->fields[i].name),
                        .roles = accessor.roles,
                        .field = accessor_writes(&accessor) ? accessor.field : NULL });
        }
    }
}

void generic_each_method(struct arena *a, void (*fn)(void *ctx, const struct generic_method *), void *ctx)
{
    for (unsigned i = 0; i < model_n_classes; i++) {
        const struct class_info *class = &model_classes[i];
        for (unsigned j = 0; j < class->n_messages; j++) {
            const struct message_info *m = &class->messages[j];
            if ((m->flags & MESSAGE_HIDDEN) == 0)
                fn(ctx, &(struct generic_method){ .name = m->full_name, .roles = m->roles, .message = m });
        }
        if (has_accessors(class))
            each_accessor(a, class, fn, ctx);
    }
}
