#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/alert.h"
#include "xapi/core/query.h"

#define PRIORITY_MIN 1
#define PRIORITY_MAX 5

struct error *api_message_create(struct api_call *c, const struct api_message_create_args *a, struct value *result_r)
{
    const char *ref;

    if (a->priority < PRIORITY_MIN || a->priority > PRIORITY_MAX)
        return err_invalid_value(c->arena, "priority", arena_printf(c->arena, "%lld", (long long)a->priority));
    if (!uuid_valid(a->obj_uuid))
        return err_uuid_invalid(c->arena, a->cls, a->obj_uuid);
    TRY(message_create(c->xapi, c->arena, a->name, a->priority, a->cls, a->obj_uuid, a->body, &ref));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_message_destroy(struct api_call *c, const struct api_message_destroy_args *a, struct value *result_r)
{
    return db_delete(c->db, c->arena, CLASS_message, a->self);
}

struct error *api_message_destroy_many(struct api_call *c, const struct api_message_destroy_many_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    for (uint32_t i = 0; i < a->messages->len; i++)
        if (txn_get(txn, &model_classes[CLASS_message], a->messages->items[i].s) != NULL)
            TRY(txn_delete(txn, CLASS_message, a->messages->items[i].s));
    return txn_commit(txn, NULL);
}

struct selection { const char *cls, *obj_uuid; int64_t since; const struct query *where; };

static bool selected(const struct selection *s, const struct row *row)
{
    return (s->cls == NULL || strcmp(row_string(row, F_message_cls), s->cls) == 0) &&
           (s->obj_uuid == NULL || strcmp(row_string(row, F_message_obj_uuid), s->obj_uuid) == 0) &&
           row_int(row, F_message_timestamp) >= s->since && (s->where == NULL || query_matches(s->where, row));
}

static struct error *records(struct api_call *c, const struct selection *s, struct value *result_r)
{
    struct row_list all = db_all(c->db, c->arena, &model_classes[CLASS_message]);
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < all.n; i++)
        if (selected(s, all.rows[i]))
            value_dict_add(c->arena, &d, all.rows[i]->ref, value_record(&all.rows[i]->record));
    *result_r = value_dict_value(&d);
    return NULL;
}

struct error *api_message_get(struct api_call *c, const struct api_message_get_args *a, struct value *result_r)
{
    return records(c, &(struct selection){ .cls = a->cls, .obj_uuid = a->obj_uuid, .since = a->since }, result_r);
}

struct error *api_message_get_since(struct api_call *c, const struct api_message_get_since_args *a, struct value *result_r)
{
    return records(c, &(struct selection){ .since = a->since }, result_r);
}

struct error *api_message_get_all_records(struct api_call *c, const struct api_message_get_all_records_args *a, struct value *result_r)
{
    return records(c, &(struct selection){ .since = INT64_MIN }, result_r);
}

struct error *api_message_get_all_records_where(struct api_call *c, const struct api_message_get_all_records_where_args *a, struct value *result_r)
{
    struct query *where;

    TRY(query_parse(c->arena, &model_classes[CLASS_message], a->expr, &where));
    return records(c, &(struct selection){ .since = INT64_MIN, .where = where }, result_r);
}

struct error *api_message_get_all(struct api_call *c, const struct api_message_get_all_args *a, struct value *result_r)
{
    struct row_list all = db_all(c->db, c->arena, &model_classes[CLASS_message]);
    struct value_list list = { 0 };

    for (unsigned i = 0; i < all.n; i++)
        value_list_add(c->arena, &list, value_string(all.rows[i]->ref));
    *result_r = value_list_value(&list);
    return NULL;
}

struct error *api_message_get_record(struct api_call *c, const struct api_message_get_record_args *a, struct value *result_r)
{
    const struct row *row;

    TRY(db_need(c->db, c->arena, CLASS_message, a->self, &row));
    *result_r = value_record(&row->record);
    return NULL;
}

struct error *api_message_get_by_uuid(struct api_call *c, const struct api_message_get_by_uuid_args *a, struct value *result_r)
{
    const struct row *row = db_by_uuid(c->db, c->arena, &model_classes[CLASS_message], a->uuid);

    if (row == NULL)
        return err_uuid_invalid(c->arena, "message", a->uuid);
    *result_r = value_string(row->ref);
    return NULL;
}
