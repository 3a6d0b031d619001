/* Storage repositories: making, finding, forgetting, scanning. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/operations.h"
#include "xapi/core/version.h"
#include "xapi/core/xapi.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"

LOG_MODULE(sr_api);

/* "sr" of the agent's verbs, before there is a row. */
static struct value argument(struct arena *arena, const char *uuid, const char *type, bool shared, const struct value *device_config)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "uuid", value_string(uuid));
    value_dict_add(arena, &d, "type", value_string(type));
    value_dict_add(arena, &d, "shared", value_bool(shared));
    value_dict_add(arena, &d, "device_config", *device_config);
    return value_dict_value(&d);
}

/* --- create ----------------------------------------------------------------------------------------------- */
/* The SR's row and a PBD for the host, or for every host where it is shared. */
static struct error *rows_create(struct api_call *c, const struct api_SR_create_args *a, const char *uuid, const char **sr_r, const char **pbd_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct sr_row_spec spec = {
        .uuid = uuid,
        .name_label = a->name_label,
        .name_description = a->name_description,
        .type = sr_type_lower(c->arena, a->type),
        .content_type = a->content_type,
        .shared = a->shared,
        .sm_config = *a->sm_config,
    };
    struct row_list hosts = txn_all(txn, &model_classes[CLASS_host]);
    const char *other;

    TRY(sr_row_create(txn, &spec, sr_r));
    TRY(pbd_row_create(txn, a->host, *sr_r, a->device_config, pbd_r));
    for (unsigned i = 0; a->shared && i < hosts.n; i++)
        if (strcmp(hosts.rows[i]->ref, a->host) != 0)
            TRY(pbd_row_create(txn, hosts.rows[i]->ref, *sr_r, a->device_config, &other));
    TRY(operations_update(c, txn, CLASS_SR, *sr_r));
    return txn_commit(txn, NULL);
}

static struct error *rows_remove(struct api_call *c, const char *sr_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;

    TRY(txn_need(txn, CLASS_SR, sr_ref, &sr));
    TRY(sr_row_destroy(txn, sr));
    return txn_commit(txn, NULL);
}

/* The other hosts' PBDs: a host that cannot plug keeps an unplugged one. */
static void plug_others(struct api_call *c, const char *sr_ref)
{
    const struct row *sr = db_get(c->db, c->arena, &model_classes[CLASS_SR], sr_ref);
    const struct value *pbds = sr == NULL ? NULL : row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; pbds != NULL && i < pbds->len; i++) {
        struct error *error = pbd_plug(c, pbds->items[i].s, false);

        if (error != NULL)
            log_warn("plugging PBD %s: %s", pbds->items[i].s, error_text(c->arena, error));
    }
}

static void medium_remove(struct api_call *c, const char *host, const struct value *sr)
{
    const struct member members[] = { member_of("sr", *sr) };
    struct value args = value_map(members, 1), ignored;
    struct error *error = agent_call(c, host, "sr.destroy", &args, &ignored);

    if (error != NULL)
        log_warn("undoing SR.create: %s", error_text(c->arena, error));
}

struct error *api_SR_create(struct api_call *c, const struct api_SR_create_args *a, struct value *result_r)
{
    const char *uuid = uuid_make(c->arena), *type = sr_type_lower(c->arena, a->type), *sr_ref, *pbd_ref;
    struct value sr = argument(c->arena, uuid, type, a->shared, a->device_config), ignored;
    const struct member members[] = { member_of("sr", sr), member_of("size", value_int(a->physical_size)) };
    struct value args = value_map(members, ARRAY_LEN(members));
    struct error *error;

    TRY(sr_driver_known(c, type));
    if (version_upgrade_in_progress(c))
        return err_not_supported_during_upgrade(c->arena);
    TRY(storage_error(c, agent_call(c, a->host, "sr.create", &args, &ignored), NULL, NULL));
    error = rows_create(c, a, uuid, &sr_ref, &pbd_ref);
    if (error == NULL) {
        error = pbd_plug(c, pbd_ref, false);
        if (error != NULL) {
            struct error *undo = rows_remove(c, sr_ref);
            if (undo != NULL)
                log_warn("undoing SR.create: %s", error_text(c->arena, undo));
        }
    }
    if (error != NULL) {
        medium_remove(c, a->host, &sr);
        return error;
    }
    plug_others(c, sr_ref);
    error = sr_rescan(c, sr_ref);
    if (error != NULL)
        log_warn("scanning the new SR %s: %s", uuid, error_text(c->arena, error));
    *result_r = value_string(sr_ref);
    return NULL;
}

