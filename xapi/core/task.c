#include "xapi/core/task.h"

#include <math.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/task_table.h"
#include "xapi/core/xapi.h"

LOG_MODULE(task);

#define WAIT_SLICE_MS 30000

static void log_failure(struct arena *a, const char *what, const struct error *e)
{
    if (e != NULL && !error_is(e, "HANDLE_INVALID")) /* its client may have destroyed it */
        log_warn_rl("%s: %s", what, error_text(a, e));
}

/* --- the row ------------------------------------------------------------------------------------------- */

struct error *task_row_create(struct xapi *xapi, struct arena *a, const char *label, const char *description, const char *session,
                              const char *subtask_of, const char **ref_r)
{
    const struct field_value fields[] = {
        { F_task_name_label, value_string(label) },
        { F_task_name_description, value_string(description) },
        { F_task_created, value_datetime(clock_wall(xapi->clock)) },
        { F_task_finished, value_datetime(0) },
        { F_task_status, value_string("pending") },
        { F_task_resident_on, value_string(xapi->host_ref != NULL ? xapi->host_ref : REF_NULL) },
        { F_task_progress, value_float(0) },
        { F_task_type, value_string("<none/>") },
        { F_task_subtask_of, value_string(subtask_of != NULL ? subtask_of : REF_NULL) },
        { F_task_session, value_string(session != NULL ? session : REF_NULL) },
    };
    AUTO_TXN txn = txn_begin(xapi->db, a);

    TRY(txn_create(txn, CLASS_task, NULL, NULL, fields, ARRAY_LEN(fields), ref_r));
    return txn_commit(txn, NULL);
}

/* --- begin and end of a call's task ------------------------------------------------------------------------ */

/* From the call's threads, often: notes the value; task_flush writes it. Never goes back. */
static void progress_note(struct call *c, double fraction)
{
    struct running_task *r = c->progress_ctx;
    int64_t millionths = fraction >= 1 ? 1000000 : fraction > 0 ? (int64_t)(fraction * 1e6) : 0;
    int64_t now = atomic_load(&r->progress);

    if (isnan(fraction))
        return;
    while (millionths > now && !atomic_compare_exchange_weak(&r->progress, &now, millionths))
        ;
}

static void run_under(struct api_call *c, const char *ref)
{
    struct running_task *r = running_add(c->xapi->tasks, ref);
    c->task = ref;
    c->call.cancel = running_cancel(r);
    c->call.progress = progress_note;
    c->call.progress_ctx = r;
}

struct error *task_begin(struct api_call *c, const char *label, const char *subtask_of)
{
    const char *ref;

    CHECK(c->task == NULL);
    if (subtask_of != NULL && db_get(c->db, c->arena, &model_classes[CLASS_task], subtask_of) == NULL)
        subtask_of = NULL; /* it came in a header, where anything may stand */
    TRY(task_row_create(c->xapi, c->arena, label, "", c->session, subtask_of, &ref));
    run_under(c, ref);
    return NULL;
}

struct error *task_adopt(struct api_call *c, const char *ref)
{
    const struct row *row;

    CHECK(c->task == NULL);
    TRY(db_need(c->db, c->arena, CLASS_task, ref, &row));
    if (strcmp(row_string(row, F_task_status), "pending") != 0 || running_exists(c->xapi->tasks, ref))
        return err_operation_not_allowed(c->arena, "this task is already in use or over");
    run_under(c, row->ref);
    task_set_cancellable(c, true);
    return NULL;
}

static struct error *row_fail(struct txn *txn, struct arena *a, const char *ref, const struct error *e)
{
    struct value *words = arena_calloc(a, e->n_params + 1u, sizeof(*words));
    const char *status = error_is(e, "TASK_CANCELLED") ? "cancelled" : "failure";

    words[0] = value_string(e->code);
    for (unsigned i = 0; i < e->n_params; i++)
        words[i + 1] = value_string(e->params[i]);
    TRY(txn_set(txn, CLASS_task, ref, F_task_error_info, value_set(words, e->n_params + 1)));
    TRY(txn_set_string(txn, CLASS_task, ref, F_task_backtrace, arena_printf(a, "((process xapi) (filename %s) (line %d))", e->file, e->line)));
    return txn_set_string(txn, CLASS_task, ref, F_task_status, status);
}

static struct error *row_succeed(struct txn *txn, const char *ref, const struct value *result)
{
    AUTO_TEXT xml = TEXT_INIT;

