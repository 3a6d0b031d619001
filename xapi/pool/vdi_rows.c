#include "xapi/pool/vdi_rows.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/operations.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"

LOG_MODULE(vdi_rows);

/* What a client may choose of a VDI, and a copy inherits. */
static const unsigned chosen_fields[] = {
    F_VDI_name_label, F_VDI_name_description, F_VDI_type, F_VDI_sharable, F_VDI_read_only, F_VDI_other_config, F_VDI_xenstore_data,
    F_VDI_sm_config, F_VDI_tags,
};

static const char *field_name(unsigned field)
{
    return model_classes[CLASS_VDI].fields[field].name;
}

/* --- what the medium says ---------------------------------------------------------------------------------- */
const struct row *vdi_row_at(struct txn *txn, const struct row *sr, const char *location)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);
    const struct row *named = txn_by_uuid(txn, &model_classes[CLASS_VDI], location); /* as most are */

    if (named != NULL && strcmp(row_string(named, F_VDI_SR), sr->ref) == 0 && strcmp(row_string(named, F_VDI_location), location) == 0)
        return named;

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi != NULL && strcmp(row_string(vdi, F_VDI_location), location) == 0)
            return vdi;
    }
    return NULL;
}

/* The parent as a reference, and in sm_config as the field's drivers name it. */
static struct error *parent_follow(struct txn *txn, const struct row *vdi, const struct value *stat)
{
    const struct row *sr = txn_get(txn, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR));
    const char *location = value_get_string(stat, "parent", "");
    const struct row *parent = sr == NULL || location[0] == '\0' ? NULL : vdi_row_at(txn, sr, location);

    TRY(txn_set_string(txn, CLASS_VDI, vdi->ref, F_VDI_parent, parent != NULL ? parent->ref : REF_NULL));
    if (location[0] == '\0')
        return txn_map_remove(txn, CLASS_VDI, vdi->ref, F_VDI_sm_config, "vhd-parent");
    return txn_map_put(txn, CLASS_VDI, vdi->ref, F_VDI_sm_config, "vhd-parent",
                       value_string(parent != NULL ? row_string(parent, F_VDI_uuid) : location));
}

static struct error *hidden_follow(struct txn *txn, const char *vdi_ref, bool hidden)
{
    const struct row *vdi;

    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    if (!hidden && !row_bool(vdi, F_VDI_managed))
        TRY(txn_map_remove(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, "vhd-hidden")); /* still not managed: someone said so */
    if (!hidden)
        return NULL;
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_managed, false));
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_read_only, true));
    return txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, "vhd-hidden", value_string("1"));
}

struct error *vdi_row_follow(struct api_call *c, struct txn *txn, const char *vdi_ref, const struct value *stat)
{
    const struct row *vdi, *before;
    const char *format = value_get_string(stat, "format", "");

    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &before));
    TRY(txn_set_int(txn, CLASS_VDI, vdi_ref, F_VDI_virtual_size, value_get_int(stat, "virtual_size", 0)));
    TRY(txn_set_int(txn, CLASS_VDI, vdi_ref, F_VDI_physical_utilisation, value_get_int(stat, "physical_utilisation", 0)));
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_missing, false));
    if (format[0] != '\0')
        TRY(txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, "type", value_string(format)));
    if (value_get_bool(stat, "cbt_metadata", false)) {
        TRY(txn_set_string(txn, CLASS_VDI, vdi_ref, F_VDI_type, "cbt_metadata"));
        TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_cbt_enabled, true));
    }
    TRY(hidden_follow(txn, vdi_ref, value_get_bool(stat, "hidden", false)));
    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    TRY(parent_follow(txn, vdi, stat));
    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    return vdi == before ? NULL : operations_update(c, txn, CLASS_VDI, vdi_ref); /* a scan sees many that have not changed */
}

