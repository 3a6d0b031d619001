/* The agent over real sockets and TLS, with verbs of the test's own: operation ids, recorded answers,
 * progress, cancellation, errors, and who is let in. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"
#include "xapi/core/options.h"
#include "xapi/pool/agent_wire.h"

static atomic_uint runs, cancelled;
static atomic_bool gate; /* "wait" ends when open */

static void nap(void)
{
    (void)poll(NULL, 0, 5);
}

static struct error *verb_echo(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    atomic_fetch_add(&runs, 1);
    *result_r = value_dup(c->arena, args);
    return NULL;
}

static struct error *verb_fail(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    return error_from_strings(c->arena, "VM_BAD_POWER_STATE", 3, (const char *[]) { "OpaqueRef:1", "<halted> & \"so\"", "" });
}

static struct error *verb_wait(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    atomic_fetch_add(&runs, 1);
    call_progress(c, 0.25);
    while (!atomic_load(&gate)) {
        if (call_cancelled(c)) {
            atomic_fetch_add(&cancelled, 1);
            return error_from_strings(c->arena, "TASK_CANCELLED", 0, NULL);
        }
        nap();
    }
    call_progress(c, 0.75);
    *result_r = value_string("done");
    return NULL;
}

const struct agent_verb agent_verbs[] = {
    { "test.echo", verb_echo, false },
    { "test.fail", verb_fail, false },
    { "test.wait", verb_wait, false },
    { NULL, NULL, false },
};

/* --- one host that serves, and a client ------------------------------------------------------------------ */
struct world {
    struct tempdir dir;
    struct arena *arena;
    struct xapi xapi;
    struct tls_context *server_tls;
    struct http_route routes[2];
    struct http_target target;
    struct call c;
    double progress;
};

static void ok(struct world *w, const struct error *error)
{
    if (error != NULL)
        fail_msg("%s", error_text(w->arena, error));
}

static void on_progress(struct call *c, double fraction)
{
    ((struct world *)c->progress_ctx)->progress = fraction;
}

static void world_init(struct world *w)
{
    const char *pem, *cert, *names[] = { "127.0.0.1" };
    int id;

    *w = (struct world) { .arena = arena_new() };
    tempdir_make(&w->dir);
    atomic_store(&runs, 0);
    atomic_store(&cancelled, 0);
    atomic_store(&gate, false);
    xmlrpc_setup(64 << 20);
    w->xapi.clock = &clock_real;
    w->xapi.dir = w->dir.path;
    w->xapi.pool_secret = "one/two/three";
    pem = tempdir_file(&w->dir, "xapi.pem");
    ok(w, tls_make_certificate(w->arena, pem, TLS_KEY_P256, "host", names, 1));
    ok(w, tls_certificate_fingerprint(w->arena, pem, &w->xapi.certificate_fingerprint, &cert));
    ok(w, tls_server_context(w->arena, pem, &w->server_tls));
    w->xapi.client = http_client_new();
    w->xapi.agent = agent_new(&w->xapi);
    w->routes[0] = (struct http_route) { .method = "POST", .path = AGENT_PATH, .body = HTTP_BODY_BUFFER, .handler = agent_http, .ctx = &w->xapi };
    const struct http_server_options options = {
        .clock = &clock_real,
        .routes = w->routes,
        .limits = { 16384, 100, 32 << 20, 100, 0, 10000, 30000, 300000 },
    };
    ok(w, http_server_new(w->arena, &options, &w->xapi.http));
    ok(w, http_listen_tcp(w->arena, w->xapi.http, "127.0.0.1", 0, w->server_tls, &id, &w->xapi.https_port));
    http_server_start(w->xapi.http);
    w->target = (struct http_target) { .address = "127.0.0.1", .port = w->xapi.https_port, .tls = true, .fingerprint = w->xapi.certificate_fingerprint };
    w->c = (struct call) { .arena = w->arena, .clock = &clock_real, .id = "test", .progress = on_progress, .progress_ctx = w };
}

static void world_release(struct world *w)
{
    agent_drain(w->xapi.agent);
    http_server_free(w->xapi.http);
    agent_free(w->xapi.agent);
    http_client_free(w->xapi.client);
    tls_context_free(w->server_tls);
    cancel_unref(w->c.cancel);
    arena_free(w->arena);
    tempdir_remove(&w->dir);
}

