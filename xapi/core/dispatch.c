#include "xapi/core/dispatch.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/call_log.h"
#include "xapi/core/forward.h"
#include "xapi/core/method_list.h"
#include "xapi/core/operations.h"
#include "xapi/core/rbac.h"
#include "xapi/core/session.h"
#include "xapi/core/task.h"
#include "xapi/core/xapi.h"

void api_call_init(struct api_call *c, struct xapi *xapi, struct arena *arena, const char *wire_name)
{
    static _Atomic uint64_t last_id;
    uint64_t id = atomic_fetch_add(&last_id, 1) + 1;

    *c = (struct api_call){ .arena = arena, .xapi = xapi, .db = xapi->db, .wire_name = wire_name };
    c->call.arena = arena;
    c->call.clock = xapi->clock;
    c->call.id = arena_printf(arena, "R:%" PRIx64, id);
}

static bool needs_session(const struct method *m)
{
    if (m->kind == METHOD_LIST_METHODS || m->kind == METHOD_IS_ALIVE)
        return false;
    return m->kind != METHOD_MESSAGE || (m->message->flags & MESSAGE_NO_SESSION) == 0;
}

void request_init(struct request *r, const struct method *m, const struct value *params)
{
    *r = (struct request){ .method = *m };
    args_split(params, needs_session(m), &r->list, &r->session);
}

/* --- session, and whether this host answers at all --------------------------------------------------- */

static bool runs_anywhere(const struct method *m)
{
    if (m->kind != METHOD_MESSAGE)
        return m->kind == METHOD_IS_ALIVE || m->kind == METHOD_LIST_METHODS;
    return (m->message->flags & MESSAGE_EMERGENCY) != 0;
}

/* A call that a member carries out itself, if it comes from its pool or from root. */
static bool runs_on_member(const struct method *m)
{
    return m->kind == METHOD_MESSAGE && m->message->runs_on != RUNS_ON_COORDINATOR;
}

static struct error *host_check(struct api_call *c, const struct request *r)
{
    struct xapi *xapi = c->xapi;
    bool ours = c->trusted || c->session_kind == SESSION_POOL || c->session_kind == SESSION_LOCAL;

    if (runs_anywhere(&r->method))
        return NULL;
    if (!atomic_load(&xapi->serving) && c->session_kind != SESSION_POOL)
        return err_host_still_booting(c->arena);
    if (xapi->is_coordinator || (ours && runs_on_member(&r->method)))
        return NULL;
    const char *code = xapi->emergency_error != NULL ? xapi->emergency_error(xapi, c->arena) : NULL;
    if (code != NULL)
        return error_from_strings(c->arena, code, 0, NULL);
    return err_host_is_slave(c->arena, xapi->coordinator_address);
}

static struct error *session_check(struct api_call *c, const struct request *r)
{
    if (!needs_session(&r->method)) {
        c->superuser = c->trusted;
        return NULL;
    }
    if (c->session_kind == SESSION_POOL && (r->session == NULL || ref_is_null(r->session) || !c->xapi->is_coordinator))
        return NULL; /* a peer that showed the pool secret */
    if (!c->xapi->is_coordinator && !runs_anywhere(&r->method) && !runs_on_member(&r->method))
        return NULL; /* host_check sends it away */
    if (r->session == NULL && r->list.by_name == NULL && r->list.n == 0 && r->method.kind != METHOD_UNKNOWN)
        return err_message_parameter_count_mismatch(c->arena, c->wire_name, "1", "0");
    return session_enter(c, r->session != NULL ? r->session : "");
}

/* A session on a database file of its own looks at it, and can log out. */
static struct error *database_check(struct api_call *c, const struct request *r)
{
    const struct method *m = &r->method;
    bool reads = m->kind == METHOD_ACCESSOR && !accessor_writes(&m->accessor);
    bool ends = m->kind == METHOD_MESSAGE && m->message->id == M_session_logout;

    if (c->db == c->xapi->db || reads || ends || m->kind == METHOD_UNKNOWN)
        return NULL;
    return err_operation_not_allowed(c->arena, "a session on a database file can only read");
}

