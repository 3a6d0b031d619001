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

struct error *api_VM_create_new_blob(struct api_call *c, const struct api_VM_create_new_blob_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *ref;

    TRY(make(c, txn, a->name, a->mime_type, a->public, &ref));
    TRY(txn_map_add(txn, CLASS_VM, a->vm, F_VM_blobs, a->name, value_string(ref)));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}