/* One POST as it stands. */
static int post(struct world *w, const char *secret, const char *method, const char *id, bool join, int wait_ms, struct value *answer_r)
{
    const struct member members[] = {
        member_of("operation", value_string(id)),
        member_of("join", value_bool(join)),
        member_of("wait_ms", value_int(wait_ms)),
    };
    struct value param = value_map(members, ARRAY_LEN(members));
    AUTO_TEXT body = TEXT_INIT;
    struct http_answer answer;
    const char *reason;

    xmlrpc_write_call(&body, method, &param, 1);
    const char *headers = arena_printf(w->arena, "Cookie: pool_secret=%s\r\n", secret);
    int error = http_client_post(&w->c, w->xapi.client, &w->target, AGENT_PATH, "text/xml", headers, body.bytes, body.len, 1 << 20, &answer);
    if (error != 0)
        return error;
    if (answer.status == 200)
        assert_true(xmlrpc_parse_answer(w->arena, answer.body, answer.body_len, answer_r, &reason));
    return answer.status;
}

/* --- tests --------------------------------------------------------------------------------------------------- */
static void test_echo(void **state)
{
    struct world w;
    struct value result;
    const struct member inner[] = { member_of("a", value_string("<&>\"' \n\t x")), member_of("empty", value_map(NULL, 0)) };
    struct value set[] = { value_int(1234567890123), value_bool(true), value_string("") };
    const struct member members[] = {
        member_of("map", value_map(inner, 2)),
        member_of("set", value_set(set, 3)),
        member_of("float", value_float(0.5)),
    };
    struct value args = value_map(members, 3);

    world_init(&w);
    ok(&w, agent_call_at(&w.c, &w.xapi, &w.target, "test.echo", &args, &result));
    assert_string_equal(value_get_string(value_get(&result, "map"), "a", "?"), "<&>\"' \n\t x");
    assert_int_equal(value_get(&result, "set")->len, 3);
    assert_int_equal(value_get_int(&result, "float", 7), value_get_int(&args, "float", 7));
    assert_int_equal(atomic_load(&runs), 1);
    world_release(&w);
}

static void test_errors_pass_byte_for_byte(void **state)
{
    struct world w;
    struct value result;
    struct error *error;

    world_init(&w);
    error = agent_call_at(&w.c, &w.xapi, &w.target, "test.fail", NULL, &result);
    assert_true(error_is(error, "VM_BAD_POWER_STATE"));
    assert_int_equal(error->n_params, 3);
    assert_string_equal(error->params[1], "<halted> & \"so\"");
    assert_string_equal(error->params[2], "");
    error = agent_call_at(&w.c, &w.xapi, &w.target, "test.unknown", NULL, &result);
    assert_true(error_is(error, "MESSAGE_METHOD_UNKNOWN"));
    world_release(&w);
}

static void test_unreachable(void **state)
{
    struct world w;
    struct value result;
    struct http_target nobody;

    world_init(&w);
    nobody = w.target;
    nobody.port = 1;
    assert_true(error_is(agent_call_at(&w.c, &w.xapi, &nobody, "test.echo", NULL, &result), "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"));
    world_release(&w);
}

static void test_wrong_certificate_is_not_talked_to(void **state)
{
    struct world w;
    struct value result;
    struct http_target other;
    char *fingerprint;

    world_init(&w);
    other = w.target;
    fingerprint = arena_strdup(w.arena, w.target.fingerprint);
    fingerprint[strlen(fingerprint) - 1] = fingerprint[strlen(fingerprint) - 1] == '0' ? '1' : '0';
    other.fingerprint = fingerprint;
    assert_true(error_is(agent_call_at(&w.c, &w.xapi, &other, "test.echo", NULL, &result), "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"));
    assert_int_equal(atomic_load(&runs), 0);
    world_release(&w);
}

static void test_wrong_secret_is_refused(void **state)
{
    static const char *const wrong[] = { "one/two/thre", "one/two/threee", "One/two/three", "x", "" };
    struct world w;
    struct value answer;

    world_init(&w);
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(post(&w, wrong[i], "agent.test.echo", "id", false, 500, &answer), 403);
    assert_int_equal(atomic_load(&runs), 0);
    world_release(&w);
}

static void test_a_repeated_operation_gets_the_recorded_answer(void **state)
{
    struct world w;
    struct value answer;

    world_init(&w);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(post(&w, w.xapi.pool_secret, "agent.test.echo", "same", false, 500, &answer), 200);
        assert_string_equal(value_get_string(value_get(&answer, "Value"), "state", ""), "done");
    }
    assert_int_equal(atomic_load(&runs), 1);
    assert_int_equal(post(&w, w.xapi.pool_secret, "agent.test.echo", "never", true, 500, &answer), 200);
    assert_string_equal(value_get(&answer, "ErrorDescription")->items[0].s, AGENT_LOST);
    world_release(&w);
}

