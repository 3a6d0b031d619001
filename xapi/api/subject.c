#include <string.h>

#include "xapi/core/rbac.h"
#include "xapi/core/session.h"

struct error *api_subject_create(struct api_call *c, const struct api_subject_create_args *a, struct value *result_r)
{
    const char *identifier = value_get_string(a->record, "subject_identifier", ""), *ref;
    const struct value *other_config = value_get(a->record, "other_config");
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    struct row_list all = txn_all(txn, &model_classes[CLASS_subject]);

    if (*identifier == '\0')
        return err_subject_cannot_be_resolved(c->arena);
    for (unsigned i = 0; i < all.n; i++)
        if (strcmp(row_string(all.rows[i], F_subject_subject_identifier), identifier) == 0)
            return err_subject_already_exists(c->arena);
    const struct field_value fields[] = {
        { F_subject_subject_identifier, value_string(identifier) },
        { F_subject_other_config, other_config != NULL ? *other_config : value_map(NULL, 0) },
    };
    TRY(txn_create(txn, CLASS_subject, NULL, NULL, fields, ARRAY_LEN(fields), &ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

/* Who is no subject any more, or is one of less power, must log in again. */
static void sessions_end(struct api_call *c, const struct row *subject)
{
    session_destroy_of(c->xapi, c->arena, row_string(subject, F_subject_subject_identifier));
}

struct error *api_subject_destroy(struct api_call *c, const struct api_subject_destroy_args *a, struct value *result_r)
{
    const struct row *subject;

    TRY(db_need(c->db, c->arena, CLASS_subject, a->self, &subject));
    TRY(db_delete(c->db, c->arena, CLASS_subject, a->self));
    sessions_end(c, subject);
    return NULL;
}

struct error *api_subject_add_to_roles(struct api_call *c, const struct api_subject_add_to_roles_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *subject;

    TRY(txn_need(txn, CLASS_subject, a->self, &subject));
    if (rbac_role_bit(a->role) == 0)
        return err_role_not_found(c->arena);
    if (value_set_has(row_value(subject, F_subject_roles), a->role))
        return err_role_already_exists(c->arena);
    TRY(txn_set_add(txn, CLASS_subject, a->self, F_subject_roles, a->role));
    return txn_commit(txn, NULL);
}

struct error *api_subject_remove_from_roles(struct api_call *c, const struct api_subject_remove_from_roles_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *subject;

    TRY(txn_need(txn, CLASS_subject, a->self, &subject));
    if (!value_set_has(row_value(subject, F_subject_roles), a->role))
        return err_role_not_found(c->arena);
    const struct row *before = db_get(c->db, c->arena, &model_classes[CLASS_subject], a->self);
    TRY(txn_set_remove(txn, CLASS_subject, a->self, F_subject_roles, a->role));
    TRY(txn_commit(txn, NULL));
    if (before != NULL)
        sessions_end(c, before);
    return NULL;
}

struct error *api_subject_get_permissions_name_label(struct api_call *c, const struct api_subject_get_permissions_name_label_args *a,
                                                     struct value *result_r)
{
    const struct row *subject;

    TRY(db_need(c->db, c->arena, CLASS_subject, a->self, &subject));
    *result_r = rbac_permissions(c->arena, rbac_roles_of(row_value(subject, F_subject_roles)));
    return NULL;
}
