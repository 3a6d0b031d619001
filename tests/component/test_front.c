/* The front over real sockets: bytes as clients need them (specs/clients.md §0). */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "rpc/base/work.h"
#include "rpc/http/client.h"
#include "rpc/http/tls.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/front.h"
#include "xapi/core/timers.h"
#include "xapi/core/users.h"

#define READ_MS 20000

static struct core_world world;

static int setup(void **state)
{
    struct core_world *w = &world;
    const char *pem, *users, *address = "127.0.0.1";

    core_world_init(w);
    pem = tempdir_file(&w->dir, "xapi.pem");
    users = tempdir_file(&w->dir, "users");
    must(users_set(w->arena, users, "root", "right"));
    must(config_set(w->arena, w->xapi.config, "users-file", users));
    must(config_set(w->arena, w->xapi.config, "unix-socket", tempdir_file(&w->dir, "sock")));
    must(config_set(w->arena, w->xapi.config, "io-threads", "2"));
    must(tls_make_certificate(w->arena, pem, TLS_KEY_P256, address, &address, 1));
    must(front_start(w->arena, &w->xapi, NULL));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct core_world *w = *state;

    atomic_store(&w->xapi.serving, false);
    timers_stop(w->xapi.timers);
    front_stop(&w->xapi);
    core_world_release(w);
    return 0;
}

/* --- raw bytes -------------------------------------------------------------------------------------------- */

static int dial(struct core_world *w)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)w->xapi.http_port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void send_request(struct core_world *w, int fd, const char *method, const char *path, const char *headers, const char *body)
{
    const char *text = arena_printf(w->arena, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s", method, path,
                                    headers, strlen(body), body);

    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
}

/* All there is until the server closes. */
static char *read_reply(struct core_world *w, int fd)
{
    AUTO_TEXT t = TEXT_INIT;
    char piece[65536];

    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, READ_MS), 1);
        ssize_t n = read(fd, piece, sizeof(piece));
        assert_true(n >= 0);
        if (n == 0)
            break;
        text_add_len(&t, piece, (size_t)n);
    }
    close(fd);
    return arena_strdup(w->arena, t.bytes != NULL ? t.bytes : "");
}

static char *request(struct core_world *w, const char *method, const char *path, const char *headers, const char *body)
{
    int fd = dial(w);

    send_request(w, fd, method, path, headers, body);
    return read_reply(w, fd);
}

static const char *body_of(const char *reply)
{
    const char *end = strstr(reply, "\r\n\r\n");

    assert_non_null(end);
    return end + 4;
}

static void has(const char *text, const char *piece)
{
    if (strstr(text, piece) == NULL)
        fail_msg("no \"%s\" in:\n%s", piece, text);
}

static void lacks(const char *text, const char *piece)
{
    if (strstr(text, piece) != NULL)
        fail_msg("\"%s\" in:\n%s", piece, text);
}

#define XML_CALL(method, params) "<?xml version=\"1.0\"?>\n<methodCall><methodName>" method "</methodName><params>" params "</params></methodCall>"
#define XML_STRING(s) "<param><value><string>" s "</string></value></param>"

static const char *xml_call(struct core_world *w, const char *method, const char *params)
{
    return arena_printf(w->arena, XML_CALL("%s", XML_STRING("%s") "%s"), method, w->session, params);
}

/* --- XML-RPC ------------------------------------------------------------------------------------------------ */

static void test_xml_login_golden(void **state)
{
    struct core_world *w = *state;
    static const char *const paths[] = { "/", "/RPC2", "/xmlrpc", "/json", "/anything/else" };

    for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
        const char *reply = request(w, "POST", paths[i], "Content-Type: text/xml\r\n",
                                    XML_CALL("session.login_with_password", "\n <param> <value> <string>root</string>\n</value></param>"
                                                                            "<param><value>right</value></param>"));
        const char *body = body_of(reply);
        static const char head[] = "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>Status</name>"
                                   "<value>Success</value></member><member><name>Value</name><value>OpaqueRef:";
        has(reply, "HTTP/1.1 200 ");
        has(reply, "\r\nContent-Type: text/xml\r\n");
        has(reply, "\r\nAccess-Control-Allow-Origin: *\r\n");
        assert_memory_equal(body, head, sizeof(head) - 1);
        assert_string_equal(body + sizeof(head) - 1 + 36, "</value></member></struct></value></param></params></methodResponse>");
    }
}

