/* Blobs: named data of clients; what they hold comes and goes by PUT and GET /blob. */
#include "xapi/metadata/vm_files.h"

static struct error *make(struct api_call *c, struct txn *txn, const char *name, const char *mime_type, bool public, const char **ref_r)
{
    const struct field_value fields[] = {
        { F_blob_name_label, value_string(name) },
        { F_blob_mime_type, value_string(mime_type[0] != '\0' ? mime_type : "application/octet-stream") },
        { F_blob_public, value_bool(public) },
        { F_blob_last_updated, value_datetime(clock_wall(c->call.clock)) },
    };
    return txn_create(txn, CLASS_blob, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

struct error *api_blob_create(struct api_call *c, const struct api_blob_create_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *ref;

    TRY(make(c, txn, "", a->mime_type, a->public, &ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_blob_destroy(struct api_call *c, const struct api_blob_destroy_args *a, struct value *result_r)
{
    TRY(db_delete(c->db, c->arena, CLASS_blob, a->self));
    vm_file_remove(c, VM_FILE_BLOB, a->self);
    return NULL;
}

/* --- of an object: by name in its map ----------------------------------------------------------------------------- */
static struct error *attach(struct api_call *c, unsigned class_id, const char *owner, unsigned field, const char *name, const char *mime_type, bool public,
                            struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *ref;

    TRY(make(c, txn, name, mime_type, public, &ref));
    TRY(txn_map_add(txn, class_id, owner, field, name, value_string(ref)));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_VM_create_new_blob(struct api_call *c, const struct api_VM_create_new_blob_args *a, struct value *result_r)
{
    return attach(c, CLASS_VM, a->vm, F_VM_blobs, a->name, a->mime_type, a->public, result_r);
}

struct error *api_host_create_new_blob(struct api_call *c, const struct api_host_create_new_blob_args *a, struct value *result_r)
{
    return attach(c, CLASS_host, a->host, F_host_blobs, a->name, a->mime_type, a->public, result_r);
}

struct error *api_SR_create_new_blob(struct api_call *c, const struct api_SR_create_new_blob_args *a, struct value *result_r)
{
    return attach(c, CLASS_SR, a->sr, F_SR_blobs, a->name, a->mime_type, a->public, result_r);
}

struct error *api_network_create_new_blob(struct api_call *c, const struct api_network_create_new_blob_args *a, struct value *result_r)
{
    return attach(c, CLASS_network, a->network, F_network_blobs, a->name, a->mime_type, a->public, result_r);
}

struct error *api_pool_create_new_blob(struct api_call *c, const struct api_pool_create_new_blob_args *a, struct value *result_r)
{
    return attach(c, CLASS_pool, a->pool, F_pool_blobs, a->name, a->mime_type, a->public, result_r);
}
