#include "xapi/core/args.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/datetime.h"
#include "rpc/base/uuid.h"
#include "xapi/core/args_record.h"
#include "xapi/core/xapi.h"

#define SHOWN_MAX 64 /* bytes of a wrong value in an error */

static const char *kind_name(const struct value *v)
{
    static const char *const names[] = {
        [VALUE_VOID] = "nothing", [VALUE_STRING] = "string", [VALUE_INT] = "int", [VALUE_INT32] = "int",
        [VALUE_BOOL] = "bool", [VALUE_FLOAT] = "float", [VALUE_DATETIME] = "datetime", [VALUE_SET] = "set",
        [VALUE_MAP] = "map", [VALUE_RECORD] = "record", [VALUE_NIL] = "nil",
    };

    return names[v->kind];
}

static struct error *wrong_type(struct api_call *c, const struct type_info *type, const char *what, const struct value *in)
{
    return err_internal(c->arena, "%s: parameter '%s' is a %s, expected %s", c->wire_name, what, kind_name(in), type->spelling);
}

static struct error *bad_value(struct api_call *c, const char *what, const struct value *in)
{
    return err_invalid_value(c->arena, what, arena_strndup(c->arena, in->s, in->len < SHOWN_MAX ? in->len : SHOWN_MAX));
}

/* XML 1.0 characters only: the codecs have checked the UTF-8. */
static bool is_xml_text(const struct value *v)
{
    const unsigned char *s = (const unsigned char *)v->s;

    if (v->flags & VALUE_PLAIN)
        return true;
    for (uint32_t i = 0; i < v->len; i++) {
        if (s[i] < 0x20 && s[i] != '\t' && s[i] != '\n' && s[i] != '\r')
            return false;
        if (s[i] == 0xef && i + 2 < v->len && s[i + 1] == 0xbf && s[i + 2] >= 0xbe)
            return false;
    }
    return true;
}

static bool int_of_text(const char *s, int64_t *i_r)
{
    char *end;

    if ((*s != '-' && *s != '+' && (*s < '0' || *s > '9')) || *s == '\0')
        return false;
    errno = 0;
    *i_r = strtoll(s, &end, 10);
    return errno == 0 && *end == '\0' && end != s;
}

static bool to_int(const struct value *in, int64_t *i_r)
{
    if (in->kind == VALUE_INT || in->kind == VALUE_INT32)
        *i_r = in->i;
    else if (in->kind == VALUE_STRING)
        return int_of_text(in->s, i_r);
    else if (in->kind == VALUE_FLOAT && in->f >= -9007199254740992.0 && in->f <= 9007199254740992.0 && rint(in->f) == in->f)
        *i_r = (int64_t)in->f;
    else
        return false;
    return true;
}

static bool to_float(const struct value *in, double *f_r)
{
    char *end;

    if (in->kind == VALUE_FLOAT)
        *f_r = in->f;
    else if (in->kind == VALUE_INT || in->kind == VALUE_INT32)
        *f_r = (double)in->i;
    else if (in->kind == VALUE_STRING && in->len > 0) {
        *f_r = strtod(in->s, &end);
        return *end == '\0';
    } else
        return false;
    return true;
}

static bool to_datetime(const struct value *in, int64_t *at_r)
{
    if (in->kind == VALUE_DATETIME)
        *at_r = in->i;
    else if (in->kind == VALUE_STRING)
        return datetime_parse(in->s, in->len, at_r);
    else
        return false;
    return true;
}

static bool checks_refs(const struct api_call *c) { return c->xapi == NULL || c->xapi->is_coordinator; }

static struct error *ref_value(struct api_call *c, const struct type_info *type, unsigned flags, const struct value *in, struct value *value_r)
{
    *value_r = *in;
    if (ref_is_null(in->s)) {
        *value_r = value_string(REF_NULL);
        if (flags & (PARAM_NULLABLE | PARAM_NO_CHECK))
            return NULL;
    }
    if ((flags & PARAM_NO_CHECK) || type->class == NULL || !checks_refs(c))
        return NULL;
    if (db_get(c->db, c->arena, type->class, in->s) == NULL)
        return err_handle_invalid(c->arena, type->class->name, in->s);
    return NULL;
}

static struct error *text_value(struct api_call *c, const struct type_info *type, const char *what, unsigned flags,
                                const struct value *in, struct value *value_r)
{
    if (in->kind == VALUE_NIL && type->kind == TYPE_REF && (flags & PARAM_NULLABLE)) {
        *value_r = value_string(REF_NULL);
        return NULL;
    }
    if (in->kind != VALUE_STRING)
        return wrong_type(c, type, what, in);
    if (!is_xml_text(in))
        return bad_value(c, what, in);
    if (type->kind == TYPE_REF)
        return ref_value(c, type, flags, in, value_r);
    if (type->kind == TYPE_ENUM && !model_enum_has(type->enum_info, in->s))
        return bad_value(c, what, in);
    *value_r = *in;
    return NULL;
}

static struct error *set_value(struct api_call *c, const struct type_info *type, const char *what, unsigned flags,
                               const struct value *in, struct value *value_r)
{
    struct value *items;

    if (in->kind != VALUE_SET)
        return wrong_type(c, type, what, in);
    items = arena_calloc(c->arena, in->len + 1u, sizeof(*items));
    for (uint32_t i = 0; i < in->len; i++)
        TRY(args_value(c, type->item, what, flags, &in->items[i], &items[i]));
    *value_r = value_set(items, in->len);
    return NULL;
}

