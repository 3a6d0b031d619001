/* Changed block tracking: what backups that only take differences ask for. */
#include <string.h>

#include "db/change_log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/operations.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_rows.h"

#define DEVICES_GO_MS 4000 /* how long data_destroy waits for the snapshot's devices to go */
#define STEP_MS 500

static struct error *record_tracking(struct api_call *c, const char *vdi_ref, bool on)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_bool(txn, CLASS_VDI, vdi_ref, F_VDI_cbt_enabled, on));
    TRY(operations_update(c, txn, CLASS_VDI, vdi_ref));
    return txn_commit(txn, NULL);
}

/* As it is already: fine. */
static struct error *set_tracking(struct api_call *c, const char *vdi_ref, bool on)
{
    const struct row *vdi;
    const struct member members[] = { member_of("on", value_bool(on)) };
    struct value more = value_map(members, 1), ignored;

    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    const char *sr_ref = row_string(vdi, F_VDI_SR), *operation = on ? "vdi_enable_cbt" : "vdi_disable_cbt";
    TRY(operation_begin(c, CLASS_SR, sr_ref, operation, true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, operation };
    if (row_bool(vdi, F_VDI_cbt_enabled) == on)
        return NULL;
    TRY(vdi_verb(c, vdi, "vdi.cbt", &more, &ignored));
    return record_tracking(c, vdi_ref, on);
}

struct error *api_VDI_enable_cbt(struct api_call *c, const struct api_VDI_enable_cbt_args *a, struct value *result_r)
{
    return set_tracking(c, a->self, true);
}

struct error *api_VDI_disable_cbt(struct api_call *c, const struct api_VDI_disable_cbt_args *a, struct value *result_r)
{
    return set_tracking(c, a->self, false);
}

/* The dispatcher has marked the earlier one only. */
static struct error *later_may_be_read(struct api_call *c, const char *from_ref, const char *to_ref)
{
    if (strcmp(from_ref, to_ref) == 0)
        return NULL;
    TRY(operation_begin(c, CLASS_VDI, to_ref, "list_changed_blocks", true));
    OPERATION_SCOPE scope = { c, CLASS_VDI, to_ref, "list_changed_blocks" };
    return NULL;
}

/* Both are looked for in the SR of the later one. */
struct error *api_VDI_list_changed_blocks(struct api_call *c, const struct api_VDI_list_changed_blocks_args *a, struct value *result_r)
{
    const struct row *from, *to;
    const char *host;
    struct value map;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi_from, &from));
    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi_to, &to));
    const char *sr_ref = row_string(to, F_VDI_SR);
    TRY(sr_host(c, sr_ref, &host));
    if (strcmp(row_string(from, F_VDI_SR), sr_ref) != 0)
        return err_vdi_missing(c->arena, sr_ref, a->vdi_from);
    TRY(later_may_be_read(c, a->vdi_from, a->vdi_to));
    TRY(operation_begin(c, CLASS_SR, sr_ref, "vdi_list_changed_blocks", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, "vdi_list_changed_blocks" };
    const struct member members[] = { member_of("from", value_string(row_string(from, F_VDI_location))),
                                      member_of("to", value_string(row_string(to, F_VDI_location))) };
    struct value more = value_map(members, ARRAY_LEN(members));
    TRY(vdi_verb(c, to, "vdi.changed_blocks", &more, &map));
    *result_r = value_string(value_get_string(&map, "bitmap", ""));
    return NULL;
}

/* --- data_destroy ------------------------------------------------------------------------------------------------ */
static bool being_copied(const struct row *vdi)
{
    const struct value *current = row_value(vdi, F_VDI_current_operations);

    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, "copy") == 0)
            return true;
    return false;
}

/* Unplugged and destroyed, or exported: a backup program has just ended its attachment. */
static struct error *await_no_devices(struct api_call *c, const char *vdi_ref)
{
    int64_t until = clock_ms(c->call.clock) + DEVICES_GO_MS;
    struct class_set classes = { { 0 } };

    class_set_add(&classes, CLASS_VDI);
    for (;;) {
        uint64_t since = db_generation(c->db);
        const struct row *vdi;

        TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
        if (row_value(vdi, F_VDI_VBDs)->len == 0 && !being_copied(vdi))
            return NULL;
        if (clock_ms(c->call.clock) >= until)
            return err_vdi_in_use(c->arena, vdi_ref, "data_destroy");
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        change_log_wait(c->db, &c->call, since, &classes, STEP_MS);
    }
}

static struct error *destroy_data(struct api_call *c, const struct row *vdi)
{
    const char *sr_ref = row_string(vdi, F_VDI_SR);
    struct value ignored;

    TRY(await_no_devices(c, vdi->ref));
    TRY(operation_begin(c, CLASS_SR, sr_ref, "vdi_data_destroy", true));
    OPERATION_SCOPE scope = { c, CLASS_SR, sr_ref, "vdi_data_destroy" };
    return vdi_verb(c, vdi, "vdi.data_destroy", NULL, &ignored);
}

static struct error *record_type(struct api_call *c, const char *vdi_ref, const char *type)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_string(txn, CLASS_VDI, vdi_ref, F_VDI_type, type));
    TRY(operations_update_around(c, txn, CLASS_VDI, vdi_ref));
    return txn_commit(txn, NULL);
}

struct error *api_VDI_data_destroy(struct api_call *c, const struct api_VDI_data_destroy_args *a, struct value *result_r)
{
    const struct row *vdi;
    const char *host;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->self, &vdi));
    TRY(sr_host(c, row_string(vdi, F_VDI_SR), &host));
    TRY(vdi_must_be_managed(c, vdi));
    if (strcmp(row_string(vdi, F_VDI_type), "cbt_metadata") == 0)
        return NULL;
    TRY(record_type(c, a->self, "cbt_metadata")); /* from here on no new device is made for it */
    struct error *error = destroy_data(c, vdi);
    if (error != NULL) {
        TRY(record_type(c, a->self, row_string(vdi, F_VDI_type)));
        return error;
    }
    vdi_changed(c, a->self, row_string(vdi, F_VDI_SR));
    return NULL;
}
