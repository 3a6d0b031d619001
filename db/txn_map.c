/* Writing into one map or set of an object; all end in txn_set, so equal values change nothing. */
#include <string.h>

#include "db/change_set.h"
#include "db/txn.h"
#include "gen/errors.h"
#include "rpc/base/check.h"

/* The present value of a field; its members are copied into 'dict' to be edited. */
static struct error *map_begin(struct txn *txn, unsigned class_id, const char *ref, unsigned field,
                               struct value_dict *dict)
{
    const struct row *row;
    TRY(txn_need(txn, class_id, ref, &row));
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_MAP);
    dict->n = v->len;
    dict->cap = v->len + 1;
    dict->members = arena_calloc(txn->arena, dict->cap, sizeof(struct member));
    if (v->len > 0)
        memcpy(dict->members, v->members, v->len * sizeof(struct member));
    return NULL;
}

struct error *txn_map_add(struct txn *txn, unsigned class_id, const char *ref, unsigned field, const char *key,
                          struct value value)
{
    const struct row *row;
    TRY(txn_need(txn, class_id, ref, &row));
    if (value_get(row_value(row, field), key) != NULL)
        return err_map_duplicate_key(txn->arena, row->class->name, row->class->fields[field].name, row_string(row, 0),
                                     key);
    return txn_map_put(txn, class_id, ref, field, key, value);
}

struct error *txn_map_put(struct txn *txn, unsigned class_id, const char *ref, unsigned field, const char *key,
                          struct value value)
{
    struct value_dict dict;
    TRY(map_begin(txn, class_id, ref, field, &dict));
    value_dict_set(txn->arena, &dict, key, value);
    return txn_set(txn, class_id, ref, field, value_dict_value(&dict));
}

struct error *txn_map_remove(struct txn *txn, unsigned class_id, const char *ref, unsigned field, const char *key)
{
    struct value_dict dict;
    TRY(map_begin(txn, class_id, ref, field, &dict));
    unsigned n = 0;
    for (unsigned i = 0; i < dict.n; i++)
        if (strcmp(dict.members[i].name, key) != 0)
            dict.members[n++] = dict.members[i];
    if (n == dict.n)
        return NULL;
    dict.n = n;
    return txn_set(txn, class_id, ref, field, value_dict_value(&dict));
}

struct error *txn_set_add(struct txn *txn, unsigned class_id, const char *ref, unsigned field, const char *item)
{
    const struct row *row;
    TRY(txn_need(txn, class_id, ref, &row));
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_SET);
    if (value_set_has(v, item))
        return NULL;
    struct value *items = arena_calloc(txn->arena, v->len + 1, sizeof(*items));
    if (v->len > 0)
        memcpy(items, v->items, v->len * sizeof(*items));
    items[v->len] = value_string(item);
    return txn_set(txn, class_id, ref, field, value_set(items, v->len + 1));
}

struct error *txn_set_remove(struct txn *txn, unsigned class_id, const char *ref, unsigned field, const char *item)
{
    const struct row *row;
    TRY(txn_need(txn, class_id, ref, &row));
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_SET);
    if (!value_set_has(v, item))
        return NULL;
    struct value *items = arena_calloc(txn->arena, v->len, sizeof(*items));
    unsigned n = 0;
    for (uint32_t i = 0; i < v->len; i++)
        if (strcmp(v->items[i].s, item) != 0)
            items[n++] = v->items[i];
    return txn_set(txn, class_id, ref, field, value_set(items, n));
}
