#include "xapi/pool/vdi_make.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_run.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/sr_watch.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(vdi_make);

/* An image that got no row goes again, also when the call was cancelled. */
static void medium_undo(struct api_call *c, const char *host, const char *sr_uuid, const char *location)
{
    const struct member members[] = { member_of("sr", value_string(sr_uuid)), member_of("location", value_string(location)) };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;
    struct api_call calm = internal_call_cleanup(c);
    struct error *error = agent_call(&calm, host, "vdi.destroy", &args, &ignored);

    if (error != NULL)
        log_err("a disk without a row is left in SR %s: %s", sr_uuid, error_text(c->arena, error));
}

/* --- provisional rows --------------------------------------------------------------------------------------- */
#define PROVISIONAL "provisional"

bool vdi_is_provisional(const struct row *vdi)
{
    return row_map(vdi, F_VDI_sm_config, PROVISIONAL, NULL) != NULL;
}

bool vdi_is_left_over(struct api_call *c, const struct row *vdi)
{
    const char *start = row_map(vdi, F_VDI_sm_config, PROVISIONAL, NULL);

    return start != NULL && strcmp(start, sr_watch_start_id(c->xapi)) != 0;
}

struct error *vdi_doom(struct api_call *c, struct txn *txn, const char *vdi_ref)
{
    if (txn_get(txn, &model_classes[CLASS_VDI], vdi_ref) == NULL)
        return NULL;
    TRY(txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, PROVISIONAL, value_string(sr_watch_start_id(c->xapi))));
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_managed, false));
    return operations_update(c, txn, CLASS_VDI, vdi_ref);
}

struct error *vdi_settle(struct api_call *c, struct txn *txn, const char *vdi_ref)
{
    const struct row *vdi;

    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    if (!vdi_is_provisional(vdi))
        return NULL;
    TRY(txn_map_remove(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, PROVISIONAL));
    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_managed, true));
    return operations_update(c, txn, CLASS_VDI, vdi_ref);
}

/* The row of what will be made under this uuid. */
static struct error *row_begin(struct api_call *c, struct txn *txn, const char *sr_ref, const char *uuid, int64_t size, const struct value *chosen,
                               const char **ref_r)
{
    const struct member members[] = { member_of("uuid", value_string(uuid)), member_of("location", value_string(uuid)),
                                      member_of("virtual_size", value_int(size)) };
    const struct value stat = value_map(members, ARRAY_LEN(members));

    TRY(vdi_row_create(c, txn, sr_ref, &stat, chosen, ref_r));
    return vdi_doom(c, txn, *ref_r);
}

/* The image is there. */
static struct error *row_finish(struct api_call *c, const char *ref, const struct value *stat, enum vdi_end end)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_string(txn, CLASS_VDI, ref, F_VDI_location, value_get_string(stat, "location", "")));
    TRY(vdi_row_follow(c, txn, ref, stat));
    if (end == VDI_SETTLED)
        TRY(vdi_settle(c, txn, ref));
    return txn_commit(txn, NULL);
}

/* There is none. */
static struct error *row_end(struct api_call *c, const char *ref, struct error *why)
{
    struct error *error = db_delete(c->db, c->arena, CLASS_VDI, ref);

    if (error != NULL)
        log_err("the row %s of a disk that was not made stays: %s", ref, error_text(c->arena, error));
    return why;
}

/* --- from nothing ------------------------------------------------------------------------------------------ */
static struct error *make_begin(struct api_call *c, const struct vdi_plan *plan, const char *uuid, const char **ref_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(row_begin(c, txn, plan->sr, uuid, plan->size, plan->chosen, ref_r));
    return txn_commit(txn, NULL);
}

struct error *vdi_make(struct api_call *c, const struct vdi_plan *plan, const char **ref_r)
{
    const char *host, *uuid = uuid_make(c->arena);
    const struct row *sr;
    struct value stat;

