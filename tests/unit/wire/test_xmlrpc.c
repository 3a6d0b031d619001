#include "rpc/wire/xmlrpc.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "rpc/wire/json.h"
#include "tests/lib/unit.h"

#define CALL(params) "<?xml version=\"1.0\"?><methodCall><methodName>VM.x</methodName><params>" params "</params></methodCall>"
#define ONE(value) CALL("<param>" value "</param>")

static int setup(void **state)
{
    xmlrpc_setup(16u << 20);
    return 0;
}

/* --- what is read ------------------------------------------------------------------------------- */

static const struct {
    const char *xml;
    const char *params; /* as JSON, which tells ints from strings */
} good[] = {
    { ONE("<value>bare</value>"), "[\"bare\"]" },
    { ONE("<value><string>tagged</string></value>"), "[\"tagged\"]" },
    { ONE("<value></value>"), "[\"\"]" },
    { ONE("<value/>"), "[\"\"]" },
    { ONE("<value><string/></value>"), "[\"\"]" },
    { ONE("<value><string></string></value>"), "[\"\"]" },
    { ONE("<value>  two  </value>"), "[\"  two  \"]" },
    { ONE("<value>123</value>"), "[\"123\"]" },
    { ONE("<value>&lt;&gt;&amp;&quot;&apos;</value>"), "[\"<>&\\\"'\"]" },
    { ONE("<value>&#65;&#x42;&#x63;</value>"), "[\"ABc\"]" },
    { ONE("<value>a\tb\nc</value>"), "[\"a\\tb\\nc\"]" },
    { ONE("<value>a\r\nb\rc</value>"), "[\"a\\nb\\nc\"]" }, /* XML says so */
    { ONE("<value>a&#13;\nb&#xD;&#x0d;c&#10;</value>"), "[\"a\\r\\nb\\r\\rc\\n\"]" },
    { ONE("<value><![CDATA[<a>&amp;]]> b</value>"), "[\"<a>&amp; b\"]" },
    { ONE("<value>a<!-- <value> & -- -->b</value>"), NULL }, /* no comment of XML */
    { ONE("<value>a<!-- <value> & -->b</value>"), "[\"ab\"]" },
    { ONE("<value>\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80!</value>"), "[\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80!\"]" },
    { ONE("<value>&#x1F600;&#128512;</value>"), "[\"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\"]" },
    { ONE("<value><![CDATA[\xf0\x9f\x98\x80]]></value>"), "[\"\xf0\x9f\x98\x80\"]" },
    { ONE("<value>\xf4\x8f\xbf\xbd&#x10FFFD;\xee\x80\x80\xef\xbf\xbd</value>"), "[\"\xf4\x8f\xbf\xbd\xf4\x8f\xbf\xbd\xee\x80\x80\xef\xbf\xbd\"]" },
    { ONE("<value>\x7f</value>"), "[\"\x7f\"]" },
    { ONE("<value><int>5</int></value>"), "[5]" },
    { ONE("<value><i4>-5</i4></value>"), "[-5]" },
    { ONE("<value><i8>9223372036854775807</i8></value>"), "[9223372036854775807]" },
    { ONE("<value><ex:i8>-9223372036854775808</ex:i8></value>"), "[-9223372036854775808]" },
    { ONE("<value><int>3000000000</int></value>"), "[3000000000]" },
    { ONE("<value><i4> +7\n</i4></value>"), "[7]" },
    { ONE("<value>\n<i4 >7</i4\n>\n</value>"), "[7]" },
    { ONE("<value><i4>1<!-- -->2</i4></value>"), "[12]" },
    { ONE("<value><i4>&#49;</i4></value>"), "[1]" },
    { ONE("<value><boolean>1</boolean></value>"), "[true]" },
    { ONE("<value><boolean>0</boolean></value>"), "[false]" },
    { ONE("<value><double>0.1</double></value>"), "[0.1]" },
    { ONE("<value><double>1e-05</double></value>"), "[1e-05]" },
    { ONE("<value><double> -30.0 </double></value>"), "[-30]" },
    { ONE("<value><double>nan</double></value>"), "[\"NaN\"]" },
    { ONE("<value><double>-inf</double></value>"), "[\"-Infinity\"]" },
    { ONE("<value><dateTime.iso8601>20261122T05:14:05Z</dateTime.iso8601></value>"), "[\"20261122T05:14:05Z\"]" },
    { ONE("<value><dateTime.iso8601>2026-11-22T05:14:05</dateTime.iso8601></value>"), "[\"20261122T05:14:05Z\"]" },
    { ONE("<value><dateTime.iso8601>20261122T05:14:05+01:00</dateTime.iso8601></value>"), "[\"20261122T04:14:05Z\"]" },
    { ONE("<value><nil/></value>"), "[null]" },
    { ONE("<value><ex:nil/></value>"), "[null]" },
    { ONE("<value><array><data></data></array></value>"), "[[]]" },
    { ONE("<value><array><data/></array></value>"), "[[]]" },
    { ONE("<value><array><data><value>a</value><value><i4>1</i4></value></data></array></value>"), "[[\"a\",1]]" },
    { ONE("<value><struct></struct></value>"), "[{}]" },
    { ONE("<value><struct/></value>"), "[{}]" },
    { ONE("<value><struct><member><name>a&#13;\xf0\x9f\x98\x80</name><value>b</value></member></struct></value>"),
      "[{\"a\\r\xf0\x9f\x98\x80\":\"b\"}]" },
    { ONE("<value><struct><member><value>b</value><name>a</name></member></struct></value>"), "[{\"a\":\"b\"}]" },
    { ONE("<value><struct><member><name>a</name><value>1</value></member><member><name>a</name><value>2</value></member></struct></value>"),
      "[{\"a\":\"2\"}]" },
    { ONE("<value><struct><member><name/><value>1</value></member></struct></value>"), "[{\"\":\"1\"}]" },
    { CALL(""), "[]" },
    { CALL("<param><value>a</value></param><param><value>b</value></param>"), "[\"a\",\"b\"]" },
    { "<methodCall><methodName>VM.x</methodName></methodCall>", "[]" },
    { "<methodCall><methodName>VM.x</methodName><params/></methodCall>", "[]" },
    { "\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?><methodCall><methodName>VM.x</methodName></methodCall>", "[]" },
    { "<?xml version=\"1.0\" encoding = \"US-ASCII\" standalone=\"yes\" ?>\n<methodCall><methodName>VM.x</methodName></methodCall>", "[]" },
    { "<methodCall xmlns:ex=\"http://ws.apache.org/xmlrpc/namespaces/extensions\"><methodName>VM.x</methodName></methodCall>", "[]" },
    { "<!-- a --><methodCall><!-- b --><methodName>VM.x</methodName></methodCall><!-- c -->\n", "[]" },
    { "<?xml version='1.0'?>\n<methodCall>\n<methodName>VM.x</methodName>\n<params>\n<param>\n<value><string>s</string></value>\n"
      "</param>\n<param>\n<value><struct>\n<member>\n<name>live</name>\n<value><string>true</string></value>\n</member>\n"
      "</struct></value>\n</param>\n<param>\n<value><array><data>\n<value><boolean>1</boolean></value>\n</data></array></value>\n"
      "</param>\n</params>\n</methodCall>\n",
      "[\"s\",{\"live\":\"true\"},[true]]" },
    { "<methodCall>\n\t<methodName> VM.x </methodName>\n\t<params>\n\t\t<param>\n\t\t\t<value>\n\t\t\t\t<i4>\n\t\t\t\t\t1\n\t\t\t\t</i4>\n"
      "\t\t\t</value>\n\t\t</param>\n\t</params>\n</methodCall>",
      "[1]" },
};

