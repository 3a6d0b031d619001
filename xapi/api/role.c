#include <string.h>

#include "xapi/core/rbac.h"

/* Permissions have no rows of their own: a made-up reference names each. */
#define PERMISSION_REF "OpaqueRef:permission/"

static struct value roles_value(struct api_call *c, unsigned roles)
{
    struct value_list list = { 0 };

    for (unsigned i = 0; i < N_ROLES; i++)
        if (roles & 1u << i)
            value_list_add(c->arena, &list, value_string(rbac_role_ref(role_names[i])));
    return value_list_value(&list);
}

/* A role's bit; 0 for the one permission that has a row. */
static unsigned bit_of(const char *ref) { return rbac_role_bit(ref); }

struct error *api_role_get_permissions_name_label(struct api_call *c, const struct api_role_get_permissions_name_label_args *a,
                                                  struct value *result_r)
{
    *result_r = rbac_permissions(c->arena, bit_of(a->self));
    return NULL;
}

struct error *api_role_get_permissions(struct api_call *c, const struct api_role_get_permissions_args *a, struct value *result_r)
{
    struct value names = rbac_permissions(c->arena, bit_of(a->self));
    struct value_list list = { 0 };

    for (uint32_t i = 0; i < names.len; i++)
        value_list_add(c->arena, &list, value_string(arena_printf(c->arena, PERMISSION_REF "%s", names.items[i].s)));
    *result_r = value_list_value(&list);
    return NULL;
}

struct error *api_role_get_by_permission_name_label(struct api_call *c, const struct api_role_get_by_permission_name_label_args *a,
                                                    struct value *result_r)
{
    *result_r = roles_value(c, rbac_roles_with(a->label));
    return NULL;
}

struct error *api_role_get_by_permission(struct api_call *c, const struct api_role_get_by_permission_args *a, struct value *result_r)
{
    const char *name = a->permission;
    const struct row *row;

    if (strncmp(name, PERMISSION_REF, strlen(PERMISSION_REF)) == 0) {
        name += strlen(PERMISSION_REF);
    } else {
        TRY(db_need(c->db, c->arena, CLASS_role, name, &row));
        name = row_string(row, F_role_name_label);
    }
    *result_r = roles_value(c, rbac_roles_with(name));
    return NULL;
}
