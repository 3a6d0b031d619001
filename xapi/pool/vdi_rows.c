#include "xapi/pool/vdi_rows.h"

#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/agent.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"

/* What a client may choose of a VDI, and a copy inherits. */
static const unsigned chosen_fields[] = {
    F_VDI_name_label, F_VDI_name_description, F_VDI_type, F_VDI_sharable, F_VDI_read_only, F_VDI_other_config, F_VDI_xenstore_data,
    F_VDI_sm_config, F_VDI_tags,
};

static const char *field_name(unsigned field)
{
    return model_classes[CLASS_VDI].fields[field].name;
}

struct error *vdi_row_create(struct api_call *c, struct txn *txn, const char *sr_ref, const struct value *stat, const struct value *chosen,
                             const char **ref_r)
{
    struct field_value fields[ARRAY_LEN(chosen_fields) + 5];
    const char *uuid = value_get_string(stat, "uuid", "");
    struct value_dict sm_config = { 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_LEN(chosen_fields); i++) {
        const struct value *v = value_get(chosen, field_name(chosen_fields[i]));

        if (v != NULL && v->kind == model_classes[CLASS_VDI].fields[chosen_fields[i]].fallback.kind)
            fields[n++] = (struct field_value) { chosen_fields[i], *v };
    }
    fields[n++] = (struct field_value) { F_VDI_SR, value_string(sr_ref) };
    fields[n++] = (struct field_value) { F_VDI_virtual_size, value_int(value_get_int(stat, "virtual_size", 0)) };
    fields[n++] = (struct field_value) { F_VDI_physical_utilisation, value_int(value_get_int(stat, "physical_utilisation", 0)) };
    fields[n++] = (struct field_value) { F_VDI_location, value_string(value_get_string(stat, "location", "")) };
    fields[n++] = (struct field_value) { F_VDI_managed, value_bool(true) };
    TRY(txn_create(txn, CLASS_VDI, NULL, uuid[0] == '\0' ? NULL : uuid, fields, n, ref_r));
    value_dict_add(c->arena, &sm_config, "type", value_string(value_get_string(stat, "format", "raw")));
    TRY(txn_map_put(txn, CLASS_VDI, *ref_r, F_VDI_sm_config, "type", sm_config.members[0].value));
    return operations_update(c, txn, CLASS_VDI, *ref_r);
}

struct value vdi_row_chosen(struct arena *arena, const struct row *vdi)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(chosen_fields); i++)
        value_dict_add(arena, &d, field_name(chosen_fields[i]), *row_value(vdi, chosen_fields[i]));
    return value_dict_value(&d);
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
    return txn_delete(txn, CLASS_VDI, vdi->ref);
}

struct error *vdi_verb(struct api_call *c, const struct row *vdi, const char *verb, const struct value *more, struct value *result_r)
{
    const struct row *sr;
    const char *host;
    struct value_dict args = { 0 };
    struct value value;

    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &sr));
    TRY(sr_host(c, sr->ref, &host));
    value_dict_add(c->arena, &args, "sr", value_string(row_string(sr, F_SR_uuid)));
    value_dict_add(c->arena, &args, "location", value_string(row_string(vdi, F_VDI_location)));
    for (unsigned i = 0; more != NULL && i < more->len; i++)
        value_dict_add(c->arena, &args, more->members[i].name, more->members[i].value);
    value = value_dict_value(&args);
    return storage_error(c, agent_call(c, host, verb, &value, result_r), sr->ref, vdi->ref);
}