static void test_xmlrpc_parse_request_good(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
        AUTO_ARENA a = arena_new();
        AUTO_TEXT t = TEXT_INIT;
        const char *method = NULL, *reason = NULL;
        struct value params;

        bool ok = xmlrpc_parse_request(a, good[i].xml, strlen(good[i].xml), &method, &params, &reason);
        if (ok != (good[i].params != NULL))
            fail_msg("row %u: %s: %s", i, good[i].xml, reason);
        if (!ok)
            continue;
        assert_string_equal(method, "VM.x");
        json_write(&t, &params);
        if (strcmp(t.bytes, good[i].params) != 0)
            fail_msg("row %u: %s: %s", i, good[i].xml, t.bytes);
    }
}

/* --- what is refused ---------------------------------------------------------------------------- */

static const struct {
    const char *xml;
    const char *reason; /* part of it */
} bad[] = {
    { "", "" },
    { "x", "" },
    { "<", "" },
    { "<methodCall", "" },
    { "<methodCall>", "truncated" },
    { "GET / HTTP/1.1", "" },
    { "{\"method\":\"x\"}", "" },
    { "<methodResponse><params><param><value>1</value></param></params></methodResponse>", "methodCall" },
    { "<value>1</value>", "methodCall" },
    { CALL("") "x", "junk" },
    { CALL("") CALL(""), "" },
    { "<methodCall><methodName></methodName></methodCall>", "no name" },
    { "<methodCall><params></params></methodCall>", "" },
    { "<methodCall><methodName><i4>5</i4></methodName></methodCall>", "" },
    { "<!DOCTYPE m [<!ENTITY a \"x\">]><methodCall><methodName>&a;</methodName></methodCall>", "not accepted" },
    { "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">"
      "<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;\">]>"
      "<methodCall><methodName>&d;</methodName></methodCall>", "not accepted" },
    { "<!doctype x><methodCall/>", "not accepted" },
    { ONE("<value><!ELEMENT a></value>"), "not accepted" },
    { ONE("<value><![INCLUDE[x]]></value>"), "not accepted" },
    { ONE("<value><! -- x --></value>"), "not accepted" },
    { ONE("<value><!-- x </value>"), "no end" },
    { ONE("<value><![CDATA[ x </value>"), "no end" },
    { ONE("<value><?php x?></value>"), "processing" },
    { "<methodCall/><?xml version=\"1.0\"?>", "processing" },
    { "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><methodCall/>", "encoding" },
    { "<?xml version=\"1.0\" encoding=\"UTF-16\"?><methodCall/>", "encoding" },
    { "<?xml version=\"1.0\" encoding=UTF-8?><methodCall/>", "encoding" },
    { "<?xml version=\"1.0\" encoding=\"UTF-8?><methodCall/>", "encoding" },
    { "<?xml version=\"1.0\"", "no end" },
    { ONE("<value>\xff</value>"), "UTF-8" },
    { ONE("<value>\xc0\x80</value>"), "UTF-8" },
    { ONE("<value>\xe0\x80\x80</value>"), "UTF-8" },
    { ONE("<value>\xed\xa0\x80</value>"), "UTF-8" },
    { ONE("<value>\xf5\x80\x80\x80</value>"), "UTF-8" },
    { ONE("<value>\xf4\x90\x80\x80</value>"), "UTF-8" },
    { ONE("<value>\xe2\x82</value>"), "UTF-8" },
    { ONE("<value>\xef\xbf\xbf</value>"), "noncharacter" },
    { ONE("<value>\xef\xb7\x90</value>"), "noncharacter" },
    { ONE("<value>\xef\xb7\x91i5</value>"), "noncharacter" },
    { ONE("<value>&#xFDD0;</value>"), "noncharacter" },
    { ONE("<value>&#64977;i5</value>"), "noncharacter" },
    { ONE("<value>&#xFFFE;</value>"), "noncharacter" },
    { ONE("<value>&#0;</value>"), "" },
    { ONE("<value>&#1;</value>"), "" },
    { ONE("<value>&#xD800;</value>"), "" },
    { ONE("<value>&#x110000;</value>"), "" },
    { ONE("<value>&#99999999999999999999;</value>"), "" },
    { ONE("<value>&#x;</value>"), "" },
    { ONE("<value>&#;</value>"), "" },
    { ONE("<value>&#</value>"), "" },
    { ONE("<value>&#13</value>"), "" },
    { ONE("<value>&nbsp;</value>"), "" },
    { ONE("<value>a & b</value>"), "" },
    { ONE("<value>\x01</value>"), "" },
    { ONE("<value>]]></value>"), "" },
    { ONE("<value><i4>5</i8></value>"), "closes nothing" },
    { ONE("<value><i4></i4></value>"), "integer" },
    { ONE("<value><i4/></value>"), "empty" },
    { ONE("<value><i8>9223372036854775808</i8></value>"), "integer" },
    { ONE("<value><i8>-9223372036854775809</i8></value>"), "integer" },
    { ONE("<value><i8>99999999999999999999999999</i8></value>"), "integer" },
    { ONE("<value><i8>0x5</i8></value>"), "integer" },
    { ONE("<value><i8>1.0</i8></value>"), "integer" },
    { ONE("<value><i8>-</i8></value>"), "integer" },
    { ONE("<value><i8>--5</i8></value>"), "integer" },
    { ONE("<value><i4><b>5</b></i4></value>"), "holds an element" },
    { ONE("<value><boolean>true</boolean></value>"), "boolean" },
    { ONE("<value><boolean>2</boolean></value>"), "boolean" },
    { ONE("<value><double></double></value>"), "floating" },
    { ONE("<value><double>1e400</double></value>"), "floating" },
    { ONE("<value><double>0x1p3</double></value>"), "floating" },
    { ONE("<value><double>1,5</double></value>"), "floating" },
    { ONE("<value><double>nan(1)</double></value>"), "floating" },
    { ONE("<value><dateTime.iso8601>yesterday</dateTime.iso8601></value>"), "date" },
    { ONE("<value><dateTime.iso8601>20261322T05:14:05Z</dateTime.iso8601></value>"), "date" },
    { ONE("<value><base64>aGk=</base64></value>"), "base64" },
    { ONE("<value><long>1</long></value>"), "<long>" },
    { ONE("<value><a:b xmlns:a='x'>1</a:b></value>"), "<a:b>" },
    { ONE("<value><string a='1'>x</string></value>"), "attributes" },
    { ONE("<value><string>a<i4>5</i4></string></value>"), "" },
    { ONE("<value><string>a</string><i4>1</i4></value>"), "" },
    { ONE("<value><array><value>a</value></array></value>"), "" },
    { ONE("<value><array></array></value>"), "" },
    { ONE("<value><struct><name>a</name></struct></value>"), "" },
    { ONE("<value><struct><member><name>a</name></member></struct></value>"), "" },
    { ONE("<value><struct><member><name><i4>5</i4></name><value>a</value></member></struct></value>"), "" },
    { CALL("<value>a</value>"), "" },
    { CALL("</param>"), "" },
    { "</methodCall>", "closes nothing" },
    { "<methodCall a=\"></methodCall>", "" },
    { "<methodCall></methodCall/>", "" },
};

