/* Our codecs against Python's: what xmlrpc.client and json write we must read, and the other way round.
 * Skipped where there is no python3, or not from the top of the tree. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/memory.h"
#include "rpc/wire/envelope.h"
#include "rpc/wire/json.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/lib/unit.h"
#include "tests/unit/wire/random_value.h"

#define SCRIPT "tests/unit/wire/oracle.py"
#define CALLS 300

static int setup(void **state)
{
    xmlrpc_setup(16u << 20);
    return 0;
}

/* The output of "python3 oracle.py …"; skips the test where that cannot run. */
static char *oracle(struct arena *a, const char *verb, const char *first, const char *second)
{
    const char *argv[] = { "python3", SCRIPT, verb, first, second, NULL };
    const struct child_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
    char *output = NULL;
    int status = 0;

    if (access(SCRIPT, R_OK) != 0 || (access("/usr/bin/python3", X_OK) != 0 && getenv("PYTHON") == NULL))
        skip();
    assert_int_equal(child_run(a, &spec, 120000, 256u << 20, &status, &output), 0);
    if (status != 0)
        fail_msg("oracle.py: %s", output != NULL ? output : "");
    return output;
}

/* --- meanings: see oracle.py --------------------------------------------------------------------- */

/* As Python's json.dumps(ensure_ascii=True) writes it. */
static void add_ascii_string(struct text *t, const char *s, size_t len)
{
    AUTO_TEXT plain = TEXT_INIT;

    json_write_string(&plain, s, len);
    for (size_t i = 0; i < plain.len;) {
        unsigned char c = (unsigned char)plain.bytes[i];
        unsigned n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        unsigned long code = n == 1 ? c : c & (0x7fu >> n);
        for (unsigned k = 1; k < n; k++)
            code = code << 6 | ((unsigned char)plain.bytes[i + k] & 0x3fu);
        if (code < 0x7f)
            text_add_byte(t, (char)code);
        else if (code < 0x10000)
            text_printf(t, "\\u%04lx", code);
        else
            text_printf(t, "\\u%04lx\\u%04lx", 0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
        i += n;
    }
}

static void add_tagged(struct text *t, char kind, const char *s, size_t len)
{
    AUTO_TEXT tagged = TEXT_INIT;

    text_add_byte(&tagged, kind);
    text_add_len(&tagged, s, len);
    add_ascii_string(t, tagged.bytes, tagged.len);
}

static int by_name(const void *x, const void *y)
{
    const struct member *a = x, *b = y;

    return strcmp(a->name, b->name); /* bytes of UTF-8 sort as code points do */
}

static void add_meaning(struct text *t, const struct value *v);

static void add_map(struct text *t, const struct value *v)
{
    struct member *sorted = xcalloc(v->len, sizeof(*sorted));

    if (v->len > 0) {
        memcpy(sorted, v->members, v->len * sizeof(*sorted));
        qsort(sorted, v->len, sizeof(*sorted), by_name);
    }
    text_add(t, "{");
    for (unsigned i = 0; i < v->len; i++) {
        text_add(t, i > 0 ? "," : "");
        add_ascii_string(t, sorted[i].name, strlen(sorted[i].name));
        text_add(t, ":");
        add_meaning(t, &sorted[i].value);
    }
    text_add(t, "}");
    xfree(sorted);
}

/* The form of Python's float.hex(): 0x1.8000000000000p+1 */
static void add_float(struct text *t, double f)
{
    char digits[64];

    snprintf(digits, sizeof(digits), f == 0 ? "%.1a" : "%.13a", f);
    add_tagged(t, 'f', digits, strlen(digits));
}

static void add_meaning(struct text *t, const struct value *v)
{
    char digits[32];

    snprintf(digits, sizeof(digits), "%lld", (long long)(v->kind == VALUE_FLOAT || v->kind == VALUE_STRING ? 0 : v->i));
    switch ((enum value_kind)v->kind) {
    case VALUE_VOID: add_tagged(t, 's', "", 0); break;
    case VALUE_STRING: add_tagged(t, 's', v->s, v->len); break;
    case VALUE_INT: add_tagged(t, 'i', digits, strlen(digits)); break;
    case VALUE_INT32: add_tagged(t, 'j', digits, strlen(digits)); break;
    case VALUE_BOOL: add_tagged(t, 'b', digits, strlen(digits)); break;
    case VALUE_FLOAT: add_float(t, v->f); break;
    case VALUE_DATETIME: add_tagged(t, 't', digits, strlen(digits)); break;
    case VALUE_SET:
        text_add(t, "[");
        for (unsigned i = 0; i < v->len; i++) {
            text_add(t, i > 0 ? "," : "");
            add_meaning(t, &v->items[i]);
        }
        text_add(t, "]");
        break;
    case VALUE_MAP: add_map(t, v); break;
    case VALUE_RECORD:
    case VALUE_NIL: add_tagged(t, 'n', "", 0); break;
    }
}

/* --- ours to Python ----------------------------------------------------------------------------- */

static void add_line(struct text *lines, const struct wire_call *call, const struct value *v)
{
    AUTO_TEXT document = TEXT_INIT;

    text_add(lines, call->format == WIRE_XMLRPC ? "xml\t" : "json\t");
    add_meaning(lines, v);
    text_add(lines, "\t");
    wire_write_success(&document, call, v);
    for (size_t i = 0; i < document.len; i++)
        text_printf(lines, "%02x", (unsigned char)document.bytes[i]);
    text_add(lines, "\n");
}

static void test_written_is_read_by_python(void **state)
{
    static const struct wire_call xml = { .format = WIRE_XMLRPC }, json = { .format = WIRE_JSON2, .id_text = "1", .id_text_len = 1 };
    char path[] = "/tmp/test_oracle.XXXXXX";
    AUTO_ARENA a = arena_new();
    AUTO_TEXT lines = TEXT_INIT;
    unsigned seed = 17;

    for (unsigned i = 0; i < 2 * CALLS; i++) {
        struct value v = random_value(a, &seed, 5);
        add_line(&lines, &xml, &v);
        add_line(&lines, &json, &v);
    }
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, lines.bytes, lines.len), lines.len);
    close(fd);
    const char *output = oracle(a, "check", path, NULL);
    unlink(path);
    assert_int_equal(strtol(output, NULL, 10), 4 * CALLS);
}