/* --- making and removing rows -------------------------------------------------------------------------------- */
struct error *vdi_row_create(struct api_call *c, struct txn *txn, const char *sr_ref, const struct value *stat, const struct value *chosen,
                             const char **ref_r)
{
    struct field_value fields[ARRAY_LEN(chosen_fields) + 3];
    const char *uuid = value_get_string(stat, "uuid", "");
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(chosen_fields); i++) {
        const struct value *v = value_get(chosen, field_name(chosen_fields[i]));

        if (v != NULL && v->kind == model_classes[CLASS_VDI].fields[chosen_fields[i]].fallback.kind)
            fields[n++] = (struct field_value) { chosen_fields[i], *v };
    }
    fields[n++] = (struct field_value) { F_VDI_SR, value_string(sr_ref) };
    fields[n++] = (struct field_value) { F_VDI_location, value_string(value_get_string(stat, "location", "")) };
    fields[n++] = (struct field_value) { F_VDI_managed, value_bool(true) };
    TRY(txn_create(txn, CLASS_VDI, NULL, uuid[0] == '\0' ? NULL : uuid, fields, n, ref_r));
    TRY(vdi_row_follow(c, txn, *ref_r, stat));
    return operations_update(c, txn, CLASS_VDI, *ref_r);
}

struct error *vdi_row_found(struct api_call *c, struct txn *txn, const struct row *sr, const struct value *stat, const char **ref_r)
{
    const char *uuid = value_get_string(stat, "uuid", ""), *name = value_get_string(stat, "name", "");
    bool hidden = value_get_bool(stat, "hidden", false);
    const struct field_value fields[] = {
        { F_VDI_name_label, value_string(hidden && name[0] == '\0' ? "base copy" : name) },
        { F_VDI_SR, value_string(sr->ref) },
        { F_VDI_type, value_string("user") },
        { F_VDI_read_only, value_bool(value_get_bool(stat, "read_only", false)) },
        { F_VDI_location, value_string(value_get_string(stat, "location", "")) },
        { F_VDI_managed, value_bool(!hidden) },
        { F_VDI_is_a_snapshot, value_bool(value_get_bool(stat, "is_a_snapshot", false)) },
    };

    if (uuid[0] != '\0' && txn_by_uuid(txn, &model_classes[CLASS_VDI], uuid) != NULL)
        uuid = ""; /* the same disk in another SR: a copy of a medium */
    TRY(txn_create(txn, CLASS_VDI, NULL, uuid[0] == '\0' ? NULL : uuid, fields, ARRAY_LEN(fields), ref_r));
    TRY(vdi_row_follow(c, txn, *ref_r, stat));
    return operations_update(c, txn, CLASS_VDI, *ref_r);
}

struct value vdi_row_chosen(struct arena *arena, const struct row *vdi)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(chosen_fields); i++)
        if (chosen_fields[i] != F_VDI_sm_config) /* the driver's, of this one image */
            value_dict_add(arena, &d, field_name(chosen_fields[i]), *row_value(vdi, chosen_fields[i]));
    return value_dict_value(&d);
}

static struct error *forget_image(struct txn *txn, const char *vdi_ref)
{
    struct row_list vms = txn_all(txn, &model_classes[CLASS_VM]);

    for (unsigned i = 0; i < vms.n; i++)
        if (strcmp(row_string(vms.rows[i], F_VM_suspend_VDI), vdi_ref) == 0)
            TRY(txn_set_string(txn, CLASS_VM, vms.rows[i]->ref, F_VM_suspend_VDI, REF_NULL));
    return NULL;
}

struct error *vdi_row_destroy(struct txn *txn, const struct row *vdi)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);

        if (vbd == NULL)
            continue;
        if (strcmp(row_string(vbd, F_VBD_type), "CD") == 0) { /* the drive stays, empty */
            TRY(txn_set_string(txn, CLASS_VBD, vbd->ref, F_VBD_VDI, REF_NULL));
            TRY(txn_set_bool(txn, CLASS_VBD, vbd->ref, F_VBD_empty, true));
        } else
            TRY(txn_delete(txn, CLASS_VBD, vbd->ref));
    }
    if (strcmp(row_string(vdi, F_VDI_type), "suspend") == 0)
        TRY(forget_image(txn, vdi->ref));
    return txn_delete(txn, CLASS_VDI, vdi->ref);
}

