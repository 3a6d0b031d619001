/* Who may do what: roles, permissions, and the rows that show them to clients.
 *
 * A session has a mask of roles, a message a mask of roles that may call it; the datamodel's masks
 * already contain the stronger roles. Local root, the Unix socket and pool peers are never asked. */
#ifndef XAPI_CORE_RBAC_H
#define XAPI_CORE_RBAC_H

#include "xapi/core/api_call.h"

/* Rows of class role for a fresh pool. */
NODISCARD struct error *rbac_create_roles(struct txn *);

/* RBAC_PERMISSION_DENIED [permission; text] unless the call's session has one of 'roles'. */
NODISCARD struct error *rbac_need(const struct api_call *c, unsigned roles, const char *permission);

/* "vm.start" of "VM.start", in the arena. */
char *rbac_permission(struct arena *, const char *full_name);

/* The ref of a role ("pool-admin"), NULL for an unknown name; and back: its bit, 0 if none. */
const char *rbac_role_ref(const char *name);
unsigned rbac_role_bit(const char *ref);
/* The mask of a set of role refs, each with what it includes. */
unsigned rbac_roles_of(const struct value *role_refs);
/* All permissions of a mask of roles, sorted: a set of strings in the arena. */
struct value rbac_permissions(struct arena *, unsigned roles);
/* The roles that have a permission; 0 if nobody has, or there is no such permission. */
unsigned rbac_roles_with(const char *permission);

#endif
