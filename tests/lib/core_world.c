#include "tests/lib/core_world.h"

#include <stdarg.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/work.h"
#include "rpc/base/uuid.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/event.h"
#include "xapi/core/operations.h"
#include "xapi/core/options.h"
#include "xapi/core/rbac.h"
#include "xapi/core/session.h"
#include "xapi/core/task.h"
#include "xapi/core/timers.h"

static void fill_database(struct core_world *w)
{
    struct xapi *x = &w->xapi;
    AUTO_TXN txn = txn_begin(x->db, w->arena);
    const struct field_value host[] = {
        { F_host_name_label, value_string("host") },
        { F_host_address, value_string("127.0.0.1") },
        { F_host_enabled, value_bool(true) },
    };

    must(rbac_create_roles(txn));
    must(txn_create(txn, CLASS_host, NULL, NULL, host, ARRAY_LEN(host), &w->host));
    const struct field_value pool[] = {
        { F_pool_name_label, value_string("pool") },
        { F_pool_master, value_string(w->host) },
    };
    must(txn_create(txn, CLASS_pool, NULL, NULL, pool, ARRAY_LEN(pool), &w->pool));
    must(txn_commit(txn, NULL));
    x->host_ref = w->host;
}

static void world_init(struct core_world *w, const struct clock *clock)
{
    struct xapi *x = &w->xapi;
    const struct db_options db = { .clock = clock };

    w->arena = arena_new();
    log_set_level(NULL, LOG_ERR);
    tempdir_make(&w->dir);
    x->clock = clock;
    x->config = config_new(options_table());
    must(config_set(w->arena, x->config, "auth-fail-delay-ms", "20"));
    must(config_set(w->arena, x->config, "event-from-delay-ms", "5"));
    must(config_set(w->arena, x->config, "http-port", "0"));
    must(config_set(w->arena, x->config, "https-port", "0"));
    x->dir = w->dir.path;
    x->address = "127.0.0.1";
    x->is_coordinator = true;
    x->pool_secret = "secret/of/pool";
    x->host_uuid = uuid_make(w->arena);
    must(db_open(w->arena, &db, &x->db));
    fill_database(w);
    x->workers = work_pool_new("worker", 16, 100);
    x->peer_workers = work_pool_new("peer", 4, 100);
    x->task_workers = work_pool_new("task", 8, 100);
    x->login_workers = work_pool_new("login", 2, 100);
    x->timers = timers_new(&clock_real);
    x->sessions = sessions_new(x);
    x->tasks = tasks_new(x);
    x->operations = operations_new(x);
    x->events = events_new(x);
    atomic_store(&x->serving, true);
    const struct session_spec root = { .kind = SESSION_NORMAL, .user = "root", .superuser = true };
    must(session_create(x, w->arena, &root, &w->session));
}

void core_world_init(struct core_world *w)
{
    *w = (struct core_world){ 0 };
    world_init(w, &clock_real);
}

void core_world_init_fake(struct core_world *w)
{
    *w = (struct core_world){ 0 };
    clock_fake_init(&w->fake, 1700000000);
    world_init(w, &w->fake.clock);
}

void core_world_release(struct core_world *w)
{
    struct xapi *x = &w->xapi;

    atomic_store(&x->serving, false);
    timers_stop(x->timers);
    work_pool_free(x->login_workers);
    work_pool_free(x->workers);
    work_pool_free(x->peer_workers);
    work_pool_free(x->task_workers);
    events_free(x->events);
    operations_free(x->operations);
    tasks_free(x->tasks);
    sessions_free(x->sessions);
    timers_free(x->timers);
    db_close(x->db);
    config_free(x->config);
    tempdir_remove(&w->dir);
    arena_free(w->arena);
}

/* --- calls ---------------------------------------------------------------------------------------------- */

struct error *core_call_raw(struct core_world *w, const char *method, const struct value *params, bool trusted, struct value *result_r)
{
    struct api_call c;

    api_call_init(&c, &w->xapi, w->arena, method);
    c.trusted = trusted;
    c.peer = "test";
    *result_r = value_void();
    return dispatch(&c, params, result_r);
}

static struct error *call_with(struct core_world *w, const char *session, const char *method, struct value *result_r, unsigned n, va_list args)
{
    struct value *items = arena_calloc(w->arena, n + 1, sizeof(*items));

    items[0] = value_string(session);
    for (unsigned i = 0; i < n; i++)
        items[i + 1] = va_arg(args, struct value);
    struct value params = value_set(items, n + 1);
    return core_call_raw(w, method, &params, false, result_r);
}

struct error *core_call(struct core_world *w, const char *session, const char *method, struct value *result_r, unsigned n, ...)
{
    va_list args;

    va_start(args, n);
    struct error *e = call_with(w, session, method, result_r, n, args);
    va_end(args);
    return e;
}

static struct value expect_ok(struct core_world *w, const char *method, const struct error *e, struct value result)
{
    if (e != NULL)
        fail_msg("%s: %s", method, error_text(w->arena, e));
    return result;
}

static const struct error *expect_code(struct core_world *w, const char *method, const char *code, const struct error *e)
{
    if (!error_is(e, code))
        fail_msg("%s: %s, expected %s", method, e != NULL ? error_text(w->arena, e) : "success", code);
    return e;
}

struct value core_ok(struct core_world *w, const char *method, unsigned n, ...)
{
    struct value result;
    va_list args;

    va_start(args, n);
    struct error *e = call_with(w, w->session, method, &result, n, args);
    va_end(args);
    return expect_ok(w, method, e, result);
}

struct value core_ok_as(struct core_world *w, const char *session, const char *method, unsigned n, ...)
{
    struct value result;
    va_list args;

    va_start(args, n);
    struct error *e = call_with(w, session, method, &result, n, args);
    va_end(args);
    return expect_ok(w, method, e, result);
}

const struct error *core_fails(struct core_world *w, const char *code, const char *method, unsigned n, ...)
{
    struct value result;
    va_list args;

    va_start(args, n);
    struct error *e = call_with(w, w->session, method, &result, n, args);
    va_end(args);
    return expect_code(w, method, code, e);
}

const struct error *core_fails_as(struct core_world *w, const char *session, const char *code, const char *method, unsigned n, ...)
{
    struct value result;
    va_list args;

    va_start(args, n);
    struct error *e = call_with(w, session, method, &result, n, args);
    va_end(args);
    return expect_code(w, method, code, e);
}

/* --- rows ------------------------------------------------------------------------------------------------- */

const char *core_session_with_role(struct core_world *w, const char *role)
{
    const char *role_ref = rbac_role_ref(role), *ref;
    const struct session_spec spec = {
        .kind = SESSION_NORMAL, .user = role, .sid = role, .roles = rbac_role_bit(role_ref),
    };

    must(session_create(&w->xapi, w->arena, &spec, &ref));
    return ref;
}

const char *core_row(struct core_world *w, unsigned class_id, const struct field_value *fields, unsigned n)
{
    AUTO_TXN txn = txn_begin(w->xapi.db, w->arena);
    const char *ref;

    must(txn_create(txn, class_id, NULL, NULL, fields, n, &ref));
    must(txn_commit(txn, NULL));
    return ref;
}

const char *core_vm(struct core_world *w, const char *name)
{
    const struct field_value fields[] = { { F_VM_name_label, value_string(name) } };

    return core_row(w, CLASS_VM, fields, ARRAY_LEN(fields));
}

void core_is_string(struct value v, const char *expected)
{
    assert_int_equal(v.kind, VALUE_STRING);
    assert_string_equal(v.s, expected);
}
