#include "rpc/wire/envelope.h"

#include <string.h>

#include "rpc/wire/json.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/lib/unit.h"

static int setup(void **state)
{
    xmlrpc_setup(1u << 20);
    return 0;
}

/* The bytes of specs/clients.md §0, literally. */

#define XML_OK(v)                                                                                                  \
    "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>Status</name><value>Success" \
    "</value></member><member><name>Value</name><value>" v "</value></member></struct></value></param></params></methodResponse>"

static const struct wire_call xml = { .format = WIRE_XMLRPC };
static const struct wire_call json1 = { .format = WIRE_JSON1, .id_text = "7", .id_text_len = 1 };
static const struct wire_call json2 = { .format = WIRE_JSON2, .id_text = "7", .id_text_len = 1 };

static void assert_success(struct value v, const char *in_xml, const char *in_json)
{
    AUTO_TEXT t = TEXT_INIT, expected = TEXT_INIT;

    wire_write_success(&t, &xml, &v);
    assert_string_equal(t.bytes, in_xml);
    text_clear(&t);
    text_printf(&expected, "{\"jsonrpc\":\"2.0\",\"result\":%s,\"id\":7}", in_json);
    wire_write_success(&t, &json2, &v);
    assert_string_equal(t.bytes, expected.bytes);
    text_clear(&t);
    text_clear(&expected);
    text_printf(&expected, "{\"result\":%s,\"error\":null,\"id\":7}", in_json);
    wire_write_success(&t, &json1, &v);
    assert_string_equal(t.bytes, expected.bytes);
}

static void test_wire_write_success(void **state)
{
    struct value ref = value_string("OpaqueRef:NULL");
    struct member fields[] = { member_of("uuid", value_string("u")), member_of("VCPUs_max", value_int(4)),
                               member_of("is_a_template", value_bool(false)) };

    assert_success(value_void(), XML_OK(""), "\"\"");
    assert_success(value_string(""), XML_OK(""), "\"\"");
    assert_success(value_int(4294967296), XML_OK("4294967296"), "4294967296");
    assert_success(value_int32(3), XML_OK("<i4>3</i4>"), "3");
    assert_success(value_bool(true), XML_OK("<boolean>1</boolean>"), "true");
    assert_success(value_float(0.25), XML_OK("<double>0.25</double>"), "0.25");
    assert_success(value_datetime(1795324445), XML_OK("<dateTime.iso8601>20261122T05:14:05Z</dateTime.iso8601>"),
                   "\"20261122T05:14:05Z\"");
    assert_success(value_set(NULL, 0), XML_OK("<array><data></data></array>"), "[]");
    assert_success(value_map(NULL, 0), XML_OK("<struct></struct>"), "{}");
    assert_success(value_set(&ref, 1), XML_OK("<array><data><value>OpaqueRef:NULL</value></data></array>"), "[\"OpaqueRef:NULL\"]");
    assert_success(value_map(fields, 3),
                   XML_OK("<struct><member><name>uuid</name><value>u</value></member><member><name>VCPUs_max</name><value>4</value>"
                          "</member><member><name>is_a_template</name><value><boolean>0</boolean></value></member></struct>"),
                   "{\"uuid\":\"u\",\"VCPUs_max\":4,\"is_a_template\":false}");
}

/* A task's result is a fragment of XML whatever the protocol that reads it. */
static void test_wire_write_task_result(void **state)
{
    AUTO_TEXT fragment = TEXT_INIT;
    struct value ref = value_string("OpaqueRef:1");

    xmlrpc_write_value(&fragment, &ref);
    assert_success(value_string(fragment.bytes), XML_OK("&lt;value&gt;OpaqueRef:1&lt;/value&gt;"), "\"<value>OpaqueRef:1</value>\"");
}