struct error *api_SR_introduce(struct api_call *c, const struct api_SR_introduce_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *type = sr_type_lower(c->arena, a->type);
    const struct sr_row_spec spec = {
        .uuid = a->uuid[0] == '\0' ? NULL : a->uuid,
        .name_label = a->name_label,
        .name_description = a->name_description,
        .type = type,
        .content_type = a->content_type,
        .shared = a->shared,
        .sm_config = *a->sm_config,
    };
    const char *ref;

    if (sm_of_type(txn, type) == NULL)
        return err_sr_unknown_driver(c->arena, type);
    if (spec.uuid != NULL && !uuid_valid(spec.uuid)) /* drivers name directories by it */
        return err_uuid_invalid(c->arena, "SR", spec.uuid);
    if (spec.uuid != NULL && txn_by_uuid(txn, &model_classes[CLASS_SR], spec.uuid) != NULL)
        return err_sr_uuid_exists(c->arena, spec.uuid);
    TRY(sr_row_create(txn, &spec, &ref));
    TRY(txn_set_int(txn, CLASS_SR, ref, F_SR_physical_size, -1)); /* nobody has looked */
    TRY(txn_set_int(txn, CLASS_SR, ref, F_SR_physical_utilisation, -1));
    TRY(operations_update(c, txn, CLASS_SR, ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_SR_make(struct api_call *c, const struct api_SR_make_args *a, struct value *result_r)
{
    return err_message_deprecated(c->arena);
}

/* --- the end of one ------------------------------------------------------------------------------------------ */
/* other_config:indestructible, and what hosts cache in. */
static struct error *may_go(struct api_call *c, const char *sr_ref)
{
    const struct row *sr;
    struct row_list hosts = db_all(c->db, c->arena, &model_classes[CLASS_host]);

    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    if (strcmp(row_map(sr, F_SR_other_config, "indestructible", "false"), "true") == 0)
        return err_sr_indestructible(c->arena, sr_ref);
    for (unsigned i = 0; i < hosts.n; i++)
        if (strcmp(row_string(hosts.rows[i], F_host_local_cache_sr), sr_ref) == 0)
            return err_sr_is_cache_sr(c->arena, hosts.rows[i]->ref);
    return NULL;
}

struct error *api_SR_forget(struct api_call *c, const struct api_SR_forget_args *a, struct value *result_r)
{
    TRY(may_go(c, a->sr));
    return rows_remove(c, a->sr);
}

struct error *api_SR_destroy(struct api_call *c, const struct api_SR_destroy_args *a, struct value *result_r)
{
    const struct row *sr, *pbd;
    struct value value, ignored;

    TRY(may_go(c, a->sr));
    TRY(db_need(c->db, c->arena, CLASS_SR, a->sr, &sr));
    if (row_value(sr, F_SR_PBDs)->len == 0)
        return err_sr_has_no_pbds(c->arena, a->sr);
    TRY(db_need(c->db, c->arena, CLASS_PBD, row_value(sr, F_SR_PBDs)->items[0].s, &pbd));
    value = sr_argument(c->arena, sr, row_value(pbd, F_PBD_device_config));
    const struct member members[] = { member_of("sr", value) };
    struct value args = value_map(members, 1);
    TRY(storage_error(c, agent_call(c, row_string(pbd, F_PBD_host), "sr.destroy", &args, &ignored), a->sr, NULL));
    return rows_remove(c, a->sr);
}

/* --- looking ---------------------------------------------------------------------------------------------------- */
struct error *api_SR_scan(struct api_call *c, const struct api_SR_scan_args *a, struct value *result_r)
{
    return sr_rescan(c, a->sr);
}

struct error *api_SR_update(struct api_call *c, const struct api_SR_update_args *a, struct value *result_r)
{
    return sr_sizes_refresh(c, a->sr);
}

struct error *api_SR_get_supported_types(struct api_call *c, const struct api_SR_get_supported_types_args *a, struct value *result_r)
{
    struct row_list rows = db_all(c->db, c->arena, &model_classes[CLASS_SM]);
    struct value_list types = { 0 };

    for (unsigned i = 0; i < rows.n; i++)
        value_list_add(c->arena, &types, value_string(row_string(rows.rows[i], F_SM_type)));
    *result_r = value_list_value(&types);
    return NULL;
}

/* --- fields ----------------------------------------------------------------------------------------------------- */
struct error *api_SR_set_name_label(struct api_call *c, const struct api_SR_set_name_label_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_SR, a->sr, F_SR_name_label, value_string(a->value));
}

struct error *api_SR_set_name_description(struct api_call *c, const struct api_SR_set_name_description_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_SR, a->sr, F_SR_name_description, value_string(a->value));
}

struct error *api_SR_set_physical_size(struct api_call *c, const struct api_SR_set_physical_size_args *a, struct value *result_r)
{
    return db_set(c->db, c->arena, CLASS_SR, a->self, F_SR_physical_size, value_int(a->value));
}

struct error *api_SR_set_shared(struct api_call *c, const struct api_SR_set_shared_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;

    TRY(txn_need(txn, CLASS_SR, a->sr, &sr));
    if (!a->value && row_value(sr, F_SR_PBDs)->len > 1)
        return err_sr_has_multiple_pbds(c->arena, row_value(sr, F_SR_PBDs)->items[0].s);
    TRY(txn_set_bool(txn, CLASS_SR, a->sr, F_SR_shared, a->value));
    return txn_commit(txn, NULL);
}