static void test_xmlrpc_parse_request_bad(void **state)
{
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        AUTO_ARENA a = arena_new();
        const char *method, *reason = NULL;
        struct value params;

        if (xmlrpc_parse_request(a, bad[i].xml, strlen(bad[i].xml), &method, &params, &reason))
            fail_msg("row %u was accepted: %s", i, bad[i].xml);
        assert_non_null(reason);
        if (strstr(reason, bad[i].reason) == NULL)
            fail_msg("row %u: %s: %s", i, bad[i].xml, reason);
    }
}

static bool parses(const char *bytes, size_t len)
{
    AUTO_ARENA a = arena_new();
    const char *method, *reason = NULL;
    struct value params;

    return xmlrpc_parse_request(a, bytes, len, &method, &params, &reason);
}

static void test_xmlrpc_parse_request_nul(void **state)
{
    static const char xml[] = ONE("<value>a\0b</value>");

    assert_false(parses(xml, sizeof(xml) - 1));
    assert_false(parses("\0", 1));
}

/* Everything short of the whole is refused, and nothing crashes on a changed byte. */
static void test_xmlrpc_parse_request_damaged(void **state)
{
    const char *xml = ONE("<value><struct><member><name>a&#13;</name><value><i8>12</i8></value></member><member><name>b</name>"
                          "<value><array><data><value>\xf0\x9f\x98\x80</value><value><dateTime.iso8601>20261122T05:14:05Z"
                          "</dateTime.iso8601></value></data></array></value></member></struct></value>");
    size_t len = strlen(xml);

    assert_true(parses(xml, len));
    for (size_t i = 0; i < len; i++) {
        AUTO_FREE char *copy = xstrndup(xml, i);
        assert_false(parses(copy, i));
    }
    for (size_t i = 0; i < len; i++) {
        AUTO_FREE char *copy = xstrndup(xml, len);
        for (unsigned k = 0; k < 8; k++) {
            copy[i] = (char)((unsigned char)xml[i] ^ 1u << k);
            (void)parses(copy, len);
        }
        copy[i] = '<';
        (void)parses(copy, len);
    }
}