static void test_xml_failure_golden(void **state)
{
    struct core_world *w = *state;
    const char *reply = request(w, "POST", "/", "", XML_CALL("VM.get_all", XML_STRING("OpaqueRef:<&amp;")));

    has(reply, "HTTP/1.1 500 "); /* not well-formed */
    reply = request(w, "POST", "/", "", XML_CALL("VM.get_all", XML_STRING("OpaqueRef:&lt;no&gt;")));
    has(reply, "HTTP/1.1 200 ");
    assert_string_equal(body_of(reply),
                        "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>Status</name><value>Failure</value>"
                        "</member><member><name>ErrorDescription</name><value><array><data><value>SESSION_INVALID</value>"
                        "<value>OpaqueRef:&lt;no&gt;</value></data></array></value></member></struct></value></param></params></methodResponse>");
}

static void test_xml_values_golden(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, ""), *ref = arena_printf(w->arena, XML_STRING("%s"), vm);

    has(request(w, "POST", "/", "", xml_call(w, "VM.get_name_label", ref)), "<name>Value</name><value></value>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.get_domid", ref)), "<name>Value</name><value>-1</value>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.get_is_a_template", ref)), "<name>Value</name><value><boolean>0</boolean></value>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.get_tags", ref)), "<name>Value</name><value><array><data></data></array></value>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.get_other_config", ref)), "<name>Value</name><value><struct></struct></value>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.get_snapshot_time", ref)), "<dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.get_affinity", ref)), "<value>OpaqueRef:NULL</value>");
    has(request(w, "POST", "/", "", xml_call(w, "VM.set_name_label", arena_printf(w->arena, "%s" XML_STRING("x"), ref))),
        "<name>Value</name><value></value>"); /* unit */
}

static void test_list_methods_is_bare(void **state)
{
    struct core_world *w = *state;
    const char *xml = request(w, "POST", "/", "", XML_CALL("system.listMethods", ""));
    const char *json = request(w, "POST", "/jsonrpc", "", "{\"jsonrpc\":\"2.0\",\"method\":\"system.listMethods\",\"id\":0}");

    has(xml, "<params><param><value><array><data><value>");
    lacks(xml, "Status");
    has(xml, "<value>pool.get_all_records</value>");
    has(json, "{\"jsonrpc\":\"2.0\",\"result\":[\"");
    has(json, "\"id\":0}");
}

static void test_malformed(void **state)
{
    struct core_world *w = *state;

    has(request(w, "POST", "/", "", ""), "HTTP/1.1 500 ");
    has(request(w, "POST", "/", "", "<methodCall>"), "HTTP/1.1 500 ");
    has(request(w, "POST", "/RPC2", "", "<!DOCTYPE a [<!ENTITY x \"y\">]><methodCall><methodName>&x;</methodName></methodCall>"), "HTTP/1.1 500 ");
    has(request(w, "POST", "/jsonrpc", "", "{"), "\"error\":");
    has(request(w, "POST", "/jsonrpc", "", "[]"), "\"error\":");
}

/* --- JSON-RPC -------------------------------------------------------------------------------------------------- */

