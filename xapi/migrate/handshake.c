#include "xapi/migrate/wire.h"

#include <errno.h>
#include <stdint.h>

#include "rpc/base/text.h"
#include "rpc/base/value.h"
#include "rpc/wire/json.h"

static void error_to_json(struct text *t, const struct error *e)
{
    AUTO_ARENA a = arena_new();
    struct value_list params = { 0 };
    for (unsigned i = 0; i < e->n_params; i++)
        value_list_add(a, &params, value_string(e->params[i]));
    struct member members[2] = { member_of("code", value_string(e->code)), member_of("params", value_list_value(&params)) };
    struct value v = value_map(members, 2);
    json_write(t, &v);
}

int handshake_send(struct byte_stream *stream, const struct error *error)
{
    AUTO_TEXT t = TEXT_INIT;
    text_add_len(&t, "\0\0", 2);
    if (error != NULL)
        error_to_json(&t, error);
    size_t len = t.len - 2;
    if (len > HANDSHAKE_MAX) {
        text_clear(&t);
        text_add_len(&t, "\0\0", 2);
        text_add(&t, "{\"code\":\"INTERNAL_ERROR\",\"params\":[\"the error was too long to be sent\"]}");
        len = t.len - 2;
    }
    t.bytes[0] = (char)(len >> 8);
    t.bytes[1] = (char)(len & 0xff);
    return bytes_write(stream, t.bytes, t.len);
}

/* The peer's error out of its JSON; text that is no such JSON is shown as it is. */
static struct error *error_from_json(struct arena *a, const char *bytes, size_t len)
{
    struct value v;
    const char *reason;
    const char *code = NULL;
    if (json_parse(a, bytes, len, &v, &reason))
        code = value_get_string(&v, "code", NULL);
    if (code == NULL)
        return error_make(a, __FILE__, __LINE__, "INTERNAL_ERROR", 1, bytes);
    const struct value *params = value_get(&v, "params");
    unsigned n = params != NULL && params->kind == VALUE_SET ? params->len : 0;
    const char **strings = arena_calloc(a, n + 1, sizeof *strings);
    for (unsigned i = 0; i < n; i++)
        strings[i] = params->items[i].kind == VALUE_STRING ? params->items[i].s : "";
    return error_from_strings(a, code, n, strings);
}

static int receive_message(struct arena *a, struct byte_stream *stream, int cancel_fd, int timeout_ms, char **bytes_r, size_t *len_r)
{
    int r = bytes_wait(stream, cancel_fd, timeout_ms);
    if (r <= 0)
        return r == 0 ? -ETIMEDOUT : r;
    uint8_t head[2];
    r = bytes_read_all(stream, head, sizeof head);
    if (r != 0)
        return r;
    size_t len = (size_t)head[0] << 8 | head[1];
    char *bytes = arena_alloc(a, len + 1);
    r = len > 0 ? bytes_read_all(stream, bytes, len) : 0;
    if (r != 0)
        return r;
    bytes[len] = '\0';
    *bytes_r = bytes;
    *len_r = len;
    return 0;
}

int handshake_receive(struct arena *a, struct byte_stream *stream, int cancel_fd, int timeout_ms, struct error **error_r)
{
    char *bytes;
    size_t len;
    int r = receive_message(a, stream, cancel_fd, timeout_ms, &bytes, &len);
    if (r == 0)
        *error_r = len > 0 ? error_from_json(a, bytes, len) : NULL;
    return r;
}

int handshake_send_value(struct byte_stream *stream, const struct value *v)
{
    AUTO_TEXT t = TEXT_INIT;
    text_add_len(&t, "\0\0", 2);
    json_write(&t, v);
    size_t len = t.len - 2;
    if (len > HANDSHAKE_MAX)
        return -EMSGSIZE;
    t.bytes[0] = (char)(len >> 8);
    t.bytes[1] = (char)(len & 0xff);
    return bytes_write(stream, t.bytes, t.len);
}

int handshake_receive_value(struct arena *a, struct byte_stream *stream, int timeout_ms, struct value *v)
{
    char *bytes;
    size_t len;
    const char *reason;
    int r = receive_message(a, stream, -1, timeout_ms, &bytes, &len);
    if (r != 0)
        return r;
    return json_parse(a, bytes, len, v, &reason) && v->kind == VALUE_MAP ? 0 : -EPROTO;
}