static void test_wire_write_bare(void **state)
{
    AUTO_TEXT t = TEXT_INIT;
    struct value items[] = { value_string("VM.start"), value_string("VM.stop") }, v = value_set(items, 2);

    wire_write_bare(&t, &xml, &v);
    assert_string_equal(t.bytes, "<?xml version=\"1.0\"?><methodResponse><params><param><value><array><data><value>VM.start</value>"
                                 "<value>VM.stop</value></data></array></value></param></params></methodResponse>");
    text_clear(&t);
    wire_write_bare(&t, &json2, &v);
    assert_string_equal(t.bytes, "{\"jsonrpc\":\"2.0\",\"result\":[\"VM.start\",\"VM.stop\"],\"id\":7}");
}

static void test_wire_write_failure(void **state)
{
    static const char *const params[] = { "OpaqueRef:1", "<halted>", "bad \xff byte" };
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    struct error *e = error_from_strings(a, "VM_BAD_POWER_STATE", 3, params), *bare = error_from_strings(a, "MESSAGE_REMOVED", 0, NULL);

    wire_write_failure(&t, &xml, e);
    assert_string_equal(t.bytes, "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>Status</name><value>"
                                 "Failure</value></member><member><name>ErrorDescription</name><value><array><data><value>"
                                 "VM_BAD_POWER_STATE</value><value>OpaqueRef:1</value><value>&lt;halted&gt;</value><value>bad ? byte</value>"
                                 "</data></array></value></member></struct></value></param></params></methodResponse>");
    text_clear(&t);
    wire_write_failure(&t, &json2, e);
    assert_string_equal(t.bytes, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"VM_BAD_POWER_STATE\",\"data\":"
                                 "[\"OpaqueRef:1\",\"<halted>\",\"bad ? byte\"]},\"id\":7}");
    text_clear(&t);
    wire_write_failure(&t, &json2, bare);
    assert_string_equal(t.bytes, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"MESSAGE_REMOVED\",\"data\":[]},\"id\":7}");
    text_clear(&t);
    wire_write_failure(&t, &json1, e);
    assert_string_equal(t.bytes, "{\"result\":null,\"error\":[\"VM_BAD_POWER_STATE\",\"OpaqueRef:1\",\"<halted>\",\"bad ? byte\"],\"id\":7}");
    text_clear(&t);
    wire_write_failure(&t, &json1, bare);
    assert_string_equal(t.bytes, "{\"result\":null,\"error\":[\"MESSAGE_REMOVED\"],\"id\":7}");
}

static void test_wire_content_type(void **state)
{
    assert_string_equal(wire_content_type(WIRE_XMLRPC), "text/xml");
    assert_string_equal(wire_content_type(WIRE_JSON1), "application/json");
    assert_string_equal(wire_content_type(WIRE_JSON2), "application/json");
}

/* --- JSON-RPC requests -------------------------------------------------------------------------- */

static const struct {
    const char *request;
    int format;
    const char *params; /* as JSON */
    const char *id;     /* as it is echoed */
} good[] = {
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"params\":[\"a\",1,true],\"id\":1}", WIRE_JSON2, "[\"a\",1,true]", "1" },
    { "{\"method\":\"VM.x\",\"params\":[],\"id\":0}", WIRE_JSON1, "[]", "0" },
    { "{\"jsonrpc\":\"1.0\",\"method\":\"VM.x\",\"params\":[],\"id\":0}", WIRE_JSON1, "[]", "0" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":9007199254740993}", WIRE_JSON2, "[]", "9007199254740993" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"params\":null,\"id\":\"abc\"}", WIRE_JSON2, "[]", "\"abc\"" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\": \"\\u00e4\\/\" }", WIRE_JSON2, "[]", "\"\\u00e4\\/\"" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":1.50}", WIRE_JSON2, "[]", "1.50" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":1E2}", WIRE_JSON2, "[]", "1E2" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":-0}", WIRE_JSON2, "[]", "-0" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":null}", WIRE_JSON2, "[]", "null" },
    { "{\"id\":1,\"id\":2,\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"params\":{\"id\":3}}", WIRE_JSON2, "{\"id\":3}", "2" },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"params\":[{\"id\":\"}],\\\"id\\\":5\"},[\"id\"]],\"\\u0069d\":6}", WIRE_JSON2,
      "[{\"id\":\"}],\\\"id\\\":5\"},[\"id\"]]", "6" },
    { "\n{ \"params\" : { \"self\" : \"r\" } , \"id\" : 4 , \"method\" : \"VM.x\" , \"jsonrpc\" : \"2.0\" , \"extra\" : [ ] }\n", WIRE_JSON2,
      "{\"self\":\"r\"}", "4" },
};

