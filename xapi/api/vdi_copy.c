/* Disks from disks: clones, snapshots, copies. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/xapi.h"
#include "xapi/core/agent.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(vdi_copy);

static void sizes_follow(struct api_call *c, const char *sr_ref)
{
    struct error *error = sr_sizes_refresh(c, sr_ref);

    if (error != NULL)
        log_warn("sizes of SR %s: %s", sr_ref, error_text(c->arena, error));
}

static struct error *child_row(struct api_call *c, const struct row *vdi, const char *sr_ref, const struct value *stat, bool snapshot,
                               const char **ref_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    struct value chosen = vdi_row_chosen(c->arena, vdi);

    TRY(vdi_row_create(c, txn, sr_ref, stat, &chosen, ref_r));
    if (snapshot) {
        TRY(txn_set_bool(txn, CLASS_VDI, *ref_r, F_VDI_is_a_snapshot, true));
        TRY(txn_set_string(txn, CLASS_VDI, *ref_r, F_VDI_snapshot_of, vdi->ref));
        TRY(txn_set(txn, CLASS_VDI, *ref_r, F_VDI_snapshot_time, value_datetime(clock_wall(c->call.clock))));
    } else
        TRY(txn_set_bool(txn, CLASS_VDI, *ref_r, F_VDI_read_only, false));
    return txn_commit(txn, NULL);
}

/* A row that cannot be written leaves no disk behind. */
static struct error *child_finish(struct api_call *c, const struct row *vdi, const char *sr_ref, const char *host, const struct value *stat,
                                  bool snapshot, struct value *result_r)
{
    const struct row *sr;
    const char *ref;
    struct error *error = child_row(c, vdi, sr_ref, stat, snapshot, &ref);
    struct value ignored;

    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    if (error == NULL) {
        sizes_follow(c, sr_ref);
        *result_r = value_string(ref);
        return NULL;
    }
    const struct member members[] = {
        member_of("sr", value_string(row_string(sr, F_SR_uuid))),
        member_of("location", value_string(value_get_string(stat, "location", ""))),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    struct error *undo = agent_call(c, host, "vdi.destroy", &args, &ignored);
    if (undo != NULL)
        log_err("a disk without a row is left in SR %s: %s", sr_ref, error_text(c->arena, undo));
    return error;
}

static struct error *derive(struct api_call *c, const char *vdi_ref, const char *verb, const char *sr_operation, bool snapshot, struct value *result_r)
{
    const struct row *vdi;
    const char *sr_ref, *host;
    const struct member members[] = { member_of("uuid", value_string(uuid_make(c->arena))) };
    struct value more = value_map(members, 1), stat;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    sr_ref = row_string(vdi, F_VDI_SR);
    TRY(operation_begin(c, CLASS_SR, sr_ref, sr_operation, true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, sr_operation };
    TRY(sr_host(c, sr_ref, &host));
    TRY(vdi_verb(c, vdi, verb, &more, &stat));
    return child_finish(c, vdi, sr_ref, host, &stat, snapshot, result_r);
}

/* A raw image is cloned by copying: not while a guest writes to it. */
static struct error *not_being_written(struct api_call *c, const char *vdi_ref, const char *operation)
{
    const struct row *vdi;
    const struct value *vbds;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    vbds = row_value(vdi, F_VDI_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);

        if (vbd != NULL && row_bool(vbd, F_VBD_currently_attached) && strcmp(row_string(vbd, F_VBD_mode), "RW") == 0 &&
            strcmp(row_map(vdi, F_VDI_sm_config, "type", "raw"), "raw") == 0)
            return err_vdi_in_use(c->arena, vdi_ref, operation);
    }
    return NULL;
}

struct error *api_VDI_clone(struct api_call *c, const struct api_VDI_clone_args *a, struct value *result_r)
{
    TRY(not_being_written(c, a->vdi, "clone"));
    return derive(c, a->vdi, "vdi.clone", "vdi_clone", false, result_r);
}

struct error *api_VDI_snapshot(struct api_call *c, const struct api_VDI_snapshot_args *a, struct value *result_r)
{
    return derive(c, a->vdi, "vdi.snapshot", "vdi_snapshot", true, result_r);
}

/* --- copy to another SR --------------------------------------------------------------------------------------- */
static bool plugged_on(struct api_call *c, const struct row *sr, const char *host_ref)
{
    const struct value *pbds = row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0 && row_bool(pbd, F_PBD_currently_attached))
            return true;
    }
    return false;
}

/* A host that has both plugged. */
static struct error *common_host(struct api_call *c, const struct row *from, const struct row *to, const char **host_r)
{
    struct row_list hosts = db_all(c->db, c->arena, &model_classes[CLASS_host]);
    const char *any;

    TRY(sr_host(c, from->ref, &any));
    TRY(sr_host(c, to->ref, &any));
    for (unsigned i = 0; i < hosts.n; i++)
        if (plugged_on(c, from, hosts.rows[i]->ref) && plugged_on(c, to, hosts.rows[i]->ref)) {
            *host_r = hosts.rows[i]->ref;
            return NULL;
        }
    return err_not_implemented(c->arena, "VDI.copy between SRs that no host has both plugged");
}

struct error *api_VDI_copy(struct api_call *c, const struct api_VDI_copy_args *a, struct value *result_r)
{
    const struct row *vdi, *from, *to;
    const char *host = NULL;
    struct value stat;

    if (!ref_is_null(a->into_vdi) || !ref_is_null(a->base_vdi))
        return err_not_implemented(c->arena, "VDI.copy with into_vdi or base_vdi");
    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi, &vdi));
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &from));
    TRY(db_need(c->db, c->arena, CLASS_SR, ref_is_null(a->sr) ? from->ref : a->sr, &to));
    TRY(common_host(c, from, to, &host));
    TRY(operation_begin(c, CLASS_SR, to->ref, "vdi_create", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, to->ref, "vdi_create" };
    const struct member members[] = {
        member_of("sr", value_string(row_string(from, F_SR_uuid))),
        member_of("location", value_string(row_string(vdi, F_VDI_location))),
        member_of("to_sr", value_string(row_string(to, F_SR_uuid))),
        member_of("uuid", value_string(uuid_make(c->arena))),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    TRY(storage_error(c, agent_call(c, host, "vdi.copy", &args, &stat), to->ref, a->vdi));
    return child_finish(c, vdi, to->ref, host, &stat, false, result_r);
}
