/* Secrets: values that other objects name by uuid instead of holding them. */
#include "xapi/core/api_call.h"

struct error *api_secret_create(struct api_call *c, const struct api_secret_create_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct value *other = value_get(a->record, "other_config");
    struct value none = value_map(NULL, 0);
    const struct field_value fields[] = {
        { F_secret_value, value_string(value_get_string(a->record, "value", "")) },
        { F_secret_other_config, other == NULL ? none : *other },
    };
    const char *ref;

    TRY(txn_create(txn, CLASS_secret, NULL, NULL, fields, ARRAY_LEN(fields), &ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_secret_destroy(struct api_call *c, const struct api_secret_destroy_args *a, struct value *result_r)
{
    return db_delete(c->db, c->arena, CLASS_secret, a->self);
}
