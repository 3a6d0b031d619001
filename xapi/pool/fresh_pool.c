#include "xapi/pool/fresh_pool.h"

#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "xapi/core/rbac.h"
#include "xapi/core/xapi.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/network_rows.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/templates.h"

#define FIELD(class_field, v) { F_##class_field, v }

static struct value map_of(struct arena *arena, const char *const pairs[][2], unsigned n)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < n; i++)
        value_dict_add(arena, &d, pairs[i][0], value_string(pairs[i][1]));
    return value_dict_value(&d);
}

static struct error *pool_row_create(struct txn *txn, struct arena *arena, const char *host_ref, const char **ref_r)
{
    const char *const other_config[][2] = { { "memory-ratio-hvm", "0.25" }, { "memory-ratio-pv", "0.25" }, { "auto_poweron", "false" } };
    const struct field_value fields[] = {
        FIELD(pool_name_label, value_string("")),
        FIELD(pool_master, value_string(host_ref)),
        FIELD(pool_default_SR, value_string(REF_NULL)),
        FIELD(pool_suspend_image_SR, value_string(REF_NULL)),
        FIELD(pool_crash_dump_SR, value_string(REF_NULL)),
        FIELD(pool_other_config, map_of(arena, other_config, ARRAY_LEN(other_config))),
        FIELD(pool_restrictions, license_restrictions(arena)),
        FIELD(pool_tls_verification_enabled, value_bool(true)),
    };

    return txn_create(txn, CLASS_pool, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

static struct error *local_sr_create(struct txn *txn, struct arena *arena, const char *host_ref, const char *pool_ref, const char *location)
{
    const char *const device_config[][2] = { { "location", location } };
    const char *const other_config[][2] = { { "i18n-key", "local-storage" }, { "i18n-original-value-name_label", "Local storage" } };
    struct value config = map_of(arena, device_config, ARRAY_LEN(device_config));
    const struct sr_row_spec spec = {
        .name_label = "Local storage",
        .name_description = "Disk images in a directory of this host",
        .type = "file",
        .content_type = "user",
        .other_config = map_of(arena, other_config, ARRAY_LEN(other_config)),
    };
    const char *sr, *pbd;

    TRY(sr_row_create(txn, &spec, &sr));
    TRY(pbd_row_create(txn, host_ref, sr, &config, &pbd));
    TRY(txn_set_string(txn, CLASS_pool, pool_ref, F_pool_default_SR, sr));
    TRY(txn_set_string(txn, CLASS_pool, pool_ref, F_pool_suspend_image_SR, sr));
    TRY(txn_set_string(txn, CLASS_host, host_ref, F_host_suspend_image_sr, sr));
    TRY(txn_set_string(txn, CLASS_host, host_ref, F_host_crash_dump_sr, sr));
    return txn_set_string(txn, CLASS_pool, pool_ref, F_pool_crash_dump_SR, sr);
}

/* The directory of the local SR, made; NULL when none is wanted. */
static struct error *local_sr_directory(struct api_call *c, const char **location_r)
{
    const char *given = config_string(c->xapi->config, "local-sr-path");
    int error;

    *location_r = NULL;
    if (!config_bool(c->xapi->config, "local-sr"))
        return NULL;
    *location_r = given[0] != '\0' ? given : arena_printf(c->arena, "%s/sr/local", c->xapi->dir);
    error = dir_create(*location_r, 0755);
    return error == 0 ? NULL : err_internal(c->arena, "making %s failed (%d)", *location_r, error);
}

struct error *fresh_pool_create(struct api_call *c, const struct value *description, const char **host_ref_r)
{
    const char *pool, *location, *host_uuid = value_get_string(description, "uuid", "");

    TRY(local_sr_directory(c, &location));
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(rbac_create_roles(txn));
    TRY(host_rows_create(txn, c->arena, description, value_get_string(description, "hostname", ""), host_ref_r));
    TRY(pool_row_create(txn, c->arena, *host_ref_r, &pool));
    TRY(network_internal_create(txn, c->arena));
    TRY(pifs_create(txn, c->arena, *host_ref_r, host_uuid, value_get_string(description, "address", ""),
                    (unsigned)config_int(c->xapi->config, "host-nics")));
    TRY(sm_rows_update(txn, c->arena));
    TRY(templates_create(txn, c->arena));
    if (location != NULL)
        TRY(local_sr_create(txn, c->arena, *host_ref_r, pool, location));
    TRY(pool_cpu_update(txn, c->arena));
    return txn_commit(txn, NULL);
}
