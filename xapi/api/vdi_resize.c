/* Growing disks, also while a guest uses them. */
#include "xapi/core/operations.h"
#include "xapi/core/vdi_reset.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_rows.h"

static struct error *follow(struct api_call *c, const char *vdi_ref, const struct value *stat)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(vdi_row_follow(c, txn, vdi_ref, stat));
    return txn_commit(txn, NULL);
}

static struct error *resize(struct api_call *c, const char *vdi_ref, int64_t size)
{
    const struct row *vdi;
    const struct member members[] = { member_of("size", value_int(size)) };
    struct value more = value_map(members, 1), stat;
    const char *host;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    TRY(sr_host(c, row_string(vdi, F_VDI_SR), &host));
    TRY(vdi_must_be_managed(c, vdi));
    TRY(vdi_reset_forget(c, vdi_ref)); /* else the next start would shrink it */
    TRY(operation_begin(c, CLASS_SR, row_string(vdi, F_VDI_SR), "vdi_resize", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, row_string(vdi, F_VDI_SR), "vdi_resize" };
    TRY(vdi_verb(c, vdi, "vdi.resize", &more, &stat));
    TRY(follow(c, vdi_ref, &stat));
    vdi_changed(c, NULL, row_string(vdi, F_VDI_SR));
    return NULL;
}

struct error *api_VDI_resize(struct api_call *c, const struct api_VDI_resize_args *a, struct value *result_r)
{
    return resize(c, a->vdi, a->size);
}

/* The host where the guest runs tells the guest's side; the operation's check has asked for VDI_RESIZE_ONLINE. */
struct error *api_VDI_resize_online(struct api_call *c, const struct api_VDI_resize_online_args *a, struct value *result_r)
{
    return resize(c, a->vdi, a->size);
}
