#include "xapi/core/api_call.h"

/* Rows of the old class user: kept for clients that make them, used for nothing. */
struct error *api_user_create(struct api_call *c, const struct api_user_create_args *a, struct value *result_r)
{
    const struct value *other_config = value_get(a->record, "other_config");
    const struct field_value fields[] = {
        { F_user_short_name, value_string(value_get_string(a->record, "short_name", "")) },
        { F_user_fullname, value_string(value_get_string(a->record, "fullname", "")) },
        { F_user_other_config, other_config != NULL ? *other_config : value_map(NULL, 0) },
    };
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *ref;

    TRY(txn_create(txn, CLASS_user, NULL, NULL, fields, ARRAY_LEN(fields), &ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_user_destroy(struct api_call *c, const struct api_user_destroy_args *a, struct value *result_r)
{
    return db_delete(c->db, c->arena, CLASS_user, a->self);
}
