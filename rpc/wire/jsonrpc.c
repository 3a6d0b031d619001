/* Requests of JSON-RPC 1.0 and 2.0. */
#include "rpc/wire/envelope.h"

#include "rpc/wire/json.h"
#include "rpc/wire/json_guard.h"
#include "rpc/wire/json_parse.h"

static bool refuse(const char **reason_r, const char *reason)
{
    *reason_r = reason;
    return false;
}

/* Format and id: found first, so that a refusal can be told to the right call. */
static bool read_head(struct wire_call *call, const struct value *request, const char *bytes, size_t len,
                      const char **reason_r)
{
    const struct value *version = value_get(request, "jsonrpc"), *id = value_get(request, "id");
    size_t id_text_len;

    call->format = version == NULL ? WIRE_JSON1 : WIRE_JSON2;
    if (id == NULL)
        return refuse(reason_r, "the id is missing");
    if (id->kind != VALUE_STRING && id->kind != VALUE_INT && id->kind != VALUE_FLOAT && id->kind != VALUE_NIL)
        return refuse(reason_r, "the id is neither a string nor a number");
    call->id = *id;
    if (json_member_text(bytes, len, "id", &call->id_text, &id_text_len))
        call->id_text_len = (uint32_t)id_text_len;
    if (version == NULL)
        return true;
    if (version->kind == VALUE_STRING && strcmp(version->s, "1.0") == 0)
        call->format = WIRE_JSON1;
    else if (version->kind != VALUE_STRING || strcmp(version->s, "2.0") != 0)
        return refuse(reason_r, "the version in 'jsonrpc' is not known");
    return true;
}

static bool read_body(struct wire_call *call, const struct value *request, const char **reason_r)
{
    const struct value *method = value_get(request, "method"), *params = value_get(request, "params");

    if (method == NULL || method->kind != VALUE_STRING || method->len == 0)
        return refuse(reason_r, "the method is missing or no string");
    call->method = method->s;
    call->params = value_set(NULL, 0);
    if (params == NULL || params->kind == VALUE_NIL)
        return true;
    if (params->kind != VALUE_SET && params->kind != VALUE_MAP)
        return refuse(reason_r, "the params are neither a list nor an object");
    call->params = *params;
    return true;
}

bool wire_parse_jsonrpc(struct arena *a, const char *bytes, size_t len, struct wire_call *call_r, const char **reason_r)
{
    struct value request;

    *call_r = (struct wire_call){ .format = WIRE_JSON2 };
    if (!json_parse_nested(a, bytes, len, JSON_DEPTH_MAX + 2, &request, reason_r))
        return false;
    if (request.kind == VALUE_SET)
        return refuse(reason_r, "batch requests are not supported");
    if (request.kind != VALUE_MAP)
        return refuse(reason_r, "the request is not an object");
    return read_head(call_r, &request, bytes, len, reason_r) && read_body(call_r, &request, reason_r);
}