/* --- verbs ------------------------------------------------------------------------------------------------------ */
/* Where a VM that runs has it plugged in; NULL: nowhere. */
static const char *using_host(struct api_call *c, const struct row *vdi)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s), *vm;

        if (vbd == NULL || !row_bool(vbd, F_VBD_currently_attached))
            continue;
        vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
        if (vm != NULL && !ref_is_null(row_string(vm, F_VM_resident_on)))
            return row_string(vm, F_VM_resident_on);
    }
    return NULL;
}

struct error *vdi_host(struct api_call *c, const struct row *vdi, const char **host_ref_r)
{
    const char *host = using_host(c, vdi);

    if (host == NULL || !sr_is_plugged(c, row_string(vdi, F_VDI_SR), host))
        return sr_host(c, row_string(vdi, F_VDI_SR), host_ref_r);
    *host_ref_r = host;
    return NULL;
}

struct error *vdi_verb(struct api_call *c, const struct row *vdi, const char *verb, const struct value *more, struct value *result_r)
{
    const struct row *sr;
    const char *host;
    struct value_dict args = { 0 };
    struct value value;

    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &sr));
    TRY(vdi_host(c, vdi, &host));
    value_dict_add(c->arena, &args, "sr", value_string(row_string(sr, F_SR_uuid)));
    value_dict_add(c->arena, &args, "location", value_string(row_string(vdi, F_VDI_location)));
    for (unsigned i = 0; more != NULL && i < more->len; i++)
        value_dict_set(c->arena, &args, more->members[i].name, more->members[i].value);
    value = value_dict_value(&args);
    return storage_error(c, agent_call(c, host, verb, &value, result_r), sr->ref, vdi->ref);
}

/* --- following ------------------------------------------------------------------------------------------------- */
/* The hidden image that a snapshot or clone has left below a VDI. */
static struct error *base_stat(struct api_call *c, const struct row *vdi, const struct value *stat, struct value *base_r)
{
    const char *parent = value_get_string(stat, "parent", "");
    const struct member members[] = { member_of("location", value_string(parent)) };
    struct value more = value_map(members, 1);

    *base_r = value_void();
    if (parent[0] == '\0')
        return NULL;
    return vdi_verb(c, vdi, "vdi.stat", &more, base_r); /* its location instead of the VDI's */
}

struct error *vdi_refresh(struct api_call *c, const char *vdi_ref)
{
    const struct row *vdi, *sr;
    struct value stat, base;
    const char *base_ref;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    TRY(vdi_verb(c, vdi, "vdi.stat", NULL, &stat));
    TRY(base_stat(c, vdi, &stat, &base));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    if (txn_get(txn, &model_classes[CLASS_VDI], vdi_ref) == NULL)
        return NULL; /* gone meanwhile */
    TRY(txn_need(txn, CLASS_SR, row_string(vdi, F_VDI_SR), &sr));
    const struct row *known = base.kind == VALUE_MAP ? vdi_row_at(txn, sr, value_get_string(&base, "location", "")) : NULL;
    if (known != NULL)
        TRY(vdi_row_follow(c, txn, known->ref, &base));
    else if (base.kind == VALUE_MAP)
        TRY(vdi_row_found(c, txn, sr, &base, &base_ref));
    TRY(vdi_row_follow(c, txn, vdi_ref, &stat));
    return txn_commit(txn, NULL);
}

void vdi_changed(struct api_call *c, const char *vdi_ref, const char *sr_ref)
{
    struct error *error = vdi_ref != NULL ? vdi_refresh(c, vdi_ref) : NULL;

    if (error == NULL)
        error = sr_sizes_refresh(c, sr_ref);
    if (error != NULL)
        log_warn("sizes of %s: %s", vdi_ref != NULL ? vdi_ref : sr_ref, error_text(c->arena, error));
}

struct error *vdi_must_be_managed(struct api_call *c, const struct row *vdi)
{
    return row_bool(vdi, F_VDI_managed) ? NULL : err_vdi_not_managed(c->arena, vdi->ref);
}
