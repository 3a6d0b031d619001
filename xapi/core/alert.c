#include "xapi/core/alert.h"

#include <string.h>

#include "rpc/base/log.h"

LOG_MODULE(alert);

#define PRIORITY_UNKNOWN 5

static int64_t priority_of(const char *name)
{
    for (unsigned i = 0; i < model_n_alerts; i++)
        if (strcmp(model_alerts[i].name, name) == 0)
            return model_alerts[i].priority;
    return PRIORITY_UNKNOWN;
}

/* Rows come in order of creation: the first ones are the oldest. */
static struct error *make_room(struct xapi *xapi, struct txn *txn)
{
    unsigned limit = (unsigned)config_int(xapi->config, "messages-limit");

    if (db_count(xapi->db, &model_classes[CLASS_message]) < limit)
        return NULL;
    struct row_list all = txn_all(txn, &model_classes[CLASS_message]);
    for (unsigned i = 0; i < all.n && all.n - i >= limit; i++)
        TRY(txn_delete(txn, CLASS_message, all.rows[i]->ref));
    return NULL;
}

struct error *message_create(struct xapi *xapi, struct arena *a, const char *name, int64_t priority, const char *cls,
                             const char *obj_uuid, const char *body, const char **ref_r)
{
    const struct field_value fields[] = {
        { F_message_name, value_string(name) },
        { F_message_priority, value_int(priority) },
        { F_message_cls, value_string(cls) },
        { F_message_obj_uuid, value_string(obj_uuid) },
        { F_message_timestamp, value_datetime(clock_wall(xapi->clock)) },
        { F_message_body, value_string(body) },
    };
    AUTO_TXN txn = txn_begin(xapi->db, a);
    const char *ref;

    TRY(make_room(xapi, txn));
    TRY(txn_create(txn, CLASS_message, NULL, NULL, fields, ARRAY_LEN(fields), &ref));
    TRY(txn_commit(txn, NULL));
    if (ref_r != NULL)
        *ref_r = ref;
    return NULL;
}

void message_post(struct xapi *xapi, const char *name, const char *cls, const char *obj_uuid, const char *body)
{
    AUTO_ARENA a = arena_new();
    struct error *e = message_create(xapi, a, name, priority_of(name), cls, obj_uuid, body, NULL);

    if (e != NULL)
        log_warn_rl("alert %s about %s %s is lost: %s", name, cls, obj_uuid, error_text(a, e));
}