static void add_times(struct text *t, const char *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        text_add(t, s);
}

static bool nested_parses(const char *open, const char *close, unsigned n)
{
    AUTO_TEXT t = TEXT_INIT;

    text_add(&t, "<methodCall><methodName>VM.x</methodName><params><param>");
    add_times(&t, open, n);
    add_times(&t, close, n);
    text_add(&t, "</param></params></methodCall>");
    return parses(t.bytes, t.len);
}

static void test_xmlrpc_parse_request_nesting(void **state)
{
    assert_true(nested_parses("<value><array><data>", "</data></array></value>", 64));
    assert_false(nested_parses("<value><array><data>", "</data></array></value>", 65));
    assert_false(nested_parses("<value><array><data>", "</data></array></value>", 100000));
    assert_false(nested_parses("<data>", "</data>", 100000));
    assert_false(nested_parses("<value><array><data>", "", 100000));
}

static void test_xmlrpc_parse_request_large(void **state)
{
    AUTO_TEXT t = TEXT_INIT, members = TEXT_INIT;

    text_add(&t, "<methodCall><methodName>VM.x</methodName><params><param><value>");
    add_times(&t, "0123456789&#13;", 200000); /* more than xmlrpc-c's default of 512 KB */
    text_add(&t, "</value></param></params></methodCall>");
    assert_true(parses(t.bytes, t.len));

    text_add(&members, "<methodCall><methodName>VM.x</methodName><params><param><value><struct>");
    for (unsigned i = 0; i < 4097; i++)
        text_printf(&members, "<member><name>%u</name><value/></member>", i);
    text_add(&members, "</struct></value></param></params></methodCall>");
    assert_false(parses(members.bytes, members.len)); /* one too many */
}

