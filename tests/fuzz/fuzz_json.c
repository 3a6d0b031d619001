/* libFuzzer target: JSON values and JSON-RPC requests. What is accepted must survive being written and
 * read again. Build with clang -fsanitize=fuzzer,address,undefined; corpus/json has seeds. */
#include <math.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/wire/envelope.h"
#include "rpc/wire/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

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

/* 'b' is what was read back: floats have lost a digit, and those without a fraction are ints. */
static bool same(const struct value *a, const struct value *b)
{
    if (a->kind == VALUE_FLOAT) {
        double f = b->kind == VALUE_INT ? (double)b->i : b->f;
        return (b->kind == VALUE_INT || b->kind == VALUE_FLOAT) && (a->f == f || fabs(a->f - f) <= fabs(a->f) * 1e-15);
    }
    if (a->kind != b->kind)
        return false;
    if (a->kind == VALUE_MAP)
        return same_members(a, b);
    if (a->kind != VALUE_SET)
        return value_equal(a, b);
    for (uint32_t i = 0; i < a->len; i++)
        if (a->len != b->len || !same(&a->items[i], &b->items[i]))
            return false;
    return a->len == b->len;
}

static void fuzz_request(struct arena *a, const char *bytes, size_t len)
{
    AUTO_TEXT t = TEXT_INIT;
    const char *reason = NULL;
    struct wire_call call;
    struct value back;

    if (wire_parse_jsonrpc(a, bytes, len, &call, &reason)) {
        wire_write_success(&t, &call, &call.params);
        CHECK(wire_parse_answer(a, call.format, t.bytes, t.len, &back) == NULL || call.params.len > 0);
    } else {
        CHECK(reason != NULL);
        wire_write_malformed(&t, &call, reason);
        CHECK(wire_parse_answer(a, call.format, t.bytes, t.len, &back) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    const char *reason = NULL;
    struct value v, back;

    fuzz_request(a, (const char *)bytes, len);
    if (!json_parse(a, (const char *)bytes, len, &v, &reason)) {
        CHECK(reason != NULL);
        return 0;
    }
    json_write(&t, &v);
    CHECK(json_parse(a, t.bytes, t.len, &back, &reason));
    CHECK(same(&v, &back));
    return 0;
}