    TRY(operation_begin(c, CLASS_SR, plan->sr, "vdi_create", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, plan->sr, "vdi_create" };
    TRY(db_need(c->db, c->arena, CLASS_SR, plan->sr, &sr));
    TRY(sr_host(c, plan->sr, &host));
    TRY(make_begin(c, plan, uuid, ref_r));
    const struct member members[] = {
        member_of("sr", value_string(row_string(sr, F_SR_uuid))),
        member_of("uuid", value_string(uuid)),
        member_of("size", value_int(plan->size)),
        member_of("format", value_string(plan->format)),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    struct error *error = storage_error(c, agent_call(c, host, "vdi.create", &args, &stat), plan->sr, NULL);
    if (error != NULL)
        return row_end(c, *ref_r, error);
    error = row_finish(c, *ref_r, &stat, plan->end);
    if (error != NULL) {
        medium_undo(c, host, row_string(sr, F_SR_uuid), value_get_string(&stat, "location", uuid));
        return row_end(c, *ref_r, error);
    }
    vdi_changed(c, NULL, plan->sr);
    return NULL;
}

/* --- from another ------------------------------------------------------------------------------------------- */
struct derivation {
    const struct row *vdi, *sr;
    const char *host, *uuid; /* of the child */
    enum vdi_child kind;
};

static bool written_to(struct api_call *c, const struct row *vdi)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s), *vm;

        if (vbd == NULL || !row_bool(vbd, F_VBD_currently_attached) || strcmp(row_string(vbd, F_VBD_mode), "RW") != 0)
            continue;
        vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
        if (vm == NULL || !ref_is_null(row_string(vm, F_VM_resident_on))) /* not of a suspended one, or a checkpoint */
            return true;
    }
    return false;
}

static struct error *child_verb(struct api_call *c, const struct derivation *d, const char *verb, const char *location, const char *uuid, struct value *stat_r)
{
    const struct member members[] = {
        member_of("sr", value_string(row_string(d->sr, F_SR_uuid))),
        member_of("location", value_string(location)),
        member_of("uuid", value_string(uuid)),
    };
    struct value args = value_map(members, ARRAY_LEN(members));

    return storage_error(c, agent_call(c, d->host, verb, &args, stat_r), d->sr->ref, d->vdi->ref);
}

/* Only snapshots are crash-consistent while a guest writes: a clone of such a disk is one of its snapshot. */
static struct error *clone_written(struct api_call *c, const struct derivation *d, struct value *stat_r)
{
    struct value snapshot;

    TRY(child_verb(c, d, "vdi.snapshot", row_string(d->vdi, F_VDI_location), uuid_make(c->arena), &snapshot));
    const char *location = value_get_string(&snapshot, "location", "");
    struct error *error = child_verb(c, d, "vdi.clone", location, d->uuid, stat_r);
    medium_undo(c, d->host, row_string(d->sr, F_SR_uuid), location);
    return error;
}

static struct error *child_medium(struct api_call *c, const struct derivation *d, struct value *stat_r)
{
    if (d->kind == VDI_CHILD_SNAPSHOT)
        return child_verb(c, d, "vdi.snapshot", row_string(d->vdi, F_VDI_location), d->uuid, stat_r);
    if (!written_to(c, d->vdi))
        return child_verb(c, d, "vdi.clone", row_string(d->vdi, F_VDI_location), d->uuid, stat_r);
    {
        AUTO_TXN txn = txn_begin(c->db, c->arena);
        if (!sr_has_feature(txn, d->sr, "VDI_SNAPSHOT"))
            return err_vdi_in_use(c->arena, d->vdi->ref, "clone");
    }
    return clone_written(c, d, stat_r);
}

static struct error *snapshot_fields(struct api_call *c, struct txn *txn, const struct row *vdi, const char *ref)
{
    TRY(txn_set_bool(txn, CLASS_VDI, ref, F_VDI_is_a_snapshot, true));
    TRY(txn_set_string(txn, CLASS_VDI, ref, F_VDI_snapshot_of, vdi->ref));
    TRY(txn_set_bool(txn, CLASS_VDI, ref, F_VDI_cbt_enabled, row_bool(vdi, F_VDI_cbt_enabled)));
    return txn_set(txn, CLASS_VDI, ref, F_VDI_snapshot_time, value_datetime(clock_wall(c->call.clock)));
}

static struct error *child_row(struct api_call *c, const struct derivation *d, const char **ref_r)
{
    struct value chosen = vdi_row_chosen(c->arena, d->vdi);
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(row_begin(c, txn, d->sr->ref, d->uuid, row_int(d->vdi, F_VDI_virtual_size), &chosen, ref_r));
    TRY(txn_set_bool(txn, CLASS_VDI, *ref_r, F_VDI_read_only, false));
    TRY(txn_set_string(txn, CLASS_VDI, *ref_r, F_VDI_on_boot, row_string(d->vdi, F_VDI_on_boot)));
    TRY(txn_set_bool(txn, CLASS_VDI, *ref_r, F_VDI_allow_caching, row_bool(d->vdi, F_VDI_allow_caching)));
    TRY(txn_set(txn, CLASS_VDI, *ref_r, F_VDI_tags, value_set(NULL, 0)));
    if (d->kind == VDI_CHILD_SNAPSHOT)
        TRY(snapshot_fields(c, txn, d->vdi, *ref_r));
    TRY(operations_update(c, txn, CLASS_VDI, *ref_r));
    return txn_commit(txn, NULL);
}

