#include "db/types.h"

#include "rpc/base/check.h"

static bool set_takes(const struct type_info *type, const struct value *v)
{
    if (v->kind != VALUE_SET)
        return false;
    for (uint32_t i = 0; i < v->len; i++)
        if (!type_takes(type->item, &v->items[i]))
            return false;
    return true;
}

static bool map_takes(const struct type_info *type, const struct value *v)
{
    if (v->kind != VALUE_MAP)
        return false;
    for (uint32_t i = 0; i < v->len; i++)
        if (!type_takes(type->item, &v->members[i].value))
            return false;
    return true;
}

bool type_takes(const struct type_info *type, const struct value *v)
{
    switch (type->kind) {
    case TYPE_STRING:
    case TYPE_ENUM:
    case TYPE_REF:
        return v->kind == VALUE_STRING;
    case TYPE_INT:
        return v->kind == VALUE_INT || v->kind == VALUE_INT32;
    case TYPE_BOOL:
        return v->kind == VALUE_BOOL;
    case TYPE_FLOAT:
        return v->kind == VALUE_FLOAT;
    case TYPE_DATETIME:
        return v->kind == VALUE_DATETIME;
    case TYPE_SET:
        return set_takes(type, v);
    case TYPE_MAP:
        return map_takes(type, v);
    case TYPE_OPTION:
        return v->kind == VALUE_VOID || type_takes(type->item, v);
    case TYPE_RECORD:
    case TYPE_VOID:
    case TYPE_ANY:
        return false; /* not of a field */
    }
    BUG("not a type");
}

struct value type_convert(const struct type_info *type, struct value v)
{
    if (type->kind == TYPE_INT && v.kind == VALUE_INT32)
        v.kind = VALUE_INT;
    return v;
}