/* --- method and role ----------------------------------------------------------------------------------- */

static struct error *method_check(struct api_call *c, const struct request *r)
{
    const struct method *m = &r->method;

    if (m->kind == METHOD_UNKNOWN)
        return err_message_method_unknown(c->arena, c->wire_name);
    if (m->async && !method_has_async(m)) {
        const char *text = arena_printf(c->arena, "No async mode for this operation (rpc: %s)", c->wire_name);
        return error_make(c->arena, __FILE__, __LINE__, "Fault", 1, text);
    }
    if (m->kind != METHOD_MESSAGE)
        return NULL;
    if (m->message->flags & MESSAGE_REMOVED)
        return err_message_removed(c->arena);
    if ((m->message->flags & MESSAGE_MISSING) || api_handlers[m->message->id] == NULL)
        return err_not_implemented(c->arena, m->message->full_name);
    return NULL;
}

static struct error *role_check(struct api_call *c, const struct request *r)
{
    const struct method *m = &r->method;

    if (!needs_session(m))
        return NULL;
    if (m->kind == METHOD_MESSAGE && (m->message->flags & MESSAGE_POOL_INTERNAL) && !c->superuser)
        return err_internal(c->arena, "%s is for hosts of the pool only", m->message->full_name);
    if (c->superuser)
        return NULL;
    return rbac_need(c, method_roles(m), rbac_permission(c->arena, method_name(c->arena, m, c->wire_name)));
}

static struct error *args_check(struct api_call *c, struct request *r)
{
    const struct method *m = &r->method;
    struct accessor_params p;

    if (m->kind == METHOD_MESSAGE) {
        r->values = arena_calloc(c->arena, m->message->n_params + 1u, sizeof(*r->values));
        return args_convert(c, m->message->params, m->message->n_params, m->message->n_required, &r->list, r->values);
    }
    if (m->kind != METHOD_ACCESSOR)
        return NULL;
    accessor_params(&m->accessor, &p);
    r->values = arena_calloc(c->arena, ACCESSOR_PARAMS_MAX, sizeof(*r->values));
    return args_convert(c, p.params, p.n, p.n, &r->list, r->values);
}

struct error *dispatch_enter(struct api_call *c, struct request *r)
{
    c->message = r->method.kind == METHOD_MESSAGE ? r->method.message : NULL;
    c->is_async = r->method.async;
    TRY(session_check(c, r));
    TRY(host_check(c, r));
    TRY(method_check(c, r));
    TRY(role_check(c, r));
    TRY(database_check(c, r));
    return args_check(c, r);
}

/* --- task, operation, run --------------------------------------------------------------------------------- */

static bool wants_task(const struct api_call *c, const struct request *r)
{
    if (c->task != NULL || !c->xapi->is_coordinator || !method_has_async(&r->method))
        return false;
    return c->is_async || (c->message->flags & (MESSAGE_NO_TASK | MESSAGE_INLINE)) == 0;
}

static struct error *run_message(struct api_call *c, struct request *r, struct value *result_r)
{
    const struct message_info *m = c->message;

    if (m->runs_on == RUNS_ON_HOST_PARAM && !forward_is_here(c, r))
        return forward(c, r, result_r);
    return api_handlers[m->id](c, args_struct(c->arena, m, r->values), result_r);
}

static struct error *run_marked(struct api_call *c, struct request *r, struct value *result_r)
{
    const struct message_info *m = c->message;

    if (m->operation == NULL)
        return run_message(c, r, result_r);
    unsigned class_id = m->params[0].type->class->id;
    const char *ref = r->values[0].s;
    TRY(operation_begin(c, class_id, ref, m->operation, true));
    OPERATION_SCOPE scope = { .c = c, .class_id = class_id, .ref = ref, .operation = m->operation };
    return run_message(c, r, result_r);
}