static struct error *child_make(struct api_call *c, const struct derivation *d, enum vdi_end end, const char **ref_r)
{
    struct value stat;

    TRY(child_row(c, d, ref_r));
    struct error *error = child_medium(c, d, &stat);
    if (error != NULL)
        return row_end(c, *ref_r, error);
    error = row_finish(c, *ref_r, &stat, end);
    if (error == NULL)
        return NULL;
    medium_undo(c, d->host, row_string(d->sr, F_SR_uuid), value_get_string(&stat, "location", d->uuid));
    return row_end(c, *ref_r, error);
}

/* The image below the two is found now. */
static void child_settle(struct api_call *c, const struct derivation *d, const char *ref)
{
    struct error *error;

    vdi_changed(c, d->vdi->ref, d->sr->ref);
    error = vdi_refresh(c, ref);
    if (error != NULL)
        log_warn("looking at the new disk %s: %s", ref, error_text(c->arena, error));
}

struct error *vdi_derive(struct api_call *c, const char *vdi_ref, enum vdi_child kind, enum vdi_end end, const char **ref_r)
{
    struct derivation d = { .kind = kind, .uuid = uuid_make(c->arena) };

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &d.vdi));
    const char *sr_ref = row_string(d.vdi, F_VDI_SR), *operation = kind == VDI_CHILD_SNAPSHOT ? "vdi_snapshot" : "vdi_clone";
    TRY(operation_begin(c, CLASS_SR, sr_ref, operation, true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, operation };
    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &d.vdi)); /* it may have changed while we waited */
    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &d.sr));
    TRY(sr_host(c, sr_ref, &d.host));
    TRY(vdi_must_be_managed(c, d.vdi));
    TRY(vdi_host(c, d.vdi, &d.host));
    TRY(child_make(c, &d, end, ref_r));
    child_settle(c, &d, *ref_r);
    return NULL;
}

struct error *vdi_derive_marked(struct api_call *c, const char *vdi_ref, enum vdi_child kind, enum vdi_end end, const char **ref_r)
{
    const char *operation = kind == VDI_CHILD_SNAPSHOT ? "snapshot" : "clone";

    TRY(operation_begin(c, CLASS_VDI, vdi_ref, operation, true));
    OPERATION_SCOPE scope = { c, CLASS_VDI, vdi_ref, operation };
    return vdi_derive(c, vdi_ref, kind, end, ref_r);
}

/* --- and away ------------------------------------------------------------------------------------------------- */
static struct error *row_remove(struct api_call *c, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vdi;

    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    const char *sr_ref = arena_strdup(c->arena, row_string(vdi, F_VDI_SR));
    TRY(vdi_row_destroy(txn, vdi));
    TRY(sr_watch_dirty(txn, sr_ref)); /* what was below it may be of no use any more */
    return txn_commit(txn, NULL);
}

struct error *vdi_unmake(struct api_call *c, const char *vdi_ref)
{
    const struct row *vdi;
    struct value ignored;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    const char *sr_ref = row_string(vdi, F_VDI_SR);
    TRY(operation_begin(c, CLASS_SR, sr_ref, "vdi_destroy", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, "vdi_destroy" };
    struct error *error = vdi_verb(c, vdi, "vdi.destroy", NULL, &ignored);
    if (error != NULL && !error_is(error, "VDI_MISSING"))
        return error;
    TRY(row_remove(c, vdi_ref));
    vdi_changed(c, NULL, sr_ref);
    return NULL;
}

void vdi_discard(struct api_call *c, const char *vdi_ref, const char *what)
{
    struct api_call calm = internal_call_cleanup(c);
    struct row_list vms = db_all(c->db, c->arena, &model_classes[CLASS_VM]);

    const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi_ref);

    if (vdi == NULL)
        return;
    for (unsigned i = 0; i < vms.n; i++)
        if (strcmp(row_string(vms.rows[i], F_VM_suspend_VDI), vdi_ref) == 0 && !vm_image_is_unused(c, vdi))
            return;
    struct error *error = vdi_unmake(&calm, vdi_ref);
    if (error != NULL)
        log_warn("%s %s stays: %s", what, vdi_ref, error_text(c->arena, error));
}