static void test_pending_and_progress(void **state)
{
    struct world w;
    struct value answer;

    world_init(&w);
    assert_int_equal(post(&w, w.xapi.pool_secret, "agent.test.wait", "op", false, 50, &answer), 200);
    assert_string_equal(value_get_string(value_get(&answer, "Value"), "state", ""), "pending");
    assert_true(value_get_float(value_get(&answer, "Value"), "progress", 0) == 0.25);
    atomic_store(&gate, true);
    assert_int_equal(post(&w, w.xapi.pool_secret, "agent.test.wait", "op", true, 5000, &answer), 200);
    assert_string_equal(value_get_string(value_get(&answer, "Value"), "result", ""), "done");
    assert_int_equal(atomic_load(&runs), 1);
    world_release(&w);
}

/* --- concurrent repeats ------------------------------------------------------------------------------------- */
struct joiner { struct world *w; pthread_t thread; bool done; };

static void *join_main(void *arg)
{
    struct joiner *j = arg;
    struct world mine = *j->w;
    struct value answer;

    mine.arena = arena_new();
    mine.c.arena = mine.arena;
    mine.c.progress = NULL;
    int status = post(&mine, mine.xapi.pool_secret, "agent.test.wait", "shared", false, 10000, &answer);
    j->done = status == 200 && strcmp(value_get_string(value_get(&answer, "Value"), "result", ""), "done") == 0;
    arena_free(mine.arena);
    return NULL;
}

static void test_concurrent_repeats_join_the_first(void **state)
{
    struct world w;
    struct joiner joiners[6];

    world_init(&w);
    for (unsigned i = 0; i < ARRAY_LEN(joiners); i++) {
        joiners[i] = (struct joiner) { .w = &w };
        joiners[i].thread = thread_start("joiner", join_main, &joiners[i]);
    }
    for (unsigned i = 0; i < 40; i++)
        nap();
    atomic_store(&gate, true);
    for (unsigned i = 0; i < ARRAY_LEN(joiners); i++) {
        pthread_join(joiners[i].thread, NULL);
        assert_true(joiners[i].done);
    }
    assert_int_equal(atomic_load(&runs), 1);
    world_release(&w);
}

/* --- the client's side of progress and cancel ------------------------------------------------------------------ */
static void *open_gate_later(void *arg)
{
    for (unsigned i = 0; i < 160; i++) /* longer than one AGENT_WAIT_MS */
        nap();
    atomic_store(&gate, true);
    return NULL;
}

static void test_client_sees_progress_across_polls(void **state)
{
    struct world w;
    struct value result;
    pthread_t thread;

    world_init(&w);
    thread = thread_start("gate", open_gate_later, NULL);
    ok(&w, agent_call_at(&w.c, &w.xapi, &w.target, "test.wait", NULL, &result));
    pthread_join(thread, NULL);
    assert_string_equal(result.s, "done");
    assert_true(w.progress >= 0.25);
    assert_int_equal(atomic_load(&runs), 1);
    world_release(&w);
}

static void *cancel_later(void *arg)
{
    for (unsigned i = 0; i < 20; i++)
        nap();
    cancel_raise(arg);
    return NULL;
}

static void test_client_cancel_reaches_the_verb(void **state)
{
    struct world w;
    struct value result;
    pthread_t thread;

    world_init(&w);
    w.c.cancel = cancel_new();
    thread = thread_start("cancel", cancel_later, w.c.cancel);
    assert_true(error_is(agent_call_at(&w.c, &w.xapi, &w.target, "test.wait", NULL, &result), "TASK_CANCELLED"));
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&runs), 1);
    assert_int_equal(atomic_load(&cancelled), 1);
    world_release(&w);
}

static void *drain_later(void *arg)
{
    for (unsigned i = 0; i < 20; i++)
        nap();
    agent_drain(arg);
    return NULL;
}

static void test_draining_cancels_and_answers(void **state)
{
    struct world w;
    struct value result;
    pthread_t thread;

    world_init(&w);
    thread = thread_start("drain", drain_later, w.xapi.agent);
    assert_true(error_is(agent_call_at(&w.c, &w.xapi, &w.target, "test.wait", NULL, &result), "TASK_CANCELLED"));
    pthread_join(thread, NULL);
    struct value answer;
    assert_int_equal(post(&w, w.xapi.pool_secret, "agent.test.echo", "late", false, 500, &answer), 503);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_errors_pass_byte_for_byte),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_wrong_certificate_is_not_talked_to),
        cmocka_unit_test(test_wrong_secret_is_refused),
        cmocka_unit_test(test_a_repeated_operation_gets_the_recorded_answer),
        cmocka_unit_test(test_pending_and_progress),
        cmocka_unit_test(test_concurrent_repeats_join_the_first),
        cmocka_unit_test(test_client_sees_progress_across_polls),
        cmocka_unit_test(test_client_cancel_reaches_the_verb),
        cmocka_unit_test(test_draining_cancels_and_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