/* --- what is written ---------------------------------------------------------------------------- */

static void assert_written(struct value v, const char *xml)
{
    AUTO_TEXT t = TEXT_INIT;

    xmlrpc_write_value(&t, &v);
    assert_string_equal(t.bytes, xml);
    assert_int_equal(t.len, strlen(xml));
}

static void test_xmlrpc_write_scalars(void **state)
{
    assert_written(value_void(), "<value></value>");
    assert_written(value_string(""), "<value></value>");
    assert_written(value_string("OpaqueRef:NULL"), "<value>OpaqueRef:NULL</value>");
    assert_written(value_string("<a & \"b\" 'c'>"), "<value>&lt;a &amp; &quot;b&quot; 'c'&gt;</value>");
    assert_written(value_string("tab\tline\nreturn\rbell\a\x1f!"), "<value>tab\tline\nreturn&#13;bell!</value>");
    assert_written(value_string("\xc3\xa4 \xf0\x9f\x98\x80 \x7f"), "<value>\xc3\xa4 \xf0\x9f\x98\x80 \x7f</value>");
    assert_written(value_int(0), "<value>0</value>");
    assert_written(value_int(-7), "<value>-7</value>");
    assert_written(value_int(4294967296), "<value>4294967296</value>");
    assert_written(value_int(INT64_MAX), "<value>9223372036854775807</value>");
    assert_written(value_int(INT64_MIN), "<value>-9223372036854775808</value>");
    assert_written(value_int32(42), "<value><i4>42</i4></value>");
    assert_written(value_bool(true), "<value><boolean>1</boolean></value>");
    assert_written(value_bool(false), "<value><boolean>0</boolean></value>");
    assert_written(value_float(0.1), "<value><double>0.1</double></value>");
    assert_written(value_float(1.0), "<value><double>1</double></value>");
    assert_written(value_float(-0.0), "<value><double>-0</double></value>");
    assert_written(value_float(1e15), "<value><double>1000000000000000</double></value>");
    assert_written(value_float(1e17), "<value><double>1e+17</double></value>");
    assert_written(value_float(1.0 / 3), "<value><double>0.3333333333333333</double></value>");
    assert_written(value_float(NAN), "<value><double>nan</double></value>");
    assert_written(value_float(-INFINITY), "<value><double>-inf</double></value>");
    assert_written(value_datetime(1795324445), "<value><dateTime.iso8601>20261122T05:14:05Z</dateTime.iso8601></value>");
    assert_written((struct value){ .kind = VALUE_NIL }, "<value><nil/></value>");
}

