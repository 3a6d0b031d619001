/* Plugging and unplugging PBDs: the host attaches, the rows follow. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/xapi.h"
#include "xapi/core/agent.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"

LOG_MODULE(pbd);

static struct error *sizes_write(struct txn *txn, const char *sr_ref, const struct value *sizes)
{
    TRY(txn_set_int(txn, CLASS_SR, sr_ref, F_SR_physical_size, value_get_int(sizes, "physical_size", 0)));
    TRY(txn_set_int(txn, CLASS_SR, sr_ref, F_SR_physical_utilisation, value_get_int(sizes, "physical_utilisation", 0)));
    return txn_set_int(txn, CLASS_SR, sr_ref, F_SR_virtual_allocation, value_get_int(sizes, "virtual_allocation", 0));
}

/* allowed_operations of an SR and of its VDIs follow its PBDs. */
static struct error *allowed_follow(struct api_call *c, struct txn *txn, const char *sr_ref)
{
    const struct row *sr;
    const struct value *vdis;

    TRY(operations_update(c, txn, CLASS_SR, sr_ref));
    TRY(txn_need(txn, CLASS_SR, sr_ref, &sr));
    vdis = row_value(sr, F_SR_VDIs);
    for (unsigned i = 0; i < vdis->len; i++)
        TRY(operations_update(c, txn, CLASS_VDI, vdis->items[i].s));
    return NULL;
}

static struct error *attached_write(struct api_call *c, const char *pbd_ref, const char *sr_ref, bool attached, const struct value *sizes)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_bool(txn, CLASS_PBD, pbd_ref, F_PBD_currently_attached, attached));
    if (sizes != NULL)
        TRY(sizes_write(txn, sr_ref, sizes));
    TRY(allowed_follow(c, txn, sr_ref));
    return txn_commit(txn, NULL);
}

/* SR_NOT_SHARABLE [sr; host]: another host has it. */
static struct error *check_sharing(struct api_call *c, const struct row *sr, const char *pbd_ref)
{
    const struct value *pbds = row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; i < pbds->len && !row_bool(sr, F_SR_shared); i++) {
        const struct row *other = strcmp(pbds->items[i].s, pbd_ref) == 0 ? NULL : db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (other != NULL && row_bool(other, F_PBD_currently_attached))
            return err_sr_not_sharable(c->arena, sr->ref, row_string(other, F_PBD_host));
    }
    return NULL;
}

struct error *pbd_plug(struct api_call *c, const char *pbd_ref, bool again)
{
    const struct row *pbd, *sr;
    struct value_dict args = { 0 };
    struct value value, sizes;

    TRY(db_need(c->db, c->arena, CLASS_PBD, pbd_ref, &pbd));
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(pbd, F_PBD_SR), &sr));
    if (row_bool(pbd, F_PBD_currently_attached) && !again)
        return NULL;
    TRY(check_sharing(c, sr, pbd_ref));
    value_dict_add(c->arena, &args, "sr", sr_argument(c->arena, sr, row_value(pbd, F_PBD_device_config)));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, row_string(pbd, F_PBD_host), "sr.attach", &value, &sizes), sr->ref, NULL));
    TRY(attached_write(c, pbd_ref, sr->ref, true, &sizes));
    if (strcmp(row_string(sr, F_SR_content_type), "iso") == 0)
        return sr_rescan(c, sr->ref);
    return NULL;
}

/* Disks of the SR that VMs on this host have plugged. */
static void users_find(struct api_call *c, const struct row *sr, const char *host_ref, struct value_list *vdis_r)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdis->items[i].s);
        const struct value *vbds = vdi == NULL ? NULL : row_value(vdi, F_VDI_VBDs);

        for (unsigned k = 0; vbds != NULL && k < vbds->len; k++) {
            const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[k].s), *vm;

            if (vbd == NULL || !row_bool(vbd, F_VBD_currently_attached))
                continue;
            vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
            if (vm != NULL && strcmp(row_string(vm, F_VM_resident_on), host_ref) == 0)
                value_list_add(c->arena, vdis_r, value_string(vdi->ref));
        }
    }
}

