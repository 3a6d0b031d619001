/* Full copies of disks: into a new one, or into one that exists. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/task.h"
#include "xapi/pool/sr_room.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

struct copy {
    struct api_call *c;
    const struct row *vdi, *to;  /* source; destination: made here, or into_vdi */
    const char *to_sr, *host;
    enum vdi_end end;
    bool made;
};

/* A host that has both plugged, rather the one where the disk is in use (for reading). */
static struct error *common_host(struct copy *k)
{
    const char *from = row_string(k->vdi, F_VDI_SR), *any;
    struct row_list hosts = db_all(k->c->db, k->c->arena, &model_classes[CLASS_host]);

    TRY(sr_host(k->c, k->to_sr, &any));
    TRY(vdi_host(k->c, k->vdi, &k->host));
    if (sr_is_plugged(k->c, k->to_sr, k->host))
        return NULL;
    for (unsigned i = 0; i < hosts.n; i++) {
        k->host = hosts.rows[i]->ref;
        if (sr_is_plugged(k->c, from, k->host) && sr_is_plugged(k->c, k->to_sr, k->host))
            return NULL;
    }
    return err_no_hosts_available(k->c->arena);
}

/* A suspend image is written and read without a tapd: it stays raw. Others get the SR's own format. */
static const char *copy_format(const struct row *vdi)
{
    return strcmp(row_string(vdi, F_VDI_type), "suspend") == 0 ? "raw" : "";
}

static struct error *copied_fields(struct copy *k, const char *ref)
{
    AUTO_TXN txn = txn_begin(k->c->db, k->c->arena);

    TRY(txn_set_bool(txn, CLASS_VDI, ref, F_VDI_read_only, false));
    TRY(txn_set_bool(txn, CLASS_VDI, ref, F_VDI_allow_caching, row_bool(k->vdi, F_VDI_allow_caching)));
    TRY(operations_update(k->c, txn, CLASS_VDI, ref));
    return txn_commit(txn, NULL);
}

static struct error *make_destination(struct copy *k)
{
    struct value chosen = vdi_row_chosen(k->c->arena, k->vdi);
    const struct vdi_plan plan = { .sr = k->to_sr, .size = row_int(k->vdi, F_VDI_virtual_size), .format = copy_format(k->vdi),
                                   .chosen = &chosen, .end = VDI_PROVISIONAL };
    const char *ref;

    TRY(sr_room_check(k->c, k->to_sr, sr_room_use_of(k->vdi, plan.format), sr_room_plain(k->c, k->to_sr, k->vdi)));
    TRY(vdi_make(k->c, &plan, &ref));
    k->made = true;
    TRY(db_need(k->c->db, k->c->arena, CLASS_VDI, ref, &k->to));
    return copied_fields(k, ref);
}

/* --- into an existing disk -------------------------------------------------------------------------------------- */
static struct error *check_destination(struct copy *k)
{
    struct arena *a = k->c->arena;
    const struct value *vbds = row_value(k->to, F_VDI_VBDs);
    int64_t size = row_int(k->vdi, F_VDI_virtual_size);

    if (row_bool(k->to, F_VDI_read_only))
        return err_vdi_readonly(a, k->to->ref);
    if (row_int(k->to, F_VDI_virtual_size) < size)
        return err_vdi_too_small(a, k->to->ref, arena_printf(a, "%lld", (long long)size));
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(k->c->db, a, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && row_bool(vbd, F_VBD_currently_attached))
            return err_vdi_in_use(a, k->to->ref, "copy");
    }
    return vdi_must_be_managed(k->c, k->to);
}

/* The host's verb wants a target that reads as zeros: the image is made anew under its name. */
static struct error *empty_destination(struct copy *k)
{
    const struct row *sr;
    struct value ignored;

