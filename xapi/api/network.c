/* Networks: pool-wide names for bridges. */
#include <stdlib.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/pool/network_rows.h"

#define FIELD(class_field, v) { F_##class_field, v }

/* "xapi0", "xapi1" …: the first that no network has. */
static const char *bridge_free(struct api_call *c, struct txn *txn)
{
    struct row_list networks = txn_all(txn, &model_classes[CLASS_network]);

    for (unsigned n = 0;; n++) {
        const char *name = arena_printf(c->arena, "xapi%u", n);
        bool taken = false;

        for (unsigned i = 0; i < networks.n; i++)
            taken |= strcmp(row_string(networks.rows[i], F_network_bridge), name) == 0;
        if (!taken)
            return name;
    }
}

struct error *api_network_create(struct api_call *c, const struct api_network_create_args *a, struct value *result_r)
{
    static const unsigned given[] = { F_network_name_label, F_network_name_description, F_network_MTU, F_network_other_config,
                                      F_network_managed, F_network_tags };
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *bridge = value_get_string(a->record, "bridge", ""), *ref;
    struct field_value fields[ARRAY_LEN(given) + 1];
    unsigned n = 0;

    if (bridge[0] == '\0')
        bridge = bridge_free(c, txn);
    fields[n++] = (struct field_value) FIELD(network_bridge, value_string(bridge));
    for (unsigned i = 0; i < ARRAY_LEN(given); i++) {
        const struct value *v = value_get(a->record, model_classes[CLASS_network].fields[given[i]].name);

        if (v != NULL)
            fields[n++] = (struct field_value) { given[i], *v };
    }
    TRY(txn_create(txn, CLASS_network, NULL, NULL, fields, n, &ref));
    if (value_get_int(a->record, "MTU", 0) <= 0)
        TRY(txn_set_int(txn, CLASS_network, ref, F_network_MTU, 1500));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

static struct error *code_with_refs(struct api_call *c, const char *code, const struct value_list *list)
{
    const char **refs = arena_calloc(c->arena, list->n, sizeof(*refs));

    for (unsigned i = 0; i < list->n; i++)
        refs[i] = list->items[i].s;
    return error_from_strings(c->arena, code, list->n, refs);
}

static struct error *vifs_plugged(struct api_call *c, struct txn *txn, const struct row *network)
{
    const struct value *vifs = row_value(network, F_network_VIFs);
    struct value_list plugged = { 0 };

    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = txn_get(txn, &model_classes[CLASS_VIF], vifs->items[i].s);

        if (vif != NULL && row_bool(vif, F_VIF_currently_attached))
            value_list_add(c->arena, &plugged, vifs->items[i]);
    }
    return plugged.n == 0 ? NULL : code_with_refs(c, "NETWORK_CONTAINS_VIF", &plugged);
}

struct error *api_network_destroy(struct api_call *c, const struct api_network_destroy_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *network;
    struct value_list pifs = { 0 };
    const struct value *refs;

    TRY(txn_need(txn, CLASS_network, a->self, &network));
    TRY(vifs_plugged(c, txn, network));
    refs = row_value(network, F_network_PIFs);
    for (unsigned i = 0; i < refs->len; i++)
        value_list_add(c->arena, &pifs, refs->items[i]);
    if (pifs.n > 0)
        return code_with_refs(c, "NETWORK_CONTAINS_PIF", &pifs);
    if (strcmp(row_map(network, F_network_other_config, "is_host_internal_management_network", ""), "true") == 0)
        return err_cannot_destroy_system_network(c->arena, a->self);
    refs = row_value(network, F_network_VIFs);
    for (unsigned i = 0; i < refs->len; i++)
        TRY(txn_delete(txn, CLASS_VIF, refs->items[i].s));
    TRY(txn_delete(txn, CLASS_network, a->self));
    return txn_commit(txn, NULL);
}

/* --- purposes ------------------------------------------------------------------------------------------------- */
struct error *api_network_add_purpose(struct api_call *c, const struct api_network_add_purpose_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *other = strcmp(a->value, "nbd") == 0 ? "insecure_nbd" : "nbd";
    struct row_list networks = txn_all(txn, &model_classes[CLASS_network]);

    for (unsigned i = 0; i < networks.n; i++) /* a pool serves disks in one way or in the other */
        if (value_set_has(row_value(networks.rows[i], F_network_purpose), other))
            return err_network_incompatible_purposes(c->arena, a->value, other);
    TRY(txn_set_add(txn, CLASS_network, a->self, F_network_purpose, a->value));
    return txn_commit(txn, NULL);
}

struct error *api_network_remove_purpose(struct api_call *c, const struct api_network_remove_purpose_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_remove(txn, CLASS_network, a->self, F_network_purpose, a->value));
    return txn_commit(txn, NULL);
}
