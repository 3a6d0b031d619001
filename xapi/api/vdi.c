/* Virtual disks: making and removing them. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/agent.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(vdi_api);

/* The SR's sizes after a change; the change itself stands whatever comes of this. */
static void sizes_follow(struct api_call *c, const char *sr_ref)
{
    struct error *error = sr_sizes_refresh(c, sr_ref);

    if (error != NULL)
        log_warn("sizes of SR %s: %s", sr_ref, error_text(c->arena, error));
}

static struct error *row_write(struct api_call *c, const char *sr_ref, const struct value *stat, const struct value *chosen, const char **ref_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(vdi_row_create(c, txn, sr_ref, stat, chosen, ref_r));
    return txn_commit(txn, NULL);
}

static void medium_undo(struct api_call *c, const char *host, const char *sr_uuid, const struct value *stat)
{
    const struct member members[] = {
        member_of("sr", value_string(sr_uuid)),
        member_of("location", value_string(value_get_string(stat, "location", ""))),
    };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;
    struct error *error = agent_call(c, host, "vdi.destroy", &args, &ignored);

    if (error != NULL)
        log_err("a disk without a row is left in SR %s: %s", sr_uuid, error_text(c->arena, error));
}

struct error *api_VDI_create(struct api_call *c, const struct api_VDI_create_args *a, struct value *result_r)
{
    const char *sr_ref = value_get_string(a->record, "SR", ""), *host, *ref;
    const struct row *sr;
    struct value stat;
    struct error *error;

    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    TRY(operation_begin(c, CLASS_SR, sr_ref, "vdi_create", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, "vdi_create" };
    TRY(sr_host(c, sr_ref, &host));
    const struct member members[] = {
        member_of("sr", value_string(row_string(sr, F_SR_uuid))),
        member_of("uuid", value_string(uuid_make(c->arena))),
        member_of("size", value_int(value_get_int(a->record, "virtual_size", 0))),
        member_of("format", value_string(value_get_string(value_get(a->record, "sm_config"), "type", ""))),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    TRY(storage_error(c, agent_call(c, host, "vdi.create", &args, &stat), sr_ref, NULL));
    error = row_write(c, sr_ref, &stat, a->record, &ref);
    if (error != NULL) {
        medium_undo(c, host, row_string(sr, F_SR_uuid), &stat);
        return error;
    }
    sizes_follow(c, sr_ref);
    *result_r = value_string(ref);
    return NULL;
}

static struct error *row_remove(struct api_call *c, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vdi;

    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    TRY(vdi_row_destroy(txn, vdi));
    return txn_commit(txn, NULL);
}

struct error *api_VDI_destroy(struct api_call *c, const struct api_VDI_destroy_args *a, struct value *result_r)
{
    const struct row *vdi;
    const char *sr_ref;
    struct value ignored;
    struct error *error;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->self, &vdi));
    sr_ref = row_string(vdi, F_VDI_SR);
    TRY(operation_begin(c, CLASS_SR, sr_ref, "vdi_destroy", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, "vdi_destroy" };
    error = vdi_verb(c, vdi, "vdi.destroy", NULL, &ignored);
    if (error != NULL && !error_is(error, "VDI_MISSING"))
        return error;
    TRY(row_remove(c, a->self));
    sizes_follow(c, sr_ref);
    return NULL;
}

struct error *api_VDI_forget(struct api_call *c, const struct api_VDI_forget_args *a, struct value *result_r)
{
    return row_remove(c, a->vdi);
}

/* --- introduce ------------------------------------------------------------------------------------------------ */
static struct error *location_free(struct api_call *c, const struct row *sr, const char *location)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi != NULL && strcmp(row_string(vdi, F_VDI_location), location) == 0)
            return err_location_not_unique(c->arena, sr->ref, location);
    }
    return NULL;
}

static struct value introduced(struct arena *arena, const struct api_VDI_introduce_args *a)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "name_label", value_string(a->name_label));
    value_dict_add(arena, &d, "name_description", value_string(a->name_description));
    value_dict_add(arena, &d, "type", value_string(a->type));
    value_dict_add(arena, &d, "sharable", value_bool(a->sharable));
    value_dict_add(arena, &d, "read_only", value_bool(a->read_only));
    value_dict_add(arena, &d, "other_config", *a->other_config);
    value_dict_add(arena, &d, "xenstore_data", *a->xenstore_data);
    value_dict_add(arena, &d, "sm_config", *a->sm_config);
    return value_dict_value(&d);
}

