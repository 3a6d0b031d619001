/* Scanning an SR: its rows become what its medium holds. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/agent.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"

#define FIELD(class_field, v) { F_##class_field, v }

static const struct value *find_location(const struct value *stats, const char *location)
{
    for (unsigned i = 0; i < stats->len; i++)
        if (strcmp(value_get_string(&stats->items[i], "location", ""), location) == 0)
            return &stats->items[i];
    return NULL;
}

static bool row_exists(struct txn *txn, const struct row *sr, const char *location)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi != NULL && strcmp(row_string(vdi, F_VDI_location), location) == 0)
            return true;
    }
    return false;
}

static struct error *introduce(struct api_call *c, struct txn *txn, const char *sr_ref, const struct value *stat)
{
    struct value_dict sm_config = { 0 };
    const char *uuid = value_get_string(stat, "uuid", ""), *ref;

    value_dict_add(c->arena, &sm_config, "type", value_string(value_get_string(stat, "format", "raw")));
    const struct field_value fields[] = {
        FIELD(VDI_name_label, value_string(value_get_string(stat, "name", ""))),
        FIELD(VDI_SR, value_string(sr_ref)),
        FIELD(VDI_virtual_size, value_int(value_get_int(stat, "virtual_size", 0))),
        FIELD(VDI_physical_utilisation, value_int(value_get_int(stat, "physical_utilisation", 0))),
        FIELD(VDI_type, value_string("user")),
        FIELD(VDI_read_only, value_bool(value_get_bool(stat, "read_only", false))),
        FIELD(VDI_location, value_string(value_get_string(stat, "location", ""))),
        FIELD(VDI_managed, value_bool(true)),
        FIELD(VDI_sm_config, value_dict_value(&sm_config)),
        FIELD(VDI_is_a_snapshot, value_bool(value_get_bool(stat, "is_a_snapshot", false))),
    };
    if (uuid[0] != '\0' && txn_by_uuid(txn, &model_classes[CLASS_VDI], uuid) != NULL)
        uuid = ""; /* the same disk in another SR: a copy of a medium */
    TRY(txn_create(txn, CLASS_VDI, NULL, uuid[0] == '\0' ? NULL : uuid, fields, ARRAY_LEN(fields), &ref));
    return operations_update(c, txn, CLASS_VDI, ref);
}

static struct error *row_follow(struct txn *txn, const struct row *sr, const struct row *vdi, const struct value *stat)
{
    if (stat == NULL && strcmp(row_string(sr, F_SR_content_type), "iso") == 0 && row_value(vdi, F_VDI_VBDs)->len == 0)
        return txn_delete(txn, CLASS_VDI, vdi->ref);
    TRY(txn_set_bool(txn, CLASS_VDI, vdi->ref, F_VDI_missing, stat == NULL));
    if (stat == NULL)
        return NULL;
    TRY(txn_set_int(txn, CLASS_VDI, vdi->ref, F_VDI_virtual_size, value_get_int(stat, "virtual_size", 0)));
    return txn_set_int(txn, CLASS_VDI, vdi->ref, F_VDI_physical_utilisation, value_get_int(stat, "physical_utilisation", 0));
}

static struct error *rows_follow(struct api_call *c, const char *sr_ref, const struct value *stats)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;
    const struct value *vdis;

    TRY(txn_need(txn, CLASS_SR, sr_ref, &sr));
    vdis = row_value(sr, F_SR_VDIs);
    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi != NULL)
            TRY(row_follow(txn, sr, vdi, find_location(stats, row_string(vdi, F_VDI_location))));
    }
    for (unsigned i = 0; i < stats->len; i++)
        if (!row_exists(txn, sr, value_get_string(&stats->items[i], "location", "")))
            TRY(introduce(c, txn, sr_ref, &stats->items[i]));
    return txn_commit(txn, NULL);
}

struct error *sr_rescan(struct api_call *c, const char *sr_ref)
{
    const struct row *sr;
    const char *host;
    struct value_dict args = { 0 };
    struct value value, stats;

    TRY(sr_host(c, sr_ref, &host));
    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    value_dict_add(c->arena, &args, "uuid", value_string(row_string(sr, F_SR_uuid)));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, host, "sr.scan", &value, &stats), sr_ref, NULL));
    if (stats.kind == VALUE_SET)
        TRY(rows_follow(c, sr_ref, &stats));
    return sr_sizes_refresh(c, sr_ref);
}