static void test_xmlrpc_write_containers(void **state)
{
    struct value items[] = { value_string("a"), value_int(1) };
    struct member members[] = { member_of("k<", value_string("v")), member_of("n", value_set(NULL, 0)) };

    assert_written(value_set(NULL, 0), "<value><array><data></data></array></value>");
    assert_written(value_map(NULL, 0), "<value><struct></struct></value>");
    assert_written(value_set(items, 2), "<value><array><data><value>a</value><value>1</value></data></array></value>");
    assert_written(value_map(members, 2),
                   "<value><struct><member><name>k&lt;</name><value>v</value></member><member><name>n</name>"
                   "<value><array><data></data></array></value></member></struct></value>");
}

/* Each special byte at each place of strings of each length around the vector width. */
static void test_xmlrpc_write_escapes_everywhere(void **state)
{
    for (size_t len = 1; len <= 70; len++) {
        for (size_t at = 0; at < len; at++) {
            AUTO_ARENA a = arena_new();
            AUTO_TEXT t = TEXT_INIT;
            char s[80];
            struct value back;

            memset(s, 'x', len);
            s[len] = '\0';
            s[at] = "<>&\"\r\n\t"[(at + len) % 7];
            s[len - 1 - at] = "<>&\"\r\n\t"[at % 7];
            struct value v = value_string_len(s, len);
            xmlrpc_write_value(&t, &v);
            assert_true(xmlrpc_parse_fragment(a, t.bytes, t.len, &back));
            assert_true(value_equal(&v, &back));
        }
    }
}

static void test_xmlrpc_write_call(void **state)
{
    struct value params[] = { value_string("ref"), value_bool(true) };
    AUTO_TEXT t = TEXT_INIT;
    AUTO_ARENA a = arena_new();
    const char *method, *reason;
    struct value back, sent = value_set(params, 2);

    xmlrpc_write_call(&t, "VM.start", params, 2);
    assert_string_equal(t.bytes, "<?xml version=\"1.0\"?><methodCall><methodName>VM.start</methodName><params><param><value>ref</value>"
                                 "</param><param><value><boolean>1</boolean></value></param></params></methodCall>");
    assert_true(xmlrpc_parse_request(a, t.bytes, t.len, &method, &back, &reason));
    assert_string_equal(method, "VM.start");
    assert_true(value_equal(&sent, &back));
}

/* --- answers and fragments ---------------------------------------------------------------------- */

static void assert_answer(const char *xml, const char *json)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    const char *reason = NULL;
    struct value v;

    bool ok = xmlrpc_parse_answer(a, xml, strlen(xml), &v, &reason);
    if (json == NULL) {
        assert_false(ok);
        assert_non_null(reason);
        return;
    }
    if (!ok)
        fail_msg("%s: %s", xml, reason);
    json_write(&t, &v);
    assert_string_equal(t.bytes, json);
}

#define RESPONSE(value) "<?xml version='1.0'?><methodResponse><params><param>" value "</param></params></methodResponse>"