    if (result != NULL)
        xmlrpc_write_value(&xml, result);
    TRY(txn_set_string(txn, CLASS_task, ref, F_task_result, xml.bytes != NULL ? xml.bytes : ""));
    return txn_set_string(txn, CLASS_task, ref, F_task_status, "success");
}

/* One commit: nobody sees a finished task without its result. */
static struct error *row_finish(struct xapi *xapi, struct arena *a, const char *ref, const struct error *e, const struct value *result)
{
    AUTO_TXN txn = txn_begin(xapi->db, a);
    const struct row *row = txn_get(txn, &model_classes[CLASS_task], ref);

    if (row == NULL || strcmp(row_string(row, F_task_status), "pending") != 0)
        return NULL; /* destroyed, or its client has said how it ended */
    TRY(txn_set(txn, CLASS_task, ref, F_task_allowed_operations, value_set(NULL, 0)));
    TRY(txn_set(txn, CLASS_task, ref, F_task_current_operations, value_map(NULL, 0)));
    TRY(txn_set(txn, CLASS_task, ref, F_task_finished, value_datetime(clock_wall(xapi->clock))));
    TRY(txn_set_float(txn, CLASS_task, ref, F_task_progress, 1));
    if (e != NULL)
        TRY(row_fail(txn, a, ref, e));
    else
        TRY(row_succeed(txn, ref, result));
    return txn_commit(txn, NULL);
}

void task_end(struct api_call *c, const struct error *e, const struct value *result)
{
    struct xapi *xapi = c->xapi;

    if (c->task == NULL)
        return;
    running_remove(xapi->tasks, c->task);
    if (c->is_async)
        log_failure(c->arena, "end of a task", row_finish(xapi, c->arena, c->task, e, result));
    else
        log_failure(c->arena, "end of a task", db_delete(xapi->db, c->arena, CLASS_task, c->task));
    c->call.cancel = NULL;
    c->call.progress = NULL;
    c->call.progress_ctx = NULL;
}

/* --- while it runs --------------------------------------------------------------------------------------------- */

void task_note(struct api_call *c, const char *key, const char *value)
{
    if (c->task != NULL)
        log_failure(c->arena, "note on a task", db_map_put(c->db, c->arena, CLASS_task, c->task, F_task_other_config, key, value));
}

static struct error *set_cancellable(struct api_call *c, bool can)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    if (txn_get(txn, &model_classes[CLASS_task], c->task) == NULL)
        return NULL;
    if (can)
        TRY(txn_set_add(txn, CLASS_task, c->task, F_task_allowed_operations, "cancel"));
    else
        TRY(txn_set_remove(txn, CLASS_task, c->task, F_task_allowed_operations, "cancel"));
    return txn_commit(txn, NULL);
}

void task_set_cancellable(struct api_call *c, bool can)
{
    if (c->task != NULL)
        log_failure(c->arena, "allowed_operations of a task", set_cancellable(c, can));
}

/* --- waiting for another ---------------------------------------------------------------------------------------- */

static struct error *result_read(struct api_call *c, const struct row *row, struct value *result_r)
{
    const char *xml = row_string(row, F_task_result);

    *result_r = value_void();
    if (*xml != '\0' && !xmlrpc_parse_fragment(c->arena, xml, strlen(xml), result_r))
        *result_r = value_string(xml); /* a client's task may hold anything */
    return NULL;
}

static struct error *failure_read(struct api_call *c, const struct row *row)
{
    const struct value *info = row_value(row, F_task_error_info);
    const char **words = arena_calloc(c->arena, info->len + 1u, sizeof(*words));

    for (uint32_t i = 0; i < info->len; i++)
        words[i] = info->items[i].s;
    if (info->len > 0)
        return error_from_strings(c->arena, words[0], info->len - 1, words + 1);
    if (strcmp(row_string(row, F_task_status), "cancelled") == 0)
        return err_task_cancelled(c->arena, row->ref);
    return err_internal(c->arena, "task %s failed without an error", row->ref);
}

struct error *task_wait(struct api_call *c, const char *task_ref, struct value *result_r)
{
    struct class_set classes = { { 0 } };

    class_set_add(&classes, CLASS_task);
    for (;;) {
        uint64_t seen = db_generation(c->db);
        const struct row *row;
        TRY(db_need(c->db, c->arena, CLASS_task, task_ref, &row));
        const char *status = row_string(row, F_task_status);
        if (strcmp(status, "success") == 0)
            return result_read(c, row, result_r);
        if (strcmp(status, "pending") != 0 && strcmp(status, "cancelling") != 0)
            return failure_read(c, row);
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        change_log_wait(c->db, &c->call, seen, &classes, WAIT_SLICE_MS);
    }
}
