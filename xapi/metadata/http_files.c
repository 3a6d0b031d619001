/* PUT /rrd, GET /vm_rrd, PUT and GET /blob, PUT /messages: what goes with a VM besides its records.
 *
 * Messages come as an XML-RPC array of message records. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/rbac.h"
#include "xapi/core/xapi.h"
#include "xapi/metadata/http_job.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/ova.h"
#include "xapi/metadata/vm_files.h"

#define POWER_ADMINS (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN)
#define ANYBODY (~0u)
#define MESSAGES_BYTES_MAX ((size_t)16 << 20)
#define MESSAGES_MAX 10000u

/* --- RRDs ----------------------------------------------------------------------------------------------------------- */
static struct error *rrd_put_run(struct http_job *j)
{
    const struct row *vm;
    AUTO_TEXT body = TEXT_INIT;

    TRY(http_job_object(j, CLASS_VM, &vm));
    TRY(http_job_body(j));
    TRY(http_job_read_all(j, RRD_MAX, &body));
    return vm_file_write(&j->c, VM_FILE_RRD, row_string(vm, F_VM_uuid), body.bytes, body.len);
}

static struct error *rrd_get_run(struct http_job *j)
{
    const struct row *vm;
    const char *bytes;
    size_t len;
    bool found;

    TRY(http_job_object(j, CLASS_VM, &vm));
    TRY(vm_file_read(&j->c, VM_FILE_RRD, row_string(vm, F_VM_uuid), &bytes, &len, &found));
    if (!found)
        return err_handle_invalid(j->c.arena, "VM RRD", row_string(vm, F_VM_uuid));
    j->type = "application/gzip";
    text_add_len(&j->body, bytes, len);
    return NULL;
}

/* --- blobs ------------------------------------------------------------------------------------------------------------ */
static struct error *blob_put_run(struct http_job *j)
{
    struct api_call *c = &j->c;
    const struct row *blob;
    AUTO_TEXT body = TEXT_INIT;

    TRY(http_job_object(j, CLASS_blob, &blob));
    TRY(http_job_body(j));
    TRY(http_job_read_all(j, BLOB_MAX, &body));
    TRY(vm_file_write(c, VM_FILE_BLOB, blob->ref, body.bytes, body.len));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_int(txn, CLASS_blob, blob->ref, F_blob_size, (int64_t)body.len));
    TRY(txn_set(txn, CLASS_blob, blob->ref, F_blob_last_updated, value_datetime(clock_wall(c->call.clock))));
    return txn_commit(txn, NULL);
}

/* Public ones are for everybody; whether others exist is nobody's business without a session. */
static struct error *blob_get_run(struct http_job *j)
{
    const struct row *blob = NULL;
    const char *bytes;
    size_t len;
    bool found;
    struct error *e = http_job_object(j, CLASS_blob, &blob);

    if (!j->known && (e != NULL || !row_bool(blob, F_blob_public)))
        return err_session_invalid(j->c.arena, "");
    TRY(e);
    TRY(vm_file_read(&j->c, VM_FILE_BLOB, blob->ref, &bytes, &len, &found));
    const char *type = row_string(blob, F_blob_mime_type);
    j->type = type[0] != '\0' && strpbrk(type, "\r\n") == NULL ? arena_strdup(j->c.arena, type) : "application/octet-stream";
    if (found)
        text_add_len(&j->body, bytes, len);
    return NULL;
}

/* --- messages ------------------------------------------------------------------------------------------------------------ */
/* One that is known already is the same one. */
static struct error *add_message(struct http_job *j, struct txn *txn, const struct value *record, const char *cls, const char *uuid)
{
    const struct class_info *class = &model_classes[CLASS_message];
    const struct ova_object o = { .class_name = "message", .id = "", .record = record };
    const char *id = ova_string(&o, "uuid", ""), *ref;
    struct field_value fields[] = { { .field = F_message_name }, { .field = F_message_priority }, { .field = F_message_timestamp },
                                    { .field = F_message_body }, { F_message_cls, value_string(cls) }, { F_message_obj_uuid, value_string(uuid) } };

    for (unsigned i = 0; i < 4; i++)
        if (!ova_field(j->c.arena, &o, &class->fields[fields[i].field], &fields[i].value))
            return err_import_error(j->c.arena, arena_printf(j->c.arena, "a message without %s", class->fields[fields[i].field].name));
    if (uuid_valid(id) && txn_by_uuid(txn, class, id) != NULL)
        return NULL;
    return txn_create(txn, CLASS_message, NULL, uuid_valid(id) ? id : NULL, fields, ARRAY_LEN(fields), &ref);
}

static struct error *messages_run(struct http_job *j)
{
    const char *cls = http_job_parameter(j, "cls"), *uuid = http_job_parameter(j, "uuid");
    struct value list;
    AUTO_TEXT body = TEXT_INIT;

    if (cls == NULL || !model_enum_has(model_classes[CLASS_message].fields[F_message_cls].type->enum_info, cls))
        return err_value_not_supported(j->c.arena, "cls", cls != NULL ? cls : "", "no class of messages");
    if (uuid == NULL || !uuid_valid(uuid))
        return err_uuid_invalid(j->c.arena, cls, uuid != NULL ? uuid : "");
    TRY(http_job_body(j));
    TRY(http_job_read_all(j, MESSAGES_BYTES_MAX, &body));
    if (!xmlrpc_parse_fragment(j->c.arena, body.len > 0 ? body.bytes : "", body.len, &list) || list.kind != VALUE_SET || list.len > MESSAGES_MAX)
        return err_import_error(j->c.arena, "this is no list of messages");
    AUTO_TXN txn = txn_begin(j->c.db, j->c.arena);
    for (unsigned i = 0; i < list.len; i++)
        TRY(list.items[i].kind == VALUE_MAP ? add_message(j, txn, &list.items[i], cls, uuid) : err_import_error(j->c.arena, "this is no message"));
    return txn_commit(txn, NULL);
}

/* --- routes ------------------------------------------------------------------------------------------------------------------ */
/* xapi asks for pool-admin here; whoever may migrate a VM may bring its measurements, too. */
void metadata_http_rrd_put(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/put_rrd", POWER_ADMINS, NULL, false, rrd_put_run };
    http_job_start(x, xapi, &kind);
}

void metadata_http_rrd_get(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/get_vm_rrd", ANYBODY, NULL, false, rrd_get_run };
    http_job_start(x, xapi, &kind);
}

void metadata_http_blob_put(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/put_blob", POWER_ADMINS, NULL, false, blob_put_run };
    http_job_start(x, xapi, &kind);
}

void metadata_http_blob_get(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/get_blob", ANYBODY, NULL, true, blob_get_run };
    http_job_start(x, xapi, &kind);
}

void metadata_http_messages(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/put_messages", POWER_ADMINS, NULL, false, messages_run };
    http_job_start(x, xapi, &kind);
}