static void test_json_golden(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "j"), *reply;

    reply = request(w, "POST", "/jsonrpc", "Content-Type: application/json; charset=utf-8\r\n",
                    arena_printf(w->arena, "{\"jsonrpc\":\"2.0\",\"method\":\"VM.get_domid\",\"params\":[\"%s\",\"%s\"],\"id\":7}", w->session, vm));
    has(reply, "\r\nContent-Type: application/json\r\n");
    assert_string_equal(body_of(reply), "{\"jsonrpc\":\"2.0\",\"result\":-1,\"id\":7}");
    reply = request(w, "POST", "/jsonrpc", "",
                    arena_printf(w->arena, "{\"jsonrpc\":\"2.0\",\"method\":\"VM.set_name_label\",\"params\":[\"%s\",\"%s\",\"x\"],\"id\":\"a\"}", w->session, vm));
    assert_string_equal(body_of(reply), "{\"jsonrpc\":\"2.0\",\"result\":\"\",\"id\":\"a\"}");
    reply = request(w, "POST", "/jsonrpc", "", "{\"jsonrpc\":\"2.0\",\"method\":\"VM.get_all\",\"params\":[\"bad\"],\"id\":0}");
    has(reply, "HTTP/1.1 200 ");
    assert_string_equal(body_of(reply), "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"SESSION_INVALID\",\"data\":[\"bad\"]},\"id\":0}");
    reply = request(w, "POST", "/jsonrpc", "", arena_printf(w->arena, "{\"method\":\"VM.get_power_state\",\"params\":[\"%s\",\"%s\"],\"id\":1}", w->session, vm));
    assert_string_equal(body_of(reply), "{\"result\":\"Halted\",\"error\":null,\"id\":1}");
    reply = request(w, "POST", "/jsonrpc", "", "{\"method\":\"VM.get_all\",\"params\":[\"bad\"],\"id\":1}");
    assert_string_equal(body_of(reply), "{\"result\":null,\"error\":[\"SESSION_INVALID\",\"bad\"],\"id\":1}");
}

/* --- pages ---------------------------------------------------------------------------------------------------------- */

static void test_pages(void **state)
{
    struct core_world *w = *state;
    const char *options = request(w, "OPTIONS", "/jsonrpc", "Origin: http://x\r\n", "");

    has(request(w, "GET", "/", "", ""), "HTTP/1.1 200 ");
    has(request(w, "GET", "/no/such/page", "", ""), "HTTP/1.1 404 ");
    has(request(w, "PUT", "/no/such/page", "", ""), "HTTP/1.1 404 ");
    has(request(w, "BREW", "/", "", ""), "HTTP/1.1 501 ");
    has(options, "HTTP/1.1 200 ");
    has(options, "\r\nAccess-Control-Allow-Origin: *\r\n");
    has(options, "\r\nAccess-Control-Allow-Headers: X-Requested-With");
}

/* --- who is who -------------------------------------------------------------------------------------------------------- */

static void test_wrong_password_takes_time(void **state)
{
    struct core_world *w = *state;
    int64_t began = clock_ms(&clock_real);
    const char *reply = request(w, "POST", "/", "", XML_CALL("session.login_with_password", XML_STRING("root") XML_STRING("bad")));

    has(reply, "<value>SESSION_AUTHENTICATION_FAILED</value><value>root</value>");
    assert_true(clock_ms(&clock_real) - began >= 20);
}

static void test_unix_socket_is_root(void **state)
{
    struct core_world *w = *state;
    int fd = unix_connect(config_string(w->xapi.config, "unix-socket"));

    assert_true(fd >= 0);
    send_request(w, fd, "POST", "/", "", XML_CALL("session.login_with_password", XML_STRING("") XML_STRING("")));
    has(read_reply(w, fd), "<value>Success</value>");
}

static void test_pool_secret(void **state)
{
    struct core_world *w = *state;
    const char *call = XML_CALL("pool.get_all", XML_STRING("OpaqueRef:NULL"));

    has(request(w, "POST", "/", "Cookie: pool_secret=secret/of/pool\r\n", call), "<value>Success</value>");
    has(request(w, "POST", "/", "Cookie: pool_secret=secret/of/pooL\r\n", call), "SESSION_INVALID");
}

/* --- events --------------------------------------------------------------------------------------------------------------- */

static const char *current_token(struct core_world *w)
{
    struct value name = S("vm"), batch = core_ok(w, "event.from", 3, value_set(&name, 1), S(""), value_float(0));

    return value_get_string(&batch, "token", "");
}

