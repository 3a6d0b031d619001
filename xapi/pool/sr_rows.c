#include "xapi/pool/sr_rows.h"

#include <ctype.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "storage/sr_driver.h"
#include "xapi/core/operations.h"
#include "xapi/pool/host_record.h"

#define FIELD(class_field, v) { F_##class_field, v }

/* --- SM rows -------------------------------------------------------------------------------------------- */
const struct row *sm_of_type(struct txn *txn, const char *type)
{
    struct row_list rows = txn_all(txn, &model_classes[CLASS_SM]);

    for (unsigned i = 0; i < rows.n; i++)
        if (strcmp(row_string(rows.rows[i], F_SM_type), type) == 0)
            return rows.rows[i];
    return NULL;
}

const char *sr_type_lower(struct arena *arena, const char *type)
{
    char *lower = arena_strdup(arena, type);

    for (char *p = lower; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    return lower;
}

struct error *sr_driver_known(struct api_call *c, const char *type)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    return sm_of_type(txn, type) == NULL ? err_sr_unknown_driver(c->arena, type) : NULL;
}

bool sr_has_feature(struct txn *txn, const struct row *sr, const char *feature)
{
    const struct row *sm = sm_of_type(txn, row_string(sr, F_SR_type));
    const struct value *features = sm == NULL ? NULL : row_value(sm, F_SM_features);

    for (unsigned i = 0; features != NULL && i < features->len; i++)
        if (strcmp(features->members[i].name, feature) == 0)
            return true;
    return false;
}

static struct value feature_versions(struct arena *arena, const struct value *names)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < names->len; i++)
        value_dict_add(arena, &d, names->items[i].s, value_int(1));
    return value_dict_value(&d);
}

static struct value configuration(struct arena *arena, const struct sr_driver *driver)
{
    struct value_dict d = { 0 };

    for (const struct config_key *k = driver->config; k->name != NULL; k++)
        value_dict_add(arena, &d, k->name, value_string(k->help));
    return value_dict_value(&d);
}

static struct error *sm_row_update(struct txn *txn, struct arena *arena, const struct sr_driver *driver)
{
    const struct row *sm = sm_of_type(txn, driver->type);
    struct value capabilities = sr_driver_features(arena, driver->caps);
    struct value features = feature_versions(arena, &capabilities);
    const char *ref;
    const struct field_value fields[] = {
        FIELD(SM_name_label, value_string(driver->name)),
        FIELD(SM_name_description, value_string(driver->description)),
        FIELD(SM_type, value_string(driver->type)),
        FIELD(SM_vendor, value_string("xapi")),
        FIELD(SM_copyright, value_string("")),
        FIELD(SM_version, value_string("1.0")),
        FIELD(SM_required_api_version, value_string("1.0")),
        FIELD(SM_configuration, configuration(arena, driver)),
        FIELD(SM_capabilities, capabilities),
        FIELD(SM_features, features),
        FIELD(SM_driver_filename, value_string("")),
    };

    if (sm == NULL)
        return txn_create(txn, CLASS_SM, NULL, NULL, fields, ARRAY_LEN(fields), &ref);
    for (unsigned i = 0; i < ARRAY_LEN(fields); i++)
        TRY(txn_set(txn, CLASS_SM, sm->ref, fields[i].field, fields[i].value));
    return NULL;
}

struct error *sm_rows_update(struct txn *txn, struct arena *arena)
{
    struct row_list rows = txn_all(txn, &model_classes[CLASS_SM]);

    for (unsigned i = 0; i < rows.n; i++)
        if (sr_driver_find(row_string(rows.rows[i], F_SM_type)) == NULL)
            TRY(txn_delete(txn, CLASS_SM, rows.rows[i]->ref));
    for (unsigned i = 0; sr_drivers[i] != NULL; i++)
        TRY(sm_row_update(txn, arena, sr_drivers[i]));
    return NULL;
}

/* --- SR and PBD rows --------------------------------------------------------------------------------------- */
struct error *sr_row_create(struct txn *txn, const struct sr_row_spec *spec, const char **ref_r)
{
    const struct field_value fields[] = {
        FIELD(SR_name_label, value_string(spec->name_label)),
        FIELD(SR_name_description, value_string(spec->name_description)),
        FIELD(SR_type, value_string(spec->type)),
        FIELD(SR_content_type, value_string(spec->content_type)),
        FIELD(SR_shared, value_bool(spec->shared)),
        FIELD(SR_sm_config, spec->sm_config.kind == VALUE_MAP ? spec->sm_config : value_map(NULL, 0)),
        FIELD(SR_other_config, spec->other_config.kind == VALUE_MAP ? spec->other_config : value_map(NULL, 0)),
    };

    return txn_create(txn, CLASS_SR, NULL, spec->uuid, fields, ARRAY_LEN(fields), ref_r);
}

struct error *sr_row_destroy(struct txn *txn, const struct row *sr)
{
    const struct row *pool = pool_row(txn);
    static const unsigned pool_fields[] = { F_pool_default_SR, F_pool_suspend_image_SR, F_pool_crash_dump_SR };

    for (unsigned i = 0; pool != NULL && i < ARRAY_LEN(pool_fields); i++)
        if (strcmp(row_string(pool, pool_fields[i]), sr->ref) == 0)
            TRY(txn_set_string(txn, CLASS_pool, pool->ref, pool_fields[i], REF_NULL));
    for (unsigned i = 0; i < row_value(sr, F_SR_PBDs)->len; i++)
        TRY(txn_delete(txn, CLASS_PBD, row_value(sr, F_SR_PBDs)->items[i].s));
    for (unsigned i = 0; i < row_value(sr, F_SR_VDIs)->len; i++)
        TRY(txn_delete(txn, CLASS_VDI, row_value(sr, F_SR_VDIs)->items[i].s));
    return txn_delete(txn, CLASS_SR, sr->ref);
}

struct error *pbd_row_create(struct txn *txn, const char *host_ref, const char *sr_ref, const struct value *device_config, const char **ref_r)
{
    const struct field_value fields[] = {
        FIELD(PBD_host, value_string(host_ref)),
        FIELD(PBD_SR, value_string(sr_ref)),
        FIELD(PBD_device_config, *device_config),
        FIELD(PBD_currently_attached, value_bool(false)),
    };

    return txn_create(txn, CLASS_PBD, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

const struct row *pbd_of(struct txn *txn, const struct row *sr, const char *host_ref)
{
    const struct value *pbds = row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = txn_get(txn, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0)
            return pbd;
    }
    return NULL;
}

struct value sr_argument(struct arena *arena, const struct row *sr, const struct value *device_config)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "uuid", value_string(row_string(sr, F_SR_uuid)));
    value_dict_add(arena, &d, "type", value_string(row_string(sr, F_SR_type)));
    value_dict_add(arena, &d, "device_config", *device_config);
    value_dict_add(arena, &d, "shared", value_bool(row_bool(sr, F_SR_shared)));
    return value_dict_value(&d);
}