/* Keys are strings on the wire whatever their type; they are checked as that type and stay strings. */
static struct error *map_value(struct api_call *c, const struct type_info *type, const char *what, unsigned flags,
                               const struct value *in, struct value *value_r)
{
    struct member *members;
    struct value key;

    if (in->kind != VALUE_MAP)
        return wrong_type(c, type, what, in);
    members = arena_calloc(c->arena, in->len + 1u, sizeof(*members));
    for (uint32_t i = 0; i < in->len; i++) {
        const struct member *m = &in->members[i];
        struct value name = value_string_len(m->name, m->name_len);
        TRY(args_value(c, type->key, what, flags, &name, &key));
        members[i] = *m;
        TRY(args_value(c, type->item, what, flags, &m->value, &members[i].value));
    }
    *value_r = value_map(members, in->len);
    return NULL;
}

struct error *args_value(struct api_call *c, const struct type_info *type, const char *what, unsigned flags,
                         const struct value *in, struct value *value_r)
{
    int64_t i;
    double f;

    switch (type->kind) {
    case TYPE_STRING: case TYPE_ENUM: case TYPE_REF:
        return text_value(c, type, what, flags, in, value_r);
    case TYPE_INT:
        if (!to_int(in, &i))
            return wrong_type(c, type, what, in);
        *value_r = value_int(i);
        return NULL;
    case TYPE_FLOAT:
        if (!to_float(in, &f))
            return wrong_type(c, type, what, in);
        *value_r = value_float(f);
        return NULL;
    case TYPE_BOOL:
        if (in->kind != VALUE_BOOL)
            return wrong_type(c, type, what, in);
        *value_r = *in;
        return NULL;
    case TYPE_DATETIME:
        if (!to_datetime(in, &i))
            return wrong_type(c, type, what, in);
        *value_r = value_datetime(i);
        return NULL;
    case TYPE_SET:
        return set_value(c, type, what, flags, in, value_r);
    case TYPE_MAP:
        return map_value(c, type, what, flags, in, value_r);
    case TYPE_RECORD:
        return args_record(c, type, what, in, value_r);
    case TYPE_OPTION:
        if (in->kind != VALUE_NIL)
            return args_value(c, type->item, what, flags, in, value_r);
        *value_r = *in;
        return NULL;
    case TYPE_VOID: case TYPE_ANY:
        break;
    }
    *value_r = *in;
    return NULL;
}

void args_split(const struct value *params, bool has_session, struct arg_list *list_r, const char **session_r)
{
    const struct value *session = NULL;

    *list_r = (struct arg_list){ 0 };
    if (params->kind == VALUE_MAP) {
        list_r->by_name = params;
        session = has_session ? value_get(params, "session_id") : NULL;
        list_r->n = params->len - (session != NULL);
    } else if (params->kind == VALUE_SET) {
        unsigned skip = has_session && params->len > 0;
        session = skip ? &params->items[0] : NULL;
        list_r->items = params->items + skip;
        list_r->n = params->len - skip;
    }
    *session_r = session != NULL && session->kind == VALUE_STRING ? session->s : NULL;
}

static struct error *count_mismatch(struct api_call *c, unsigned expected, unsigned received)
{
    return err_message_parameter_count_mismatch(c->arena, c->wire_name, arena_printf(c->arena, "%u", expected),
                                                arena_printf(c->arena, "%u", received));
}

struct error *args_convert(struct api_call *c, const struct param_info *params, unsigned n_params, unsigned n_required,
                           const struct arg_list *list, struct value *values_r)
{
    if (list->n < n_required)
        return count_mismatch(c, n_required, list->n);
    if (list->n > n_params && list->by_name == NULL)
        return count_mismatch(c, n_params, list->n);
    for (unsigned i = 0; i < n_params; i++) {
        const struct param_info *p = &params[i];
        const struct value *in = i < list->n ? &list->items[i] : NULL;
        if (list->by_name != NULL)
            in = value_get(list->by_name, p->name);
        if (in == NULL && i < n_required)
            return count_mismatch(c, n_required, list->n);
        if (in == NULL)
            values_r[i] = p->fallback;
        else
            TRY(args_value(c, p->type, p->name, p->flags, in, &values_r[i]));
    }
    return NULL;
}

static void store(struct arena *a, void *at, const struct type_info *type, const struct value *v)
{
    switch (type->kind) {
    case TYPE_STRING: case TYPE_ENUM: case TYPE_REF:
        *(const char **)at = v->s;
        return;
    case TYPE_INT: case TYPE_DATETIME:
        *(int64_t *)at = v->i;
        return;
    case TYPE_BOOL:
        *(bool *)at = v->i != 0;
        return;
    case TYPE_FLOAT:
        *(double *)at = v->f;
        return;
    case TYPE_VOID: case TYPE_SET: case TYPE_MAP: case TYPE_RECORD: case TYPE_OPTION: case TYPE_ANY:
        *(const struct value **)at = arena_memdup(a, v, sizeof(*v));
        return;
    }
    BUG("unknown type");
}

void *args_struct(struct arena *a, const struct message_info *m, const struct value *values)
{
    char *args = arena_alloc(a, m->args_size);

    for (unsigned i = 0; i < m->n_params; i++)
        store(a, args + m->params[i].offset, m->params[i].type, &values[i]);
    return args;
}