static const char *event_call(struct core_world *w, const char *class, const char *token, const char *timeout)
{
    const char *params = arena_printf(w->arena, "<param><value><array><data><value><string>%s</string></value></data></array></value></param>" XML_STRING("%s")
                                      "<param><value><double>%s</double></value></param>", class, token, timeout);

    return xml_call(w, "event_from", params);
}

static void wait_parked(struct core_world *w, unsigned n)
{
    struct http_server_stats stats;

    for (unsigned i = 0; i < 2000; i++) {
        http_server_stats(w->xapi.http, &stats);
        if (stats.parked == n)
            return;
        poll(NULL, 0, 5);
    }
    fail_msg("%u parked, expected %u", stats.parked, n);
}

static void test_event_parks_and_wakes(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "e"), *token = current_token(w), *reply;
    int fd = dial(w);

    send_request(w, fd, "POST", "/", "", event_call(w, "vm", token, "30.0"));
    wait_parked(w, 1);
    core_ok(w, "VM.set_name_label", 2, S(vm), S("woken"));
    reply = read_reply(w, fd);
    has(reply, "<methodResponse><params><param><value><struct><member><name>Status</name><value>Success</value></member>"
               "<member><name>Value</name><value><struct><member><name>events</name><value><array><data><value><struct>");
    has(reply, "<name>class</name><value>vm</value>");
    has(reply, "<name>operation</name><value>mod</value>");
    has(reply, "<name>timestamp</name><value>0.0</value>");
    has(reply, arena_printf(w->arena, "<name>ref</name><value>%s</value>", vm));
    has(reply, "<name>snapshot</name><value><struct><member><name>uuid</name>");
    has(reply, "<name>name_label</name><value>woken</value>");
    has(reply, "<name>valid_ref_counts</name><value><struct>");
    has(reply, "<name>vm</name><value><i4>");
    wait_parked(w, 0);
}

/* What a parked call answers is what an immediate one answers. */
static void test_event_bodies_agree(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "agree"), *token = current_token(w);
    int fd = dial(w);

    send_request(w, fd, "POST", "/", "", event_call(w, "vm", token, "30"));
    wait_parked(w, 1);
    core_ok(w, "VM.set_name_label", 2, S(vm), S("a<&b"));
    const char *parked = read_reply(w, fd);
    poll(NULL, 0, 50); /* past the pacing */
    const char *direct = request(w, "POST", "/", "", event_call(w, "vm", token, "30"));
    assert_string_equal(body_of(parked), body_of(direct));

    const char *json = arena_printf(w->arena, "{\"jsonrpc\":\"2.0\",\"method\":\"event.from\",\"params\":[\"%s\",[\"vm\"],\"%s\",30],\"id\":\"@events@\"}",
                                    w->session, current_token(w));
    fd = dial(w);
    send_request(w, fd, "POST", "/jsonrpc", "", json);
    wait_parked(w, 1);
    core_ok(w, "VM.set_name_label", 2, S(vm), S("b\"<"));
    parked = read_reply(w, fd);
    poll(NULL, 0, 50);
    direct = request(w, "POST", "/jsonrpc", "", json);
    assert_string_equal(body_of(parked), body_of(direct));
    has(parked, "\"id\":\"@events@\"}");
}

static void test_event_filters_keep_it_parked(void **state)
{
    struct core_world *w = *state;
    const char *a = core_vm(w, "a"), *b = core_vm(w, "b"), *token = current_token(w);
    int fd = dial(w);

    send_request(w, fd, "POST", "/", "", event_call(w, arena_printf(w->arena, "VM/%s", a), token, "30"));
    wait_parked(w, 1);
    core_ok(w, "VM.set_name_label", 2, S(b), S("not his"));
    poll(NULL, 0, 50);
    wait_parked(w, 1);
    core_ok(w, "VM.set_name_label", 2, S(a), S("his"));
    const char *reply = read_reply(w, fd);
    has(reply, a);
    lacks(reply, b);
}