static struct error *introduce_row(struct api_call *c, const struct api_VDI_introduce_args *a, struct value stat, const char **ref_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    struct value chosen = introduced(c->arena, a);
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < stat.len; i++)
        value_dict_add(c->arena, &d, stat.members[i].name, stat.members[i].value);
    if (a->uuid[0] != '\0')
        value_dict_set(c->arena, &d, "uuid", value_string(a->uuid));
    stat = value_dict_value(&d);
    TRY(vdi_row_create(c, txn, a->SR, &stat, &chosen, ref_r));
    TRY(txn_set_bool(txn, CLASS_VDI, *ref_r, F_VDI_managed, a->managed));
    TRY(txn_set_bool(txn, CLASS_VDI, *ref_r, F_VDI_is_a_snapshot, a->is_a_snapshot));
    if (a->is_a_snapshot) {
        TRY(txn_set(txn, CLASS_VDI, *ref_r, F_VDI_snapshot_time, value_datetime(a->snapshot_time)));
        TRY(txn_set_string(txn, CLASS_VDI, *ref_r, F_VDI_snapshot_of, a->snapshot_of));
    }
    return txn_commit(txn, NULL);
}

struct error *api_VDI_introduce(struct api_call *c, const struct api_VDI_introduce_args *a, struct value *result_r)
{
    const char *location = a->location[0] != '\0' ? a->location : a->uuid, *host, *ref;
    const struct row *sr;
    struct value stat;
    struct error *error;

    if (a->uuid[0] != '\0' && !uuid_valid(a->uuid))
        return err_uuid_invalid(c->arena, "VDI", a->uuid);
    TRY(db_need(c->db, c->arena, CLASS_SR, a->SR, &sr));
    TRY(operation_begin(c, CLASS_SR, a->SR, "vdi_introduce", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, a->SR, "vdi_introduce" };
    TRY(location_free(c, sr, location));
    TRY(sr_host(c, a->SR, &host));
    const struct member members[] = {
        member_of("sr", value_string(row_string(sr, F_SR_uuid))),
        member_of("location", value_string(location)),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    error = storage_error(c, agent_call(c, host, "vdi.stat", &args, &stat), a->SR, NULL);
    if (error_is(error, "VDI_MISSING"))
        return err_vdi_location_missing(c->arena, a->SR, location);
    TRY(error);
    TRY(introduce_row(c, a, stat, &ref));
    sizes_follow(c, a->SR);
    *result_r = value_string(ref);
    return NULL;
}

/* --- fields ------------------------------------------------------------------------------------------------------ */
static struct error *sizes_write(struct api_call *c, const char *vdi_ref, const struct value *stat)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_int(txn, CLASS_VDI, vdi_ref, F_VDI_virtual_size, value_get_int(stat, "virtual_size", 0)));
    TRY(txn_set_int(txn, CLASS_VDI, vdi_ref, F_VDI_physical_utilisation, value_get_int(stat, "physical_utilisation", 0)));
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_missing, false));
    return txn_commit(txn, NULL);
}

struct error *api_VDI_update(struct api_call *c, const struct api_VDI_update_args *a, struct value *result_r)
{
    const struct row *vdi;
    struct value stat;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi, &vdi));
    TRY(vdi_verb(c, vdi, "vdi.stat", NULL, &stat));
    return sizes_write(c, a->vdi, &stat);
}

struct error *api_VDI_resize(struct api_call *c, const struct api_VDI_resize_args *a, struct value *result_r)
{
    const struct row *vdi;
    const struct member members[] = { member_of("size", value_int(a->size)) };
    struct value more = value_map(members, 1), stat;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi, &vdi));
    TRY(operation_begin(c, CLASS_SR, row_string(vdi, F_VDI_SR), "vdi_resize", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, row_string(vdi, F_VDI_SR), "vdi_resize" };
    TRY(vdi_verb(c, vdi, "vdi.resize", &more, &stat));
    TRY(sizes_write(c, a->vdi, &stat));
    sizes_follow(c, row_string(vdi, F_VDI_SR));
    return NULL;
}

struct error *api_VDI_set_name_label(struct api_call *c, const struct api_VDI_set_name_label_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_VDI, a->self, F_VDI_name_label, value_string(a->value));
}

struct error *api_VDI_set_name_description(struct api_call *c, const struct api_VDI_set_name_description_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_VDI, a->self, F_VDI_name_description, value_string(a->value));
}

struct error *api_VDI_set_read_only(struct api_call *c, const struct api_VDI_set_read_only_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_VDI, a->self, F_VDI_read_only, value_bool(a->value));
}

struct error *api_VDI_set_sharable(struct api_call *c, const struct api_VDI_set_sharable_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_VDI, a->self, F_VDI_sharable, value_bool(a->value));
}
