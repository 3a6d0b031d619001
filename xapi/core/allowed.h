/* Which operations are valid on an object now: one checker a class (specs §2). Private to operations. */
#ifndef XAPI_CORE_ALLOWED_H
#define XAPI_CORE_ALLOWED_H

#include "xapi/core/api_call.h"

/* First failing rule wins; reads inside the transaction; changes nothing. */
typedef struct error *operation_check_fn(struct api_call *, struct txn *, const struct row *, const char *operation, bool strict);

struct operation_rules {
    unsigned class_id;
    unsigned current_field, allowed_field;
    operation_check_fn *check;
    /* true: may stand in allowed_operations at all */
    bool (*published)(struct api_call *, const struct row *, const char *operation);
};
extern const struct operation_rules allowed_vm, allowed_host, allowed_vdi, allowed_vbd, allowed_vif, allowed_sr, allowed_pool, allowed_task;

/* OTHER_OPERATION_IN_PROGRESS [class; object; op; task] over all current operations: with several, the
 * last two are "{a; b}" lists joined by 'separator' when braces are asked for. */
struct error *allowed_conflict(struct api_call *, const char *class_name, const struct row *, const struct value *current, const char *separator, bool always_braces,
                               const char *(*spelling)(const char *));

/* The two strings are equal, or the second is one of a NULL-terminated list. */
bool one_of(const char *s, const char *const *list);

#endif
