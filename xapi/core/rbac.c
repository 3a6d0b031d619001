#include "xapi/core/rbac.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/generic.h"

/* Bit 0 first, as role_names. pool-admin's is xapi's fixed one, the others are the MD5 of the name. */
static const char *const role_uuids[N_ROLES] = {
    "0165f154-ba3e-034e-6b27-5d271af109ba", /* pool-admin */
    "b9ce9791-0604-50cd-0649-09b3284c7dfd", /* pool-operator */
    "7955168d-7bec-10ed-105f-c6a7e6e63249", /* vm-power-admin */
    "aaa00ab5-7340-bfbc-0d1b-7cf342639a6e", /* vm-admin */
    "fb8d4ff9-310c-a959-0613-54101535d3d5", /* vm-operator */
    "2c42debf-c64a-2ecd-f674-3350f06409f7", /* client-cert */
    "7233b8e3-eacb-d7da-2c95-f2e581cdbf4e", /* read-only */
};
static const char *const role_docs[N_ROLES] = {
    "Can do everything in the pool, roles included",
    "Can do everything but give roles and use the hosts' own consoles",
    "Can do everything with VMs, and move and save them",
    "Can do everything with VMs but move and save them",
    "Can use VMs and start and stop them",
    "What a client certificate of a trusted service may do",
    "Can look but not change",
};

/* One permission has a row of its own, so that the weakest role has a subrole too: clients tell roles
 * from permissions by that. */
#define LOGIN_UUID "9eaf06ef-8f42-4832-7099-e5a63d32a87d"
#define LOGIN_NAME "session.login_with_password"

static struct value role_ref_value(struct arena *a, unsigned i) { return value_string(arena_printf(a, "OpaqueRef:%s", role_uuids[i])); }

static struct error *role_create(struct txn *txn, struct arena *a, const char *name, const char *doc, const char *uuid,
                                 struct value subroles, bool internal)
{
    const struct field_value fields[] = {
        { F_role_name_label, value_string(name) },
        { F_role_name_description, value_string(doc) },
        { F_role_subroles, subroles },
        { F_role_is_internal, value_bool(internal) },
    };
    const char *ref;

    return txn_create(txn, CLASS_role, arena_printf(a, "OpaqueRef:%s", uuid), uuid, fields, ARRAY_LEN(fields), &ref);
}

struct error *rbac_create_roles(struct txn *txn)
{
    AUTO_ARENA a = arena_new();
    struct value login = value_string("OpaqueRef:" LOGIN_UUID);

    TRY(role_create(txn, a, LOGIN_NAME, "A permission", LOGIN_UUID, value_set(NULL, 0), true));
    for (unsigned i = 0; i < N_ROLES; i++) {
        struct value_list subroles = { 0 };
        bool internal = 1u << i == ROLE_CLIENT_CERT;
        for (unsigned j = i + 1; j < N_ROLES && !internal; j++)
            if (1u << j != ROLE_CLIENT_CERT)
                value_list_add(a, &subroles, role_ref_value(a, j));
        value_list_add(a, &subroles, login);
        TRY(role_create(txn, a, role_names[i], role_docs[i], role_uuids[i], value_list_value(&subroles), internal));
    }
    return NULL;
}

struct error *rbac_need(const struct api_call *c, unsigned roles, const char *permission)
{
    AUTO_TEXT names = TEXT_INIT;

    if (c->superuser || (c->roles & roles) != 0)
        return NULL;
    model_roles_text(roles, &names);
    return err_rbac_permission_denied(c->arena, permission,
                                      arena_printf(c->arena, "No permission in user session. (Roles with this permission: %s)",
                                                   names.bytes != NULL ? names.bytes : ""));
}

char *rbac_permission(struct arena *a, const char *full_name)
{
    char *s = arena_strdup(a, full_name);

    for (char *p = s; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    return s;
}

const char *rbac_role_ref(const char *name)
{
    static const char *const refs[N_ROLES] = {
        "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba", "OpaqueRef:b9ce9791-0604-50cd-0649-09b3284c7dfd",
        "OpaqueRef:7955168d-7bec-10ed-105f-c6a7e6e63249", "OpaqueRef:aaa00ab5-7340-bfbc-0d1b-7cf342639a6e",
        "OpaqueRef:fb8d4ff9-310c-a959-0613-54101535d3d5", "OpaqueRef:2c42debf-c64a-2ecd-f674-3350f06409f7",
        "OpaqueRef:7233b8e3-eacb-d7da-2c95-f2e581cdbf4e",
    };

    for (unsigned i = 0; i < N_ROLES; i++)
        if (strcmp(role_names[i], name) == 0)
            return refs[i];
    return NULL;
}

unsigned rbac_role_bit(const char *ref)
{
    for (unsigned i = 0; i < N_ROLES; i++)
        if (strncmp(ref, "OpaqueRef:", 10) == 0 && strcmp(ref + 10, role_uuids[i]) == 0)
            return 1u << i;
    return 0;
}

/* A message's mask already names the stronger roles, so a subject needs only its own bits. */
unsigned rbac_roles_of(const struct value *role_refs)
{
    unsigned roles = 0;

    for (uint32_t i = 0; i < role_refs->len; i++)
        roles |= rbac_role_bit(role_refs->items[i].s);
    return roles;
}

static int by_text(const void *a, const void *b)
{
    const struct value *x = a, *y = b;

    return strcmp(x->s, y->s);
}

struct list_ctx { struct arena *arena; struct value_list list; unsigned roles; };

static void permission_add(void *ctx, const struct generic_method *m)
{
    struct list_ctx *l = ctx;

    if ((m->roles & l->roles) == 0)
        return;
    char *permission = rbac_permission(l->arena, m->name);
    value_list_add(l->arena, &l->list, value_string(permission));
    if (m->field == NULL || m->field->protected_keys == NULL)
        return;
    for (const struct protected_key *k = m->field->protected_keys; k->key != NULL; k++)
        if (k->roles & l->roles)
            value_list_add(l->arena, &l->list, value_string(rbac_permission(l->arena, arena_printf(l->arena, "%s/key:%s", m->name, k->key))));
}

struct value rbac_permissions(struct arena *a, unsigned roles)
{
    struct list_ctx l = { .arena = a, .roles = roles };

    generic_each_method(a, permission_add, &l);
    if (roles & (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR))
        value_list_add(a, &l.list, value_string("task.destroy/any"));
    if (l.list.n > 0)
        qsort(l.list.items, l.list.n, sizeof(*l.list.items), by_text);
    return value_list_value(&l.list);
}

struct find_ctx { struct arena *arena; const char *permission; unsigned roles; };

static void permission_match(void *ctx, const struct generic_method *m)
{
    struct find_ctx *f = ctx;

    if (strcasecmp(m->name, f->permission) == 0)
        f->roles = m->roles;
}

unsigned rbac_roles_with(const char *permission)
{
    AUTO_ARENA a = arena_new();
    struct find_ctx f = { .arena = a, .permission = permission };

    if (strcmp(permission, "task.destroy/any") == 0)
        return ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR;
    generic_each_method(a, permission_match, &f);
    return f.roles;
}