/* --- Python to ours ----------------------------------------------------------------------------- */

static size_t from_hex(char *s)
{
    size_t n = 0;

    for (; s[2 * n] != '\0' && s[2 * n + 1] != '\0'; n++) {
        char pair[3] = { s[2 * n], s[2 * n + 1], '\0' };
        s[n] = (char)strtoul(pair, NULL, 16);
    }
    return n;
}

static void assert_read(const char *format, const char *meaning, const char *document, size_t len)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    const char *method = NULL, *reason = NULL;
    struct wire_call call;
    struct value params = value_void();
    bool ok;

    if (strcmp(format, "xml") == 0) {
        ok = xmlrpc_parse_request(a, document, len, &method, &params, &reason);
    } else {
        ok = wire_parse_jsonrpc(a, document, len, &call, &reason);
        method = call.method;
        params = call.params;
    }
    if (!ok)
        fail_msg("%.*s: %s", (int)len, document, reason);
    assert_string_equal(method, "VM.x");
    add_meaning(&t, &params);
    assert_string_equal(t.bytes, meaning);
}

static void test_written_by_python_is_read(void **state)
{
    AUTO_ARENA a = arena_new();
    char *rest = oracle(a, "make", "23", "300");
    unsigned n = 0;

    for (char *line = strsep(&rest, "\n"); line != NULL && *line != '\0'; line = strsep(&rest, "\n"), n++) {
        const char *format = strsep(&line, "\t"), *meaning = strsep(&line, "\t");
        size_t len = from_hex(line);
        assert_read(format, meaning, line, len);
    }
    assert_int_equal(n, 2 * CALLS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_read_by_python),
        cmocka_unit_test(test_written_by_python_is_read),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
