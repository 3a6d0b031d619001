/* libFuzzer target: XML-RPC calls, answers and values. What is accepted must survive being written and
 * read again. Build with clang -fsanitize=fuzzer,address,undefined; corpus/xmlrpc has seeds. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/wire/xmlrpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    xmlrpc_setup(1u << 20);
    return 0;
}

static bool same(const struct value *a, const struct value *b);

static bool same_members(const struct value *a, const struct value *b)
{
    for (uint32_t i = 0; i < a->len; i++) {
        const struct value *other = value_get(b, a->members[i].name);
        if (other == NULL || !same(&a->members[i].value, other))
            return false;
    }
    return a->len == b->len;
}

/* 'b' is what was read back: ints have become strings, floats have lost a digit. */
static bool same(const struct value *a, const struct value *b)
{
    char digits[32];

    if (a->kind == VALUE_INT) {
        snprintf(digits, sizeof(digits), "%lld", (long long)a->i);
        return b->kind == VALUE_STRING && strcmp(b->s, digits) == 0;
    }
    if (a->kind != b->kind)
        return false;
    if (a->kind == VALUE_FLOAT)
        return (isnan(a->f) && isnan(b->f)) || a->f == b->f || fabs(a->f - b->f) <= fabs(a->f) * 1e-15;
    if (a->kind == VALUE_MAP)
        return same_members(a, b);
    if (a->kind != VALUE_SET)
        return value_equal(a, b);
    for (uint32_t i = 0; i < a->len; i++)
        if (a->len != b->len || !same(&a->items[i], &b->items[i]))
            return false;
    return a->len == b->len;
}

static void fuzz_call(struct arena *a, const char *bytes, size_t len)
{
    const char *method, *again, *reason = NULL;
    struct value params, back;
    AUTO_TEXT t = TEXT_INIT;

    if (!xmlrpc_parse_request(a, bytes, len, &method, &params, &reason)) {
        CHECK(reason != NULL);
        return;
    }
    xmlrpc_write_call(&t, method, params.items, params.len);
    CHECK(xmlrpc_parse_request(a, t.bytes, t.len, &again, &back, &reason));
    CHECK(strcmp(method, again) == 0);
    CHECK(same(&params, &back));
}

static void fuzz_value(struct arena *a, const char *bytes, size_t len)
{
    AUTO_TEXT t = TEXT_INIT;
    struct value v, back;

    if (!xmlrpc_parse_fragment(a, bytes, len, &v))
        return;
    xmlrpc_write_value(&t, &v);
    CHECK(xmlrpc_parse_fragment(a, t.bytes, t.len, &back));
    CHECK(same(&v, &back));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    AUTO_ARENA a = arena_new();
    const char *reason = NULL;
    struct value answer;

    fuzz_call(a, (const char *)bytes, len);
    fuzz_value(a, (const char *)bytes, len);
    if (!xmlrpc_parse_answer(a, (const char *)bytes, len, &answer, &reason))
        CHECK(reason != NULL);
    return 0;
}
