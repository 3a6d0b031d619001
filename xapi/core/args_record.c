#include "xapi/core/args_record.h"

/* Clients send whole records as they once read them, others only what matters to them: whatever has a
 * default may be absent, and so may a required field that is no reference (it has a zero). */
static struct error *record_field(struct api_call *c, const struct class_info *class, const struct field_info *f,
                                  const struct value *given, struct value *value_r)
{
    unsigned flags = f->flags & FIELD_NULLABLE ? PARAM_NULLABLE : 0;

    if (given != NULL)
        return args_value(c, f->type, f->name, flags, given, value_r);
    if (f->required && f->type->kind == TYPE_REF && (f->flags & FIELD_NULLABLE) == 0)
        return err_internal(c->arena, "%s: the record of a %s needs its field '%s'", c->wire_name, class->name, f->name);
    *value_r = f->fallback;
    return NULL;
}

struct error *args_record(struct api_call *c, const struct type_info *type, const char *what, const struct value *in,
                          struct value *value_r)
{
    const struct class_info *class = type->class;
    struct value_dict dict = { 0 };

    if (in->kind != VALUE_MAP)
        return err_internal(c->arena, "%s: parameter '%s' is no record", c->wire_name, what);
    *value_r = *in;
    if (class == NULL)
        return NULL;
    for (unsigned i = 0; i < class->n_fields; i++) {
        const struct field_info *f = &class->fields[i];
        struct value v;
        if (f->qualifier == FIELD_RO_RUNTIME || (f->flags & FIELD_INVERSE))
            continue;
        TRY(record_field(c, class, f, value_get(in, f->name), &v));
        value_dict_add(c->arena, &dict, f->name, v);
    }
    *value_r = value_dict_value(&dict);
    return NULL;
}
