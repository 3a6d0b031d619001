/* What follows a VM to another pool once it runs there: measurements, messages, blobs. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/internal_call.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/peer_http.h"
#include "xapi/metadata/vm_files.h"

LOG_MODULE(metadata);

static struct error *put(const struct peer_http *p, const char *path, const void *body, size_t len)
{
    int status = 0;

    TRY(peer_http_put(p, path, "", body, len, &status));
    return status < 300 ? NULL : err_internal(p->c->arena, "PUT %.*s: HTTP status %d", (int)strcspn(path, "?"), path, status);
}

/* --- measurements --------------------------------------------------------------------------------------------------- */
static struct error *send_rrd(const struct peer_http *p, const struct row *vm)
{
    const char *uuid = row_string(vm, F_VM_uuid), *bytes;
    size_t len;
    bool found;

    TRY(vm_file_read(p->c, VM_FILE_RRD, uuid, &bytes, &len, &found));
    if (!found)
        return NULL;
    TRY(put(p, arena_printf(p->c->arena, "/rrd?uuid=%s", uuid), bytes, len));
    vm_file_remove(p->c, VM_FILE_RRD, uuid);
    return NULL;
}

/* --- messages -------------------------------------------------------------------------------------------------------- */
static struct error *send_messages(const struct peer_http *p, const struct row *vm)
{
    struct api_call *c = p->c;
    const char *uuid = row_string(vm, F_VM_uuid);
    struct row_list all = db_all(c->db, c->arena, &model_classes[CLASS_message]);
    struct value_list records = { 0 }, refs = { 0 };
    AUTO_TEXT body = TEXT_INIT;

    for (unsigned i = 0; i < all.n; i++)
        if (strcmp(row_string(all.rows[i], F_message_cls), "VM") == 0 && strcmp(row_string(all.rows[i], F_message_obj_uuid), uuid) == 0) {
            value_list_add(c->arena, &records, value_record(&all.rows[i]->record));
            value_list_add(c->arena, &refs, value_string(all.rows[i]->ref));
        }
    if (refs.n == 0)
        return NULL;
    struct value list = value_list_value(&records);
    xmlrpc_write_value(&body, &list);
    TRY(put(p, arena_printf(c->arena, "/messages?cls=VM&uuid=%s", uuid), body.bytes, body.len));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    for (unsigned i = 0; i < refs.n; i++)
        if (txn_get(txn, &model_classes[CLASS_message], refs.items[i].s) != NULL)
            TRY(txn_delete(txn, CLASS_message, refs.items[i].s));
    return txn_commit(txn, NULL);
}

/* --- blobs ------------------------------------------------------------------------------------------------------------- */
static struct error *send_blob(const struct peer_http *p, const char *vm_there, const char *name, const struct row *blob)
{
    struct api_call *c = p->c;
    const struct value params[] = { value_string(vm_there), value_string(name), value_string(row_string(blob, F_blob_mime_type)),
                                    value_bool(row_bool(blob, F_blob_public)) };
    struct value made;
    const char *bytes;
    size_t len;
    bool found;

    TRY(peer_http_call(p, "VM.create_new_blob", params, ARRAY_LEN(params), &made));
    if (made.kind != VALUE_STRING)
        return err_internal(c->arena, "VM.create_new_blob of the other pool gave no blob");
    TRY(vm_file_read(c, VM_FILE_BLOB, blob->ref, &bytes, &len, &found));
    if (found)
        TRY(put(p, arena_printf(c->arena, "/blob?ref=%s", peer_http_encode(c->arena, made.s)), bytes, len));
    TRY(db_delete(c->db, c->arena, CLASS_blob, blob->ref));
    vm_file_remove(c, VM_FILE_BLOB, blob->ref);
    return NULL;
}

static struct error *send_blobs(const struct peer_http *p, const struct row *vm)
{
    const struct value *blobs = row_value(vm, F_VM_blobs);
    const struct value uuid = value_string(row_string(vm, F_VM_uuid));
    struct value there;

    if (blobs->len == 0)
        return NULL;
    TRY(peer_http_call(p, "VM.get_by_uuid", &uuid, 1, &there));
    for (unsigned i = 0; i < blobs->len; i++) {
        const struct row *blob = db_get(p->c->db, p->c->arena, &model_classes[CLASS_blob], blobs->members[i].value.s);
        if (blob != NULL)
            TRY(send_blob(p, there.kind == VALUE_STRING ? there.s : REF_NULL, blobs->members[i].name, blob));
    }
    return NULL;
}

void metadata_send_rest(struct api_call *c, const struct http_target *master, const char *session, const char *vm_ref)
{
    static const struct { const char *what; struct error *(*send)(const struct peer_http *, const struct row *); } rest[] = {
        { "measurements", send_rrd }, { "messages", send_messages }, { "blobs", send_blobs },
    };
    struct api_call calm = internal_call_cleanup(c); /* the VM is there: no going back */
    const struct peer_http p = { .c = &calm, .target = master, .session = session };
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);

    for (unsigned i = 0; vm != NULL && i < ARRAY_LEN(rest); i++) {
        struct error *e = rest[i].send(&p, vm);
        if (e != NULL)
            log_warn("the %s of VM %s stay behind: %s", rest[i].what, row_string(vm, F_VM_uuid), error_text(c->arena, e));
    }
}
