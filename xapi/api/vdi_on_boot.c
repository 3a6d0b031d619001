/* VDI.set_on_boot: whether what a VM writes is kept at its next start. */
#include <string.h>

#include "xapi/core/operations.h"
#include "xapi/core/vdi_reset.h"
#include "xapi/pool/sr_rows.h"

static struct error *record(struct api_call *c, const char *vdi_ref, const char *on_boot)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_string(txn, CLASS_VDI, vdi_ref, F_VDI_on_boot, on_boot));
    TRY(operations_update_around(c, txn, CLASS_VDI, vdi_ref));
    return txn_commit(txn, NULL);
}

static struct error *drop_point(struct api_call *c, const char *vdi_ref, const char *sr_ref)
{
    const char *host;

    TRY(sr_host(c, sr_ref, &host));
    return vdi_reset_forget(c, vdi_ref);
}

static struct error *check_sr(struct api_call *c, const char *sr_ref)
{
    TRY(operation_begin(c, CLASS_SR, sr_ref, "vdi_set_on_boot", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, "vdi_set_on_boot" };
    return NULL;
}

/* What the disk holds now is what it is reset to, or what it goes on with. */
struct error *api_VDI_set_on_boot(struct api_call *c, const struct api_VDI_set_on_boot_args *a, struct value *result_r)
{
    const struct row *vdi;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->self, &vdi));
    TRY(check_sr(c, row_string(vdi, F_VDI_SR)));
    TRY(drop_point(c, a->self, row_string(vdi, F_VDI_SR)));
    return record(c, a->self, a->value);
}