static void test_event_timeout(void **state)
{
    struct core_world *w = *state;
    const char *reply = request(w, "POST", "/", "", event_call(w, "vm", current_token(w), "0.2"));

    has(reply, "<name>events</name><value><array><data></data></array></value>");
    has(reply, "<name>token</name><value>0000");
}

static void test_event_ends_with_the_session(void **state)
{
    struct core_world *w = *state;
    struct value items[] = { S("root"), S("right") }, params = value_set(items, 2), session;
    const char *token = current_token(w), *root = w->session;
    int fd = dial(w);

    must(core_call_raw(w, "session.login_with_password", &params, false, &session));
    w->session = session.s;
    send_request(w, fd, "POST", "/", "", event_call(w, "vm", token, "30"));
    w->session = root;
    wait_parked(w, 1);
    core_ok_as(w, session.s, "session.logout", 0);
    has(read_reply(w, fd), arena_printf(w->arena, "<value>SESSION_INVALID</value><value>%s</value>", session.s));
}

#define CROWD 300
static void test_event_crowd(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "crowd"), *token = current_token(w), *first = NULL;
    int fds[CROWD];

    for (unsigned i = 0; i < CROWD; i++) {
        fds[i] = dial(w);
        send_request(w, fds[i], "POST", "/", "", event_call(w, "vm", token, "60"));
    }
    wait_parked(w, CROWD);
    core_ok(w, "VM.set_name_label", 2, S(vm), S("all of you"));
    for (unsigned i = 0; i < CROWD; i++) {
        const char *reply = body_of(read_reply(w, fds[i]));
        if (first == NULL)
            first = reply;
        assert_string_equal(reply, first);
    }
    has(first, "all of you");
}

static void test_event_clients_go_away(void **state)
{
    struct core_world *w = *state;
    const char *token = current_token(w);

    for (unsigned i = 0; i < 20; i++) {
        int fd = dial(w);
        send_request(w, fd, "POST", "/", "", event_call(w, "vm", token, "60"));
        if (i % 2)
            wait_parked(w, 1);
        close(fd);
        wait_parked(w, 0);
    }
}

/* --- size ------------------------------------------------------------------------------------------------------------------ */

static void test_many_records_are_streamed(void **state)
{
    struct core_world *w = *state;
    struct http_client *client = http_client_new();
    struct http_target target = { .address = "127.0.0.1", .port = w->xapi.http_port };
    struct call c = { .arena = w->arena, .clock = &clock_real };
    struct http_answer answer;
    struct value value;
    const char *reason, *call;

    for (unsigned i = 0; i < 300; i++)
        core_vm(w, "one of many");
    call = xml_call(w, "VM.get_all_records", "");
    assert_int_equal(http_client_post(&c, client, &target, "/", "text/xml", NULL, call, strlen(call), 64u << 20, &answer), 0);
    assert_true(xmlrpc_parse_answer(w->arena, answer.body, answer.body_len, &value, &reason));
    assert_int_equal(value_get(&value, "Value")->len, db_count(w->xapi.db, &model_classes[CLASS_VM]));
    http_client_free(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xml_login_golden),
        cmocka_unit_test(test_xml_failure_golden),
        cmocka_unit_test(test_xml_values_golden),
        cmocka_unit_test(test_list_methods_is_bare),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_json_golden),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_wrong_password_takes_time),
        cmocka_unit_test(test_unix_socket_is_root),
        cmocka_unit_test(test_pool_secret),
        cmocka_unit_test(test_event_parks_and_wakes),
        cmocka_unit_test(test_event_bodies_agree),
        cmocka_unit_test(test_event_filters_keep_it_parked),
        cmocka_unit_test(test_event_timeout),
        cmocka_unit_test(test_event_ends_with_the_session),
        cmocka_unit_test(test_event_crowd),
        cmocka_unit_test(test_event_clients_go_away),
        cmocka_unit_test(test_many_records_are_streamed),
    };

    xmlrpc_setup(32u << 20);
    return cmocka_run_group_tests(tests, setup, teardown);
}