static void test_wire_parse_jsonrpc_good(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT t = TEXT_INIT, expected = TEXT_INIT;
        const char *reason = NULL;
        struct value v = value_void();
        struct wire_call call;

        if (!wire_parse_jsonrpc(a, good[i].request, strlen(good[i].request), &call, &reason))
            fail_msg("row %u: %s: %s", i, good[i].request, reason);
        assert_int_equal(call.format, good[i].format);
        assert_string_equal(call.method, "VM.x");
        json_write(&t, &call.params);
        assert_string_equal(t.bytes, good[i].params);

        text_clear(&t);
        wire_write_success(&t, &call, &v);
        text_printf(&expected, call.format == WIRE_JSON2 ? "{\"jsonrpc\":\"2.0\",\"result\":\"\",\"id\":%s}" : "{\"result\":\"\",\"error\":null,\"id\":%s}", good[i].id);
        assert_string_equal(t.bytes, expected.bytes);
    }
}

#define REFUSED2(id, reason) "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32600,\"message\":\"Invalid Request\",\"data\":[\"" reason "\"]},\"id\":" id "}"
#define REFUSED1(id, reason) "{\"result\":null,\"error\":[\"INTERNAL_ERROR\",\"" reason "\"],\"id\":" id "}"

static const struct {
    const char *request, *reply;
} bad[] = {
    { "", REFUSED2("null", "it is empty") },
    { "{", REFUSED2("null", "it is truncated") },
    { "\"x\"", REFUSED2("null", "the request is not an object") },
    { "[{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":1}]", REFUSED2("null", "batch requests are not supported") },
    { "[]", REFUSED2("null", "batch requests are not supported") },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\"}", REFUSED2("null", "the id is missing") },
    { "{\"method\":\"VM.x\",\"params\":[]}", REFUSED1("null", "the id is missing") },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":[1]}", REFUSED2("null", "the id is neither a string nor a number") },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"id\":true}", REFUSED2("null", "the id is neither a string nor a number") },
    { "{\"jsonrpc\":\"3.0\",\"method\":\"VM.x\",\"id\":\"a\"}", REFUSED2("\"a\"", "the version in 'jsonrpc' is not known") },
    { "{\"jsonrpc\":2.0,\"method\":\"VM.x\",\"id\":1.0}", REFUSED2("1.0", "the version in 'jsonrpc' is not known") },
    { "{\"jsonrpc\":\"2.0\",\"id\":1}", REFUSED2("1", "the method is missing or no string") },
    { "{\"jsonrpc\":\"2.0\",\"method\":5,\"id\":1}", REFUSED2("1", "the method is missing or no string") },
    { "{\"jsonrpc\":\"2.0\",\"method\":\"\",\"id\":1}", REFUSED2("1", "the method is missing or no string") },
    { "{\"method\":\"VM.x\",\"params\":5,\"id\":1}", REFUSED1("1", "the params are neither a list nor an object") },
};

static void test_wire_parse_jsonrpc_bad(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT t = TEXT_INIT;
        const char *reason = NULL;
        struct wire_call call;

        if (wire_parse_jsonrpc(a, bad[i].request, strlen(bad[i].request), &call, &reason))
            fail_msg("row %u was accepted: %s", i, bad[i].request);
        wire_write_malformed(&t, &call, reason);
        assert_string_equal(t.bytes, bad[i].reply);
    }
}