static struct error *run_simple(struct api_call *c, struct request *r, struct value *result_r)
{
    switch (r->method.kind) {
    case METHOD_ACCESSOR:
        return accessor_run(c, &r->method.accessor, r->values, result_r);
    case METHOD_LIST_METHODS:
        *result_r = method_list(c->arena);
        return NULL;
    case METHOD_IS_ALIVE:
        *result_r = r->list.n > 0 && r->list.items != NULL ? r->list.items[0] : value_void();
        return NULL;
    case METHOD_UNKNOWN: case METHOD_MESSAGE:
        break;
    }
    BUG("not a simple method");
}

struct error *dispatch_run(struct api_call *c, struct request *r, struct value *result_r)
{
    *result_r = value_void();
    if (r->method.kind != METHOD_MESSAGE)
        return run_simple(c, r, result_r);
    bool own_task = wants_task(c, r);
    if (own_task)
        TRY(task_begin(c, c->wire_name, c->subtask_of));
    struct error *e = run_marked(c, r, result_r);
    if (own_task)
        task_end(c, e, result_r);
    return e;
}

struct error *dispatch(struct api_call *c, const struct value *params, struct value *result_r)
{
    struct method m = method_find(c->wire_name);
    struct request r;

    if (m.async)
        return dispatch_async(c, params, result_r);
    request_init(&r, &m, params);
    TRY(dispatch_enter(c, &r));
    return dispatch_run(c, &r, result_r);
}

/* --- Async ------------------------------------------------------------------------------------------------- */

struct async_job {
    struct api_call c;
    struct request r;
    struct value params;
};

static struct async_job *async_new(const struct api_call *c, const struct value *params)
{
    struct arena *a = arena_new();
    struct async_job *job = arena_alloc(a, sizeof(*job));

    api_call_init(&job->c, c->xapi, a, arena_strdup(a, c->wire_name));
    job->c.session_kind = c->session_kind;
    job->c.superuser = c->superuser;
    job->c.trusted = c->trusted;
    job->c.peer = c->peer != NULL ? arena_strdup(a, c->peer) : NULL;
    job->c.originator = c->originator != NULL ? arena_strdup(a, c->originator) : NULL;
    job->c.subtask_of = c->subtask_of != NULL ? arena_strdup(a, c->subtask_of) : NULL;
    job->params = value_dup(a, params);
    struct method m = method_find(job->c.wire_name);
    request_init(&job->r, &m, &job->params);
    return job;
}

static void async_run(void *arg)
{
    struct async_job *job = arg;
    struct call *outer = call_enter(&job->c.call);
    int64_t began_us = clock_us(job->c.call.clock);
    struct value result = value_void();
    struct error *e = run_marked(&job->c, &job->r, &result);

    task_end(&job->c, e, &result);
    call_log(&job->c, &job->r, e, clock_us(job->c.call.clock) - began_us);
    call_enter(outer);
    arena_free(job->c.arena);
}

static struct error *async_start(struct api_call *c, struct async_job *job, struct value *result_r)
{
    TRY(dispatch_enter(&job->c, &job->r));
    TRY(task_begin(&job->c, job->c.wire_name, job->c.subtask_of));
    *result_r = value_string(arena_strdup(c->arena, job->c.task));
    if (work_pool_post(c->xapi->task_workers, async_run, job))
        return NULL;
    struct error *full = err_too_many_pending_tasks(job->c.arena);
    task_end(&job->c, full, NULL);
    return full;
}

struct error *dispatch_async(struct api_call *c, const struct value *params, struct value *result_r)
{
    struct async_job *job = async_new(c, params);
    struct error *e = async_start(c, job, result_r);

    if (e == NULL)
        return NULL; /* the worker has the job, and may be done with it */
    e = error_dup(c->arena, e);
    arena_free(job->c.arena);
    return e;
}

struct error *api_run(struct api_call *c, unsigned message_id, const void *args, struct value *result_r)
{
    const struct message_info *m = &model_messages[message_id];
    struct api_call nested = *c;

    CHECK(message_id < model_n_messages);
    if (api_handlers[message_id] == NULL)
        return err_not_implemented(c->arena, m->full_name);
    nested.message = m;
    *result_r = value_void();
    return api_handlers[message_id](&nested, args, result_r);
}
