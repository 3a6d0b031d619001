#include "xapi/migrate/disk_ledger.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/timers.h"
#include "xapi/migrate/ledger.h"

LOG_MODULE(disk_move);

#define KIND "VDI.pool_migrate"
#define EVERY_MS 5000
#define ROWS_MAX 10000

static const char *field(struct api_call *c, unsigned class_id, const char *ref, unsigned f)
{
    const struct row *row = db_get(c->db, c->arena, &model_classes[class_id], ref);
    return row != NULL ? row_string(row, f) : "";
}

static struct value note_of(struct api_call *c, const struct disk_move *m)
{
    struct value_dict d = { 0 };

    value_dict_add(c->arena, &d, "vdi", value_string(m->vdi));
    value_dict_add(c->arena, &d, "task", value_string(c->task != NULL ? c->task : REF_NULL));
    return value_dict_value(&d);
}

struct error *disk_ledger_begin(struct api_call *c, const char *id, const struct disk_move *m, const struct row *vm)
{
    struct value_dict facts = { 0 };
    const struct row *vdi;

    TRY(db_need(c->db, c->arena, CLASS_VDI, m->vdi, &vdi));
    value_dict_add(c->arena, &facts, "vdi_name", value_string(row_string(vdi, F_VDI_name_label)));
    value_dict_add(c->arena, &facts, "vdi_uuid", value_string(row_string(vdi, F_VDI_uuid)));
    value_dict_add(c->arena, &facts, "sr_from", value_string(field(c, CLASS_SR, row_string(vdi, F_VDI_SR), F_SR_uuid)));
    value_dict_add(c->arena, &facts, "sr_to", value_string(field(c, CLASS_SR, m->sr, F_SR_uuid)));
    const char *host = field(c, CLASS_host, m->host, F_host_uuid), *name = field(c, CLASS_host, m->host, F_host_name_label);
    const struct ledger_row row = {
        .id = id, .side = LEDGER_OUT, .stage = "send", .kind = KIND, .user = c->user,
        .vm_uuid = vm != NULL ? row_string(vm, F_VM_uuid) : "", .vm_name = vm != NULL ? row_string(vm, F_VM_name_label) : "",
        .from_host = host, .to_host = host, .from_name = name, .to_name = name,
        .began_ms = clock_wall(c->call.clock) * 1000, .note = note_of(c, m), .facts = value_dict_value(&facts),
    };
    return ledger_put(c->arena, c->xapi->ledger, &row);
}

/* What the move wrote into its task. */
static struct value measured(struct api_call *c)
{
    static const char *const keys[][2] = { { "migrate:bytes", "bytes" }, { "migrate:proven", "proven" }, { "migrate:repaired", "repaired" },
                                           { "migrate:pause_us", "blackout_us" } };
    const struct row *task = c->task != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_task], c->task) : NULL;
    struct value_dict d = { 0 };

    for (unsigned i = 0; task != NULL && i < ARRAY_LEN(keys); i++) {
        const char *text = row_map(task, F_task_other_config, keys[i][0], NULL);
        if (text != NULL)
            value_dict_add(c->arena, &d, keys[i][1], value_string(text));
    }
    return value_dict_value(&d);
}

static void end(struct api_call *c, const char *id, const char *outcome, const char *cause, const char *recovery)
{
    struct error *e = ledger_end(c->arena, c->xapi->ledger, id, LEDGER_OUT, outcome, cause, recovery, clock_wall(c->call.clock) * 1000);
    if (e != NULL)
        log_err("the end of the move of a disk, %s, is not in the ledger: %s", id, error_text(c->arena, e));
}

void disk_ledger_end(struct api_call *c, const char *id, const struct error *failure)
{
    struct value facts = measured(c);
    struct error *e = ledger_add_facts(c->arena, c->xapi->ledger, id, LEDGER_OUT, &facts);

    if (e != NULL)
        log_warn("%s", error_text(c->arena, e));
    if (failure == NULL)
        end(c, id, "success", "", "");
    else
        end(c, id, error_is(failure, "TASK_CANCELLED") ? "cancelled" : "failed", error_text(c->arena, failure), "");
}

/* --- what an earlier life left ------------------------------------------------------------------------------------------- */
static bool task_runs(struct api_call *c, const char *ref)
{
    const char *status = field(c, CLASS_task, ref, F_task_status);
    return strcmp(status, "pending") == 0 || strcmp(status, "cancelling") == 0;
}

static void settle(struct api_call *c, const struct ledger_row *row)
{
    const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], value_get_string(&row->note, "vdi", ""));

    if (task_runs(c, value_get_string(&row->note, "task", "")))
        return;
    if (vdi != NULL && row_map(vdi, F_VDI_sm_config, DISK_MOVE_KEY, "")[0] != '\0')
        return; /* not settled yet */
    if (vdi == NULL || row_map(vdi, F_VDI_other_config, DISK_QUARANTINE_KEY, "")[0] != '\0')
        end(c, row->id, "success", "", "completed: the disk is in its new place");
    else
        end(c, row->id, "failed", "the coordinator stopped in mid-migration", "rolled back: the disk is where it was");
}

static void settle_all(void *ctx)
{
    struct xapi *xapi = ctx;
    AUTO_ARENA a = arena_new();
    const struct ledger_query active = { .active = true, .limit = ROWS_MAX };
    struct ledger_row *rows = NULL;
    struct api_call c;
    unsigned n = 0;

    internal_call_init(&c, xapi, a, "disk moves");
    struct error *e = ledger_list(a, xapi->ledger, &active, &rows, &n);
    if (e != NULL)
        log_warn("%s", error_text(a, e));
    for (unsigned i = 0; e == NULL && i < n; i++)
        if (strcmp(rows[i].kind, KIND) == 0 && strcmp(rows[i].stage, "queued") != 0)
            settle(&c, &rows[i]);
}

static void post(void *xapi)
{
    (void)work_pool_post(((struct xapi *)xapi)->task_workers, settle_all, xapi);
}

void disk_ledger_start(struct xapi *xapi)
{
    if (!xapi->is_coordinator)
        return;
    post(xapi);
    timers_every(xapi->timers, EVERY_MS, post, xapi);
}