static void test_xmlrpc_parse_answer(void **state)
{
    assert_answer(RESPONSE("<value>x</value>"), "\"x\"");
    assert_answer(RESPONSE("<value><array><data><value>a</value></data></array></value>"), "[\"a\"]");
    assert_answer(RESPONSE("<value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>"
                           "<value></value></member></struct></value>"),
                  "{\"Status\":\"Success\",\"Value\":\"\"}");
    assert_answer("<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>4</int></value></member>"
                  "<member><name>faultString</name><value>Too many &lt;parameters&gt;</value></member></struct></value></fault></methodResponse>",
                  "{\"Status\":\"Failure\",\"ErrorDescription\":[\"FAULT\",\"Too many <parameters>\"]}");
    assert_answer("<methodResponse>\n <fault>\n <value>x</value>\n </fault>\n</methodResponse>",
                  "{\"Status\":\"Failure\",\"ErrorDescription\":[\"FAULT\",\"\"]}");
    assert_answer("<methodResponse><fault></fault></methodResponse>", NULL);
    assert_answer("<methodResponse><params></params></methodResponse>", NULL);
    assert_answer(CALL(""), NULL);
    assert_answer("<html><body>500</body></html>", NULL);
    assert_answer("", NULL);
}

static void test_xmlrpc_parse_fragment(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value v;

    assert_true(xmlrpc_parse_fragment(a, "<value>OpaqueRef:1</value>", 26, &v));
    assert_string_equal(v.s, "OpaqueRef:1");
    assert_true(xmlrpc_parse_fragment(a, "<value></value>", 15, &v));
    assert_int_equal(v.kind, VALUE_STRING);
    assert_int_equal(v.len, 0);
    assert_true(xmlrpc_parse_fragment(a, "<value><i8>5</i8></value>", 25, &v));
    assert_int_equal(v.kind, VALUE_INT);
    assert_false(xmlrpc_parse_fragment(a, "OpaqueRef:1", 11, &v));
    assert_false(xmlrpc_parse_fragment(a, "", 0, &v));
    assert_false(xmlrpc_parse_fragment(a, "<string>a</string>", 18, &v));
    assert_false(xmlrpc_parse_fragment(a, "<value>a</value><value>b</value>", 32, &v));
}

/* xmlrpc-c has process-wide state; separate parses must not meet in it. */
static void *parse_many(void *arg)
{
    const char *xml = ONE("<value><struct><member><name>a</name><value><i8>12</i8></value></member></struct></value>");
    const char *broken = ONE("<value><array></array></value>");

    for (unsigned i = 0; i < 500; i++) {
        AUTO_TEXT t = TEXT_INIT;
        struct value v = value_int(i);
        if (!parses(xml, strlen(xml)) || parses(broken, strlen(broken)))
            return arg;
        xmlrpc_write_value(&t, &v);
    }
    return NULL;
}

static void test_xmlrpc_parse_concurrently(void **state)
{
    pthread_t threads[4];
    void *failed;

    for (unsigned i = 0; i < ARRAY_LEN(threads); i++)
        threads[i] = thread_start("parse", parse_many, threads);
    for (unsigned i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xmlrpc_parse_request_good),
        cmocka_unit_test(test_xmlrpc_parse_request_bad),
        cmocka_unit_test(test_xmlrpc_parse_request_nul),
        cmocka_unit_test(test_xmlrpc_parse_request_damaged),
        cmocka_unit_test(test_xmlrpc_parse_request_nesting),
        cmocka_unit_test(test_xmlrpc_parse_request_large),
        cmocka_unit_test(test_xmlrpc_write_scalars),
        cmocka_unit_test(test_xmlrpc_write_containers),
        cmocka_unit_test(test_xmlrpc_write_escapes_everywhere),
        cmocka_unit_test(test_xmlrpc_write_call),
        cmocka_unit_test(test_xmlrpc_parse_answer),
        cmocka_unit_test(test_xmlrpc_parse_fragment),
        cmocka_unit_test(test_xmlrpc_parse_concurrently),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