    TRY(operation_begin(k->c, CLASS_SR, k->to_sr, "vdi_create", true));
    OPERATION_SCOPE scope = { k->c, CLASS_SR, k->to_sr, "vdi_create" };
    TRY(db_need(k->c->db, k->c->arena, CLASS_SR, k->to_sr, &sr));
    TRY(vdi_verb(k->c, k->to, "vdi.destroy", NULL, &ignored));
    const struct member members[] = {
        member_of("sr", value_string(row_string(sr, F_SR_uuid))),
        member_of("uuid", value_string(row_string(k->to, F_VDI_location))),
        member_of("size", value_int(row_int(k->to, F_VDI_virtual_size))),
        member_of("format", value_string(row_map(k->to, F_VDI_sm_config, "type", ""))),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    return storage_error(k->c, agent_call(k->c, k->host, "vdi.create", &args, &ignored), k->to_sr, k->to->ref);
}

/* --- the copying itself ------------------------------------------------------------------------------------------ */
static struct error *copy_contents(struct copy *k)
{
    const struct row *from, *to;
    struct value ignored;

    TRY(db_need(k->c->db, k->c->arena, CLASS_SR, row_string(k->vdi, F_VDI_SR), &from));
    TRY(db_need(k->c->db, k->c->arena, CLASS_SR, k->to_sr, &to));
    const struct member members[] = {
        member_of("sr", value_string(row_string(from, F_SR_uuid))),
        member_of("location", value_string(row_string(k->vdi, F_VDI_location))),
        member_of("to_sr", value_string(row_string(to, F_SR_uuid))),
        member_of("to", value_string(row_string(k->to, F_VDI_location))),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    task_set_cancellable(k->c, true);
    return storage_error(k->c, agent_call(k->c, k->host, "vdi.copy", &args, &ignored), from->ref, k->vdi->ref);
}

/* Nobody uses the destination while it is written ("blocked"). */
static struct error *copy_blocked(struct copy *k)
{
    TRY(operation_begin(k->c, CLASS_VDI, k->to->ref, "blocked", true));
    OPERATION_SCOPE scope = { k->c, CLASS_VDI, k->to->ref, "blocked" };
    if (!k->made) {
        TRY(check_destination(k)); /* again: now nobody can plug it in */
        TRY(empty_destination(k));
    }
    return copy_contents(k);
}

static struct error *settle(struct copy *k)
{
    AUTO_TXN txn = txn_begin(k->c->db, k->c->arena);

    if (k->end == VDI_SETTLED)
        TRY(vdi_settle(k->c, txn, k->to->ref));
    return txn_commit(txn, NULL);
}

static struct error *run_fresh(struct copy *k)
{
    TRY(common_host(k));
    TRY(make_destination(k));
    TRY(copy_blocked(k));
    return settle(k);
}

struct error *vdi_copy_whole(struct api_call *c, const char *vdi_ref, const char *sr_ref, enum vdi_end end, const char **ref_r)
{
    struct copy k = { .c = c, .to_sr = sr_ref, .end = end };

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &k.vdi));
    TRY(vdi_must_be_managed(c, k.vdi));
    struct error *error = run_fresh(&k);
    if (error != NULL) {
        if (k.made)
            vdi_discard(c, k.to->ref, "the half-written copy");
        return error;
    }
    vdi_changed(c, k.to->ref, sr_ref);
    *ref_r = k.to->ref;
    return NULL;
}

struct error *vdi_copy_into(struct api_call *c, const char *vdi_ref, const char *into_ref)
{
    struct copy k = { .c = c };

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &k.vdi));
    TRY(vdi_must_be_managed(c, k.vdi));
    TRY(db_need(c->db, c->arena, CLASS_VDI, into_ref, &k.to));
    k.to_sr = row_string(k.to, F_VDI_SR);
    TRY(common_host(&k));
    TRY(check_destination(&k));
    TRY(copy_blocked(&k));
    vdi_changed(c, into_ref, k.to_sr);
    return NULL;
}
