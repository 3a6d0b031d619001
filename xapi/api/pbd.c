/* How a host reaches an SR. */
#include <string.h>

#include "xapi/core/operations.h"
#include "xapi/pool/sr_rows.h"

/* Waits until nothing else is done with the SR. */
static struct error *await_sr(struct api_call *c, const char *sr_ref, const char *operation)
{
    TRY(operation_begin(c, CLASS_SR, sr_ref, operation, true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, operation };
    return NULL;
}

/* A PBD for a second host of an SR that is not shared may be made, but not plugged while the first one is. */
struct error *api_PBD_create(struct api_call *c, const struct api_PBD_create_args *a, struct value *result_r)
{
    const char *host = value_get_string(a->record, "host", ""), *sr_ref = value_get_string(a->record, "SR", ""), *ref;
    TRY(await_sr(c, sr_ref, "pbd_create"));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct value *config = value_get(a->record, "device_config"), *other = value_get(a->record, "other_config");
    struct value none = value_map(NULL, 0);
    const struct row *sr, *pbd;

    TRY(txn_need(txn, CLASS_SR, sr_ref, &sr));
    pbd = pbd_of(txn, sr, host);
    if (pbd != NULL)
        return err_pbd_exists(c->arena, sr_ref, host, pbd->ref);
    TRY(pbd_row_create(txn, host, sr_ref, config == NULL ? &none : config, &ref));
    if (other != NULL)
        TRY(txn_set(txn, CLASS_PBD, ref, F_PBD_other_config, *other));
    TRY(operations_update(c, txn, CLASS_SR, sr_ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_PBD_destroy(struct api_call *c, const struct api_PBD_destroy_args *a, struct value *result_r)
{
    const struct row *pbd;

    TRY(db_need(c->db, c->arena, CLASS_PBD, a->self, &pbd));
    TRY(await_sr(c, row_string(pbd, F_PBD_SR), "pbd_destroy"));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_need(txn, CLASS_PBD, a->self, &pbd));
    if (row_bool(pbd, F_PBD_currently_attached))
        return err_operation_not_allowed(c->arena, "PBD is currently attached");
    TRY(txn_delete(txn, CLASS_PBD, a->self));
    TRY(operations_update(c, txn, CLASS_SR, row_string(pbd, F_PBD_SR)));
    return txn_commit(txn, NULL);
}

/* Marks the SR, so that it is not destroyed or scanned meanwhile. */
static struct error *marked(struct api_call *c, const char *pbd_ref, const char *operation, struct error *(*run)(struct api_call *, const char *))
{
    const struct row *pbd;

    TRY(db_need(c->db, c->arena, CLASS_PBD, pbd_ref, &pbd));
    TRY(operation_begin(c, CLASS_SR, row_string(pbd, F_PBD_SR), operation, true));
    OPERATION_SCOPE scope = { c, CLASS_SR, row_string(pbd, F_PBD_SR), operation };
    return run(c, pbd_ref);
}

static struct error *plug(struct api_call *c, const char *pbd_ref)
{
    return pbd_plug(c, pbd_ref, false);
}

struct error *api_PBD_plug(struct api_call *c, const struct api_PBD_plug_args *a, struct value *result_r)
{
    return marked(c, a->self, "plug", plug);
}

struct error *api_PBD_unplug(struct api_call *c, const struct api_PBD_unplug_args *a, struct value *result_r)
{
    return marked(c, a->self, "unplug", pbd_unplug);
}

struct error *api_PBD_set_device_config(struct api_call *c, const struct api_PBD_set_device_config_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *pbd;

    TRY(txn_need(txn, CLASS_PBD, a->self, &pbd));
    if (row_bool(pbd, F_PBD_currently_attached))
        return err_operation_not_allowed(c->arena, "PBD is currently attached");
    TRY(txn_set(txn, CLASS_PBD, a->self, F_PBD_device_config, *a->value));
    return txn_commit(txn, NULL);
}
