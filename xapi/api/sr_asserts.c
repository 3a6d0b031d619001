/* May an SR hold the pool's own data: HA's state, copies of the database? */
#include <inttypes.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/pool/sr_rows.h"

#define STATEFILE_BYTES (4ll << 20)
#define REDO_LOG_BYTES (256ll << 20)

/* Every host has it plugged: SR_HAS_NO_PBDS [sr] otherwise. */
static struct error *everywhere(struct api_call *c, struct txn *txn, const struct row *sr)
{
    struct row_list hosts = txn_all(txn, &model_classes[CLASS_host]);

    for (unsigned i = 0; i < hosts.n; i++) {
        const struct row *pbd = pbd_of(txn, sr, hosts.rows[i]->ref);

        if (pbd == NULL || !row_bool(pbd, F_PBD_currently_attached))
            return err_sr_has_no_pbds(c->arena, sr->ref);
    }
    return NULL;
}

/* A disk of the kind is there, or room for one. */
static struct error *fits(struct api_call *c, struct txn *txn, const struct row *sr, const char *type, int64_t size)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi != NULL && strcmp(row_string(vdi, F_VDI_type), type) == 0 && row_int(vdi, F_VDI_virtual_size) >= size)
            return NULL;
    }
    if (row_int(sr, F_SR_physical_size) - row_int(sr, F_SR_physical_utilisation) >= size)
        return NULL;
    return err_sr_source_space_insufficient(c->arena, sr->ref);
}

struct error *api_SR_assert_can_host_ha_statefile(struct api_call *c, const struct api_SR_assert_can_host_ha_statefile_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;

    TRY(txn_need(txn, CLASS_SR, a->sr, &sr));
    TRY(everywhere(c, txn, sr));
    if (!sr_has_feature(txn, sr, "VDI_GENERATE_CONFIG") && !sr_has_feature(txn, sr, "VDI_ATTACH_OFFLINE"))
        return err_sr_operation_not_supported(c->arena, a->sr);
    TRY(fits(c, txn, sr, "ha_statefile", STATEFILE_BYTES));
    return fits(c, txn, sr, "redo_log", REDO_LOG_BYTES);
}

struct error *api_SR_assert_supports_database_replication(struct api_call *c, const struct api_SR_assert_supports_database_replication_args *a,
                                                          struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;

    TRY(txn_need(txn, CLASS_SR, a->sr, &sr));
    TRY(everywhere(c, txn, sr));
    return sr_has_feature(txn, sr, "SR_METADATA") ? NULL : err_sr_operation_not_supported(c->arena, a->sr);
}
