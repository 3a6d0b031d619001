/* The caller's side of both protocols: for calls between hosts. */
#include "rpc/wire/envelope.h"

#include "rpc/wire/json.h"
#include "rpc/wire/value_writer.h"
#include "rpc/wire/xmlrpc.h"

static void write_json_call(struct text *t, enum wire_format format, const char *method, const struct value *params,
                            unsigned n)
{
    struct value list = value_set(params, n);
    struct out o;

    out_begin(&o, t);
    if (format == WIRE_JSON2)
        out_add_literal(&o, "{\"jsonrpc\":\"2.0\",\"method\":");
    else
        out_add_literal(&o, "{\"method\":");
    json_out_string(&o, method, strlen(method), 0);
    out_add_literal(&o, ",\"params\":");
    json_out_value(&o, &list);
    out_add_literal(&o, ",\"id\":0}");
    out_finish(&o);
}

void wire_write_call(struct text *t, enum wire_format format, const char *method, const struct value *params,
                     unsigned n)
{
    if (format == WIRE_XMLRPC)
        xmlrpc_write_call(t, method, params, n);
    else
        write_json_call(t, format, method, params, n);
}

static struct error *bad_answer(struct arena *a, const char *reason)
{
    return err_internal(a, "the answer cannot be understood: %s", reason);
}

/* [code, params…], or params only behind a given code. */
static struct error *failure_of(struct arena *a, const char *code, const struct value *list)
{
    unsigned n = list != NULL && list->kind == VALUE_SET ? list->len : 0, first = 0;

    if (code == NULL && n > 0 && list->items[0].kind == VALUE_STRING) {
        code = list->items[0].s;
        first = 1;
    }
    if (code == NULL)
        return bad_answer(a, "a failure without a code");
    const char **params = arena_calloc(a, n, sizeof(*params));
    for (unsigned i = first; i < n; i++)
        params[i - first] = list->items[i].kind == VALUE_STRING ? list->items[i].s : "";
    return error_from_strings(a, code, n - first, params);
}

static struct error *xml_result(struct arena *a, const struct value *answer, struct value *value_r)
{
    const char *status = value_get_string(answer, "Status", "");
    const struct value *value = value_get(answer, "Value"), *failure = value_get(answer, "ErrorDescription");

    if (strcmp(status, "Failure") == 0 && failure != NULL)
        return failure_of(a, NULL, failure);
    *value_r = strcmp(status, "Success") == 0 && value != NULL ? *value : *answer;
    return NULL;
}

static struct error *json_result(struct arena *a, const struct value *answer, struct value *value_r)
{
    const struct value *value = value_get(answer, "result"), *failure = value_get(answer, "error");

    if (failure != NULL && failure->kind == VALUE_MAP)
        return failure_of(a, value_get_string(failure, "message", NULL), value_get(failure, "data"));
    if (failure != NULL && failure->kind != VALUE_NIL)
        return failure_of(a, NULL, failure);
    if (value == NULL)
        return bad_answer(a, "neither result nor error");
    *value_r = *value;
    return NULL;
}

struct error *wire_parse_answer(struct arena *a, enum wire_format format, const char *bytes, size_t len,
                                struct value *value_r)
{
    const char *reason = NULL;
    struct value answer;

    if (format == WIRE_XMLRPC) {
        if (!xmlrpc_parse_answer(a, bytes, len, &answer, &reason))
            return bad_answer(a, reason);
        return xml_result(a, &answer, value_r);
    }
    if (!json_parse(a, bytes, len, &answer, &reason))
        return bad_answer(a, reason);
    return json_result(a, &answer, value_r);
}
