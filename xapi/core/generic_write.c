#include "xapi/core/generic_write.h"

#include <string.h>

#include "rpc/base/check.h"
#include "xapi/core/operations.h"
#include "xapi/core/rbac.h"

static const char *const verbs[] = {
    [ACCESSOR_SET] = "set_",
    [ACCESSOR_ADD_TO] = "add_to_",
    [ACCESSOR_REMOVE_FROM] = "remove_from_",
    [ACCESSOR_ADD] = "add_",
    [ACCESSOR_REMOVE] = "remove_",
};

/* Fields that decide which operations are allowed. */
static const char *const deciding[] = { "blocked_operations", "is_a_template", "on_boot", "allow_caching", "sharable", "read_only" };

static bool decides_operations(const struct accessor *a)
{
    if (model_field(a->class, "allowed_operations") < 0)
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(deciding); i++)
        if (strcmp(a->field->name, deciding[i]) == 0)
            return true;
    return false;
}

/* "folder*" stands for all keys that start so. */
static const struct protected_key *protection_of(const struct field_info *f, const char *key)
{
    for (const struct protected_key *p = f->protected_keys; p != NULL && p->key != NULL; p++) {
        size_t len = strlen(p->key);
        bool prefix = len > 0 && p->key[len - 1] == '*';
        if (prefix ? strncmp(p->key, key, len - 1) == 0 : strcmp(p->key, key) == 0)
            return p;
    }
    return NULL;
}

static struct error *key_check(struct api_call *c, const struct accessor *a, const char *key)
{
    const struct protected_key *p = protection_of(a->field, key);

    if (p == NULL)
        return NULL;
    const char *name = arena_printf(c->arena, "%s.%s%s/key:%s", a->class->name, verbs[a->kind], a->field->name, p->key);
    return rbac_need(c, p->roles, rbac_permission(c->arena, name));
}

/* Whole maps: every protected entry that one side lacks or that differs needs its role. */
static struct error *keys_check(struct api_call *c, const struct accessor *a, const struct value *map, const struct value *other)
{
    for (uint32_t i = 0; i < map->len; i++) {
        const struct value *same = value_get(other, map->members[i].name);
        if (same == NULL || !value_equal(same, &map->members[i].value))
            TRY(key_check(c, a, map->members[i].name));
    }
    return NULL;
}

static struct error *protection_check(struct api_call *c, const struct accessor *a, const struct row *row, const struct value *values)
{
    if (a->field->protected_keys == NULL || c->superuser)
        return NULL;
    if (a->kind == ACCESSOR_ADD_TO || a->kind == ACCESSOR_REMOVE_FROM)
        return key_check(c, a, values[1].s);
    TRY(keys_check(c, a, &values[1], row_value(row, a->field_index)));
    return keys_check(c, a, row_value(row, a->field_index), &values[1]);
}

static struct error *apply(struct txn *txn, const struct accessor *a, const struct value *values)
{
    unsigned class = a->class->id, field = a->field_index;
    const char *ref = values[0].s;

    switch (a->kind) {
    case ACCESSOR_SET:
        return txn_set(txn, class, ref, field, values[1]);
    case ACCESSOR_ADD_TO:
        return txn_map_add(txn, class, ref, field, values[1].s, values[2]);
    case ACCESSOR_REMOVE_FROM:
        return txn_map_remove(txn, class, ref, field, values[1].s);
    case ACCESSOR_ADD:
        return txn_set_add(txn, class, ref, field, values[1].s);
    case ACCESSOR_REMOVE:
        return txn_set_remove(txn, class, ref, field, values[1].s);
    case ACCESSOR_GET_RECORD: case ACCESSOR_GET_BY_UUID: case ACCESSOR_GET_BY_NAME_LABEL: case ACCESSOR_GET_ALL:
    case ACCESSOR_GET_ALL_RECORDS: case ACCESSOR_GET_ALL_RECORDS_WHERE: case ACCESSOR_GET:
        break;
    }
    BUG("an accessor that does not write");
}

struct error *accessor_write(struct api_call *c, const struct accessor *a, const struct value *values)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row;

    TRY(txn_need(txn, a->class->id, values[0].s, &row));
    TRY(protection_check(c, a, row, values));
    TRY(apply(txn, a, values));
    if (decides_operations(a))
        TRY(operations_update(c, txn, a->class->id, values[0].s));
    return txn_commit(txn, NULL);
}
