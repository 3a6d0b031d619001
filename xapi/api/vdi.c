/* Virtual disks: making, entering and removing them; their fields. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/allowed.h"
#include "xapi/core/operations.h"
#include "xapi/core/vdi_reset.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* --- create, destroy, forget ------------------------------------------------------------------------------------ */
/* The image format that sm_config asks for. */
static struct error *wanted_format(struct api_call *c, const struct value *record, const char **format_r)
{
    *format_r = value_get_string(value_get(record, "sm_config"), "type", "");
    if ((*format_r)[0] == '\0' || one_of(*format_r, LIST("raw", "vhd", "qcow2")))
        return NULL;
    return err_invalid_value(c->arena, "sm_config:type", *format_r);
}

struct error *api_VDI_create(struct api_call *c, const struct api_VDI_create_args *a, struct value *result_r)
{
    struct vdi_plan plan = {
        .sr = value_get_string(a->record, "SR", ""),
        .size = value_get_int(a->record, "virtual_size", 0),
        .chosen = a->record,
    };
    const char *host, *ref;

    if (strcmp(value_get_string(a->record, "type", ""), "cbt_metadata") == 0)
        return err_vdi_incompatible_type(c->arena, "", "cbt_metadata");
    TRY(sr_host(c, plan.sr, &host));
    TRY(wanted_format(c, a->record, &plan.format));
    TRY(vdi_make(c, &plan, &ref));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_VDI_destroy(struct api_call *c, const struct api_VDI_destroy_args *a, struct value *result_r)
{
    const struct row *vdi;
    const char *host;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->self, &vdi));
    TRY(sr_host(c, row_string(vdi, F_VDI_SR), &host));
    TRY(vdi_must_be_managed(c, vdi));
    TRY(vdi_reset_forget(c, a->self));
    return vdi_unmake(c, a->self);
}

struct error *api_VDI_forget(struct api_call *c, const struct api_VDI_forget_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vdi;

    TRY(txn_need(txn, CLASS_VDI, a->vdi, &vdi));
    TRY(vdi_row_destroy(txn, vdi));
    return txn_commit(txn, NULL);
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
    vdi_changed(c, NULL, a->SR);
    *result_r = value_string(ref);
    return NULL;
}

/* --- fields ------------------------------------------------------------------------------------------------------ */
struct error *api_VDI_update(struct api_call *c, const struct api_VDI_update_args *a, struct value *result_r)
{
    return vdi_refresh(c, a->vdi);
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

struct error *api_VDI_set_allow_caching(struct api_call *c, const struct api_VDI_set_allow_caching_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_VDI, a->self, F_VDI_allow_caching, value_bool(a->value));
}
