/* GET /export_metadata and PUT /import_metadata. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/rbac.h"
#include "xapi/core/xapi.h"
#include "xapi/metadata/http_job.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/ova.h"

#define VM_ADMINS (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN | ROLE_VM_ADMIN)
#define MIGRATORS (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN)
#define TAIL_MAX ((size_t)1 << 20) /* of an archive, behind ova.xml */
#define TAIL_MS 200

/* --- export ------------------------------------------------------------------------------------------------------- */
static bool is_default(const struct row *vm)
{
    return row_bool(vm, F_VM_is_default_template) ||
           (row_bool(vm, F_VM_is_a_template) && strcmp(row_map(vm, F_VM_other_config, "default_template", ""), "true") == 0);
}

static void add_all(struct http_job *j, struct value_list *vms)
{
    bool dom0 = http_job_flag(j, "include_dom0", true);
    struct row_list all = db_all(j->c.db, j->c.arena, &model_classes[CLASS_VM]);

    for (unsigned i = 0; i < all.n; i++)
        if (!is_default(all.rows[i]) && !row_bool(all.rows[i], F_VM_is_a_snapshot) && (dom0 || !row_bool(all.rows[i], F_VM_is_control_domain)))
            value_list_add(j->c.arena, vms, value_string(all.rows[i]->ref));
}

static struct error *add_named(struct http_job *j, struct value_list *vms)
{
    static const char *const keys[] = { "ref", "uuid" };
    const struct row *vm;

    for (unsigned k = 0; k < ARRAY_LEN(keys); k++) {
        struct value names = http_job_parameters(j, keys[k]);
        for (unsigned i = 0; i < names.len; i++) {
            const char *name = names.members[i].value.s;
            if (names.members[i].name_len > 0)
                continue;
            if (k == 0)
                TRY(db_need(j->c.db, j->c.arena, CLASS_VM, name, &vm));
            else if ((vm = db_by_uuid(j->c.db, j->c.arena, &model_classes[CLASS_VM], name)) == NULL)
                return err_uuid_invalid(j->c.arena, "VM", name);
            if (row_bool(vm, F_VM_is_a_snapshot))
                return err_operation_not_allowed(j->c.arena, "Exporting metadata of a snapshot is not allowed");
            value_list_add(j->c.arena, vms, value_string(vm->ref));
        }
    }
    return vms->n > 0 ? NULL : err_internal(j->c.arena, "the request names no VM");
}

static struct error *write_marked(struct http_job *j, const struct metadata_export *out)
{
    if (out->n_vms != 1)
        return metadata_write(&j->c, out, &j->body);
    TRY(operation_begin(&j->c, CLASS_VM, out->vms[0], "metadata_export", true));
    OPERATION_SCOPE scope = { &j->c, CLASS_VM, out->vms[0], "metadata_export" };
    return metadata_write(&j->c, out, &j->body);
}

static struct error *export_run(struct http_job *j)
{
    struct value_list list = { 0 };

    if (http_job_flag(j, "all", false))
        add_all(j, &list);
    else
        TRY(add_named(j, &list));
    const char **vms = arena_calloc(j->c.arena, list.n + 1u, sizeof(*vms));
    for (unsigned i = 0; i < list.n; i++)
        vms[i] = list.items[i].s;
    const struct metadata_export out = {
        .vms = vms,
        .n_vms = list.n,
        .snapshots = http_job_flag(j, "export_snapshots", true),
        .preserve_power_state = true, /* as xapi: the file says what the VM does; the import decides */
        .include_vhd_parents = http_job_flag(j, "include_vhd_parents", false),
        .excluded = http_job_parameter(j, "excluded_device_types"),
    };
    j->type = "application/octet-stream";
    j->file_name = "export.xva";
    return write_marked(j, &out);
}

/* --- import ------------------------------------------------------------------------------------------------------- */
/* ova.xml and its header; the rest of the archive is dropped. */
static struct error *receive(struct http_job *j, struct text *tar)
{
    char header[OVA_BLOCK];
    bool ended;
    size_t len;

    TRY(http_job_body(j));
    TRY(http_job_read(j, header, sizeof(header), &ended));
    if (ended)
        return err_import_error_premature_eof(j->c.arena);
    TRY(ova_tar_header(j->c.arena, header, &len));
    text_add_len(tar, header, sizeof(header));
    text_grow(tar, len);
    TRY(http_job_read(j, tar->bytes + tar->len, len, &ended));
    if (ended)
        return err_import_error_premature_eof(j->c.arena);
    tar->len += len;
    tar->bytes[tar->len] = '\0';
    http_job_skip(j, TAIL_MAX, TAIL_MS);
    return NULL;
}

/* The host that a live import is for: by ref or uuid, else this one. */
static struct error *host_of(struct http_job *j, bool live, const char **host_r)
{
    const char *name = http_job_parameter(j, "host");
    const struct row *host;

    *host_r = NULL;
    if (name == NULL && !live)
        return NULL;
    if (name == NULL || uuid_valid(name)) {
        name = name != NULL ? name : j->xapi->host_uuid;
        host = db_by_uuid(j->c.db, j->c.arena, &model_classes[CLASS_host], name);
        if (host == NULL)
            return err_uuid_invalid(j->c.arena, "host", name);
    } else
        TRY(db_need(j->c.db, j->c.arena, CLASS_host, name, &host));
    *host_r = host->ref;
    return NULL;
}

static struct error *import_run(struct http_job *j)
{
    struct value map = http_job_parameters(j, "vdi:");
    struct metadata_import in = {
        .restore = http_job_flag(j, "restore", false),
        .force = http_job_flag(j, "force", false),
        .dry_run = http_job_flag(j, "dry_run", false),
        .live = http_job_flag(j, "live", false),
        .check_cpu = http_job_flag(j, "check_cpu", false),
        .snapshots = http_job_flag(j, "export_snapshots", true),
        .incoming = http_query(j->c.arena, http_request(j->x), "incoming"),
        .vdi_map = &map,
    };
    struct value_list made = { 0 };
    const char *const *vms;
    AUTO_TEXT tar = TEXT_INIT;
    unsigned n;

    if (in.incoming != NULL) /* a migration: who may not migrate, may not bring one either */
        TRY(rbac_need(&j->c, MIGRATORS, j->kind->permission));
    TRY(host_of(j, in.live, &in.host));
    TRY(receive(j, &tar));
    TRY(metadata_read(&j->c, &in, tar.bytes, tar.len, &vms, &n));
    for (unsigned i = 0; i < n; i++)
        value_list_add(j->c.arena, &made, value_string(vms[i]));
    j->result = value_list_value(&made);
    return NULL;
}

/* --- routes ----------------------------------------------------------------------------------------------------------- */
void metadata_http_export(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/get_export_metadata", VM_ADMINS, "VM.export_metadata", false, export_run };
    http_job_start(x, xapi, &kind);
}

void metadata_http_import(struct http_exchange *x, void *xapi)
{
    static const struct http_job_kind kind = { "http/put_import_metadata", VM_ADMINS, "VM.metadata_import", false, import_run };
    http_job_start(x, xapi, &kind);
}