/* 64 levels of values inside the envelope, as over XML-RPC. */
static void test_wire_parse_jsonrpc_nesting(void **state)
{
    for (unsigned n = 64; n <= 65; n++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT t = TEXT_INIT;
        const char *reason;
        struct wire_call call;

        text_add(&t, "{\"method\":\"VM.x\",\"id\":1,\"params\":[");
        for (unsigned i = 0; i < n; i++)
            text_add(&t, "[");
        for (unsigned i = 0; i < n; i++)
            text_add(&t, "]");
        text_add(&t, "]}");
        assert_int_equal(wire_parse_jsonrpc(a, t.bytes, t.len, &call, &reason), n == 64);
    }
}

/* --- the caller's side -------------------------------------------------------------------------- */

static void test_wire_answers_round_trip(void **state)
{
    static const char *const params[] = { "VM", "OpaqueRef:1" };
    static const struct wire_call *const calls[] = { &xml, &json1, &json2 };

    for (unsigned i = 0; i < ARRAY_LEN(calls); i++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT t = TEXT_INIT;
        struct value items[] = { value_string("x"), value_bool(true) }, v = value_set(items, 2), back;

        wire_write_success(&t, calls[i], &v);
        assert_null(wire_parse_answer(a, calls[i]->format, t.bytes, t.len, &back));
        assert_true(value_equal(&v, &back));

        text_clear(&t);
        wire_write_failure(&t, calls[i], error_from_strings(a, "HANDLE_INVALID", 2, params));
        struct error *e = wire_parse_answer(a, calls[i]->format, t.bytes, t.len, &back);
        assert_true(error_is(e, "HANDLE_INVALID"));
        assert_int_equal(e->n_params, 2);
        assert_string_equal(e->params[1], "OpaqueRef:1");

        text_clear(&t);
        wire_write_bare(&t, calls[i], &v);
        assert_null(wire_parse_answer(a, calls[i]->format, t.bytes, t.len, &back));
        assert_true(value_equal(&v, &back));

        assert_true(error_is(wire_parse_answer(a, calls[i]->format, "<html>", 6, &back), "INTERNAL_ERROR"));
        assert_true(error_is(wire_parse_answer(a, calls[i]->format, "", 0, &back), "INTERNAL_ERROR"));
    }
}

static void test_wire_write_call(void **state)
{
    struct value params[] = { value_string("s"), value_int(5) };
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    struct wire_call call;
    const char *reason;

    wire_write_call(&t, WIRE_JSON2, "VM.x", params, 2);
    assert_string_equal(t.bytes, "{\"jsonrpc\":\"2.0\",\"method\":\"VM.x\",\"params\":[\"s\",5],\"id\":0}");
    assert_true(wire_parse_jsonrpc(a, t.bytes, t.len, &call, &reason));
    text_clear(&t);
    wire_write_call(&t, WIRE_JSON1, "VM.x", params, 0);
    assert_string_equal(t.bytes, "{\"method\":\"VM.x\",\"params\":[],\"id\":0}");
    text_clear(&t);
    wire_write_call(&t, WIRE_XMLRPC, "VM.x", params, 2);
    assert_non_null(strstr(t.bytes, "<methodName>VM.x</methodName><params><param><value>s</value></param><param><value>5</value></param></params>"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire_write_success),
        cmocka_unit_test(test_wire_write_task_result),
        cmocka_unit_test(test_wire_write_bare),
        cmocka_unit_test(test_wire_write_failure),
        cmocka_unit_test(test_wire_content_type),
        cmocka_unit_test(test_wire_parse_jsonrpc_good),
        cmocka_unit_test(test_wire_parse_jsonrpc_bad),
        cmocka_unit_test(test_wire_parse_jsonrpc_nesting),
        cmocka_unit_test(test_wire_answers_round_trip),
        cmocka_unit_test(test_wire_write_call),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