static struct error *in_use(struct api_call *c, const struct value_list *vdis)
{
    const char **refs = arena_calloc(c->arena, vdis->n, sizeof(*refs));

    for (unsigned i = 0; i < vdis->n; i++)
        refs[i] = vdis->items[i].s;
    return error_from_strings(c->arena, "VDI_IN_USE", vdis->n, refs);
}

struct error *pbd_unplug(struct api_call *c, const char *pbd_ref)
{
    const struct row *pbd, *sr;
    struct value_dict args = { 0 };
    struct value_list users = { 0 };
    struct value value, ignored;

    TRY(db_need(c->db, c->arena, CLASS_PBD, pbd_ref, &pbd));
    if (!row_bool(pbd, F_PBD_currently_attached))
        return NULL;
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(pbd, F_PBD_SR), &sr));
    users_find(c, sr, row_string(pbd, F_PBD_host), &users);
    if (users.n > 0)
        return in_use(c, &users);
    value_dict_add(c->arena, &args, "uuid", value_string(row_string(sr, F_SR_uuid)));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, row_string(pbd, F_PBD_host), "sr.detach", &value, &ignored), sr->ref, NULL));
    return attached_write(c, pbd_ref, sr->ref, false, NULL);
}

void pbd_plug_all(struct api_call *c, const char *host_ref)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], host_ref);
    const struct value *pbds = host == NULL ? NULL : row_value(host, F_host_PBDs);

    for (unsigned i = 0; pbds != NULL && i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);
        struct error *error = pbd == NULL ? NULL : pbd_plug(c, pbd->ref, true);

        if (error == NULL)
            continue;
        log_err("PBD %s is not plugged: %s", row_string(pbd, F_PBD_uuid), error_text(c->arena, error));
        error = attached_write(c, pbd->ref, row_string(pbd, F_PBD_SR), false, NULL);
        if (error != NULL)
            log_err("PBD %s: %s", row_string(pbd, F_PBD_uuid), error_text(c->arena, error));
    }
}

bool sr_is_plugged(struct api_call *c, const char *sr_ref, const char *host_ref)
{
    const struct row *sr = db_get(c->db, c->arena, &model_classes[CLASS_SR], sr_ref);
    const struct value *pbds = sr == NULL ? NULL : row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; pbds != NULL && i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0 && row_bool(pbd, F_PBD_currently_attached))
            return true;
    }
    return false;
}

bool sr_plugged_on(struct api_call *c, const char *sr_ref, const char *host_ref)
{
    const struct row *sr = db_get(c->db, c->arena, &model_classes[CLASS_SR], sr_ref);
    const struct value *pbds = sr != NULL ? row_value(sr, F_SR_PBDs) : NULL;

    for (unsigned i = 0; pbds != NULL && i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0 && row_bool(pbd, F_PBD_currently_attached))
            return true;
    }
    return false;
}

struct error *sr_host(struct api_call *c, const char *sr_ref, const char **host_ref_r)
{
    const struct row *sr;
    const struct value *pbds;
    const char *other = NULL;

    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    pbds = row_value(sr, F_SR_PBDs);
    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);

        if (pbd == NULL || !row_bool(pbd, F_PBD_currently_attached))
            continue;
        other = row_string(pbd, F_PBD_host);
        if (strcmp(other, c->xapi->host_ref) == 0)
            break;
    }
    if (other == NULL)
        return err_sr_has_no_pbds(c->arena, sr_ref);
    *host_ref_r = other;
    return NULL;
}

struct error *sr_sizes_refresh(struct api_call *c, const char *sr_ref)
{
    const struct row *sr;
    const char *host;
    struct value_dict args = { 0 };
    struct value value, sizes;

    TRY(sr_host(c, sr_ref, &host));
    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    value_dict_add(c->arena, &args, "uuid", value_string(row_string(sr, F_SR_uuid)));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, host, "sr.stat", &value, &sizes), sr_ref, NULL));

    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(sizes_write(txn, sr_ref, &sizes));
    return txn_commit(txn, NULL);
}
