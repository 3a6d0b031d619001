#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/rbac.h"
#include "xapi/core/task_table.h"
#include "xapi/core/xapi.h"

#define DESTROY_ANY_ROLES (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR)

static const char *sid_of(struct api_call *c, const char *session)
{
    const struct row *row = session != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_session], session) : NULL;

    return row != NULL ? row_string(row, F_session_auth_user_sid) : "";
}

/* One's own tasks (those of any session of the same user), or the right to all (specs §3). */
static struct error *owner_check(struct api_call *c, const char *task)
{
    const struct row *row;

    TRY(db_need(c->db, c->arena, CLASS_task, task, &row));
    if (strcmp(sid_of(c, row_string(row, F_task_session)), sid_of(c, c->session)) == 0)
        return NULL;
    return rbac_need(c, DESTROY_ANY_ROLES, "task.destroy/any");
}

struct error *api_task_create(struct api_call *c, const struct api_task_create_args *a, struct value *result_r)
{
    const char *ref;

    TRY(task_row_create(c->xapi, c->arena, a->label, a->description, c->session, NULL, &ref));
    *result_r = value_string(ref);
    return NULL;
}

/* A task that still runs goes when it has ended: whoever waits for it sees the end. */
struct error *api_task_destroy(struct api_call *c, const struct api_task_destroy_args *a, struct value *result_r)
{
    TRY(owner_check(c, a->self));
    if (running_doom(c->xapi->tasks, a->self))
        return NULL;
    return db_delete(c->db, c->arena, CLASS_task, a->self);
}

/* The list of allowed operations is advice to clients; asking for more than it says does nothing. */
struct error *api_task_cancel(struct api_call *c, const struct api_task_cancel_args *a, struct value *result_r)
{
    TRY(owner_check(c, a->task));
    if (!task_cancel_running(c->xapi->tasks, a->task))
        return NULL;
    const char *who = c->task != NULL ? c->task : c->call.id;
    struct error *e = db_map_put(c->db, c->arena, CLASS_task, a->task, F_task_current_operations, who, "cancel");
    return error_is(e, "HANDLE_INVALID") ? NULL : e; /* it ended meanwhile */
}

static struct error *pending_row(struct api_call *c, struct txn *txn, const char *task, const struct row **row_r)
{
    TRY(owner_check(c, task));
    return txn_need(txn, CLASS_task, task, row_r);
}

static bool is_final(const char *status)
{
    return strcmp(status, "success") == 0 || strcmp(status, "failure") == 0 || strcmp(status, "cancelled") == 0;
}

struct error *api_task_set_status(struct api_call *c, const struct api_task_set_status_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row;

    TRY(pending_row(c, txn, a->self, &row));
    TRY(txn_set_string(txn, CLASS_task, a->self, F_task_status, a->value));
    if (is_final(a->value))
        TRY(txn_set(txn, CLASS_task, a->self, F_task_finished, value_datetime(clock_wall(c->call.clock))));
    return txn_commit(txn, NULL);
}

struct error *api_task_set_progress(struct api_call *c, const struct api_task_set_progress_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row;

    TRY(pending_row(c, txn, a->self, &row));
    if (!(a->value >= 0 && a->value <= 1))
        return err_invalid_value(c->arena, "progress", arena_printf(c->arena, "%g", a->value));
    TRY(txn_set_float(txn, CLASS_task, a->self, F_task_progress, a->value));
    return txn_commit(txn, NULL);
}

struct error *api_task_set_result(struct api_call *c, const struct api_task_set_result_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row;

    TRY(pending_row(c, txn, a->self, &row));
    TRY(txn_set_string(txn, CLASS_task, a->self, F_task_result, a->value));
    return txn_commit(txn, NULL);
}

struct error *api_task_set_error_info(struct api_call *c, const struct api_task_set_error_info_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row;

    TRY(pending_row(c, txn, a->self, &row));
    TRY(txn_set(txn, CLASS_task, a->self, F_task_error_info, *a->value));
    return txn_commit(txn, NULL);
}
