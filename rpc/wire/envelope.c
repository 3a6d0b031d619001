#include "rpc/wire/envelope.h"

#include "rpc/wire/utf8.h"
#include "rpc/wire/value_writer.h"

#define XML_RESPONSE "<?xml version=\"1.0\"?><methodResponse><params><param><value>"
#define XML_RESPONSE_END "</value></param></params></methodResponse>"
#define XML_STATUS(s) XML_RESPONSE "<struct><member><name>Status</name><value>" s "</value></member>"
#define XML_STRUCT_END "</value></member></struct>" XML_RESPONSE_END

const char *wire_content_type(enum wire_format format)
{
    return format == WIRE_XMLRPC ? "text/xml" : "application/json";
}

/* --- around the value --------------------------------------------------------------------------- */

static void out_id(struct out *o, const struct wire_call *call)
{
    if (call->id_text != NULL)
        out_add(o, call->id_text, call->id_text_len);
    else if (call->id.kind == VALUE_VOID)
        out_add_literal(o, "null");
    else
        json_out_value(o, &call->id);
}

static void success_begin(struct out *o, const struct wire_call *call)
{
    switch (call->format) {
    case WIRE_XMLRPC:
        out_add_literal(o, XML_STATUS("Success") "<member><name>Value</name><value>");
        break;
    case WIRE_JSON1:
        out_add_literal(o, "{\"result\":");
        break;
    case WIRE_JSON2:
        out_add_literal(o, "{\"jsonrpc\":\"2.0\",\"result\":");
        break;
    }
}

static void success_end(struct out *o, const struct wire_call *call)
{
    switch (call->format) {
    case WIRE_XMLRPC:
        out_add_literal(o, XML_STRUCT_END);
        return;
    case WIRE_JSON1:
        out_add_literal(o, ",\"error\":null");
        break;
    case WIRE_JSON2:
        break;
    }
    out_add_literal(o, ",\"id\":");
    out_id(o, call);
    out_add_literal(o, "}");
}

static void out_value(struct out *o, const struct wire_call *call, const struct value *v)
{
    if (call->format == WIRE_XMLRPC)
        xml_out_value(o, v);
    else
        json_out_value(o, v);
}

void wire_write_success(struct text *t, const struct wire_call *call, const struct value *v)
{
    struct out o;

    out_begin(&o, t);
    success_begin(&o, call);
    out_value(&o, call, v);
    success_end(&o, call);
    out_finish(&o);
}

void wire_write_bare(struct text *t, const struct wire_call *call, const struct value *v)
{
    struct out o;

    if (call->format != WIRE_XMLRPC) {
        wire_write_success(t, call, v);
        return;
    }
    out_begin(&o, t);
    out_add_literal(&o, XML_RESPONSE);
    xml_out_value(&o, v);
    out_add_literal(&o, XML_RESPONSE_END);
    out_finish(&o);
}

/* --- failures ----------------------------------------------------------------------------------- */

static void out_string(struct out *o, enum wire_format format, const char *s, size_t len)
{
    if (format == WIRE_XMLRPC)
        xml_out_string(o, s, len, 0);
    else
        json_out_string(o, s, len, 0);
}

/* Error texts quote what programs and files said: whatever is not UTF-8 must not spoil the reply. */
static void out_foreign(struct out *o, enum wire_format format, const char *s)
{
    size_t len = strlen(s);
    bool wide;

    if (utf8_problem(s, len, &wide) == NULL) {
        out_string(o, format, s, len);
        return;
    }
    AUTO_TEXT ascii = TEXT_INIT;
    text_grow(&ascii, len);
    for (size_t i = 0; i < len; i++)
        text_add_byte(&ascii, (signed char)s[i] < 0 ? '?' : s[i]);
    out_string(o, format, ascii.bytes, ascii.len);
}

/* The parameters, each behind 'before' and followed by 'after'; a comma between them in JSON. */
static void out_params(struct out *o, enum wire_format format, const char *const *params, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (format == WIRE_XMLRPC)
            out_add_literal(o, "<value>");
        else if (i > 0)
            out_add_literal(o, ",");
        out_foreign(o, format, params[i]);
        if (format == WIRE_XMLRPC)
            out_add_literal(o, "</value>");
    }
}

static void failure_json2(struct out *o, const struct wire_call *call, int code, const char *message,
                          const char *const *params, unsigned n)
{
    out_add_literal(o, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":");
    out_room(o, 20);
    out_put_int(o, code);
    out_add_literal(o, ",\"message\":");
    out_foreign(o, WIRE_JSON2, message);
    out_add_literal(o, ",\"data\":[");
    out_params(o, WIRE_JSON2, params, n);
    out_add_literal(o, "]},\"id\":");
    out_id(o, call);
    out_add_literal(o, "}");
}

static void failure_json1(struct out *o, const struct wire_call *call, const char *code, const char *const *params,
                          unsigned n)
{
    out_add_literal(o, "{\"result\":null,\"error\":[");
    out_foreign(o, WIRE_JSON1, code);
    if (n > 0)
        out_add_literal(o, ",");
    out_params(o, WIRE_JSON1, params, n);
    out_add_literal(o, "],\"id\":");
    out_id(o, call);
    out_add_literal(o, "}");
}

static void failure_xml(struct out *o, const struct error *e)
{
    out_add_literal(o, XML_STATUS("Failure") "<member><name>ErrorDescription</name><value><array><data>");
    out_params(o, WIRE_XMLRPC, &e->code, 1);
    out_params(o, WIRE_XMLRPC, e->params, e->n_params);
    out_add_literal(o, "</data></array>" XML_STRUCT_END);
}

void wire_write_failure(struct text *t, const struct wire_call *call, const struct error *e)
{
    struct out o;

    out_begin(&o, t);
    switch (call->format) {
    case WIRE_XMLRPC:
        failure_xml(&o, e);
        break;
    case WIRE_JSON1:
        failure_json1(&o, call, e->code, e->params, e->n_params);
        break;
    case WIRE_JSON2:
        failure_json2(&o, call, 1, e->code, e->params, e->n_params);
        break;
    }
    out_finish(&o);
}

void wire_write_malformed(struct text *t, const struct wire_call *call, const char *reason)
{
    struct out o;

    out_begin(&o, t);
    switch (call->format) {
    case WIRE_XMLRPC:
        out_add(&o, reason, strlen(reason));
        break;
    case WIRE_JSON1:
        failure_json1(&o, call, "INTERNAL_ERROR", &reason, 1);
        break;
    case WIRE_JSON2:
        failure_json2(&o, call, -32600, "Invalid Request", &reason, 1);
        break;
    }
    out_finish(&o);
}

/* --- in pieces ---------------------------------------------------------------------------------- */

void wire_writer_init(struct wire_writer *w, const struct wire_call *call, const struct value *v)
{
    *w = (struct wire_writer){ .call = call, .value = v };
}

static void container_begin(struct out *o, bool xml, bool set)
{
    if (xml && set)
        out_add_literal(o, "<array><data>");
    else if (xml)
        out_add_literal(o, "<struct>");
    else if (set)
        out_add_literal(o, "[");
    else
        out_add_literal(o, "{");
}

static void container_end(struct out *o, bool xml, bool set)
{
    if (xml && set)
        out_add_literal(o, "</data></array>");
    else if (xml)
        out_add_literal(o, "</struct>");
    else if (set)
        out_add_literal(o, "]");
    else
        out_add_literal(o, "}");
}

static void container_item(struct out *o, bool xml, const struct value *v, unsigned i)
{
    if (!xml && i > 0)
        out_add_literal(o, ",");
    if (v->kind == VALUE_MAP && xml) {
        xml_out_member(o, &v->members[i]);
    } else if (v->kind == VALUE_MAP) {
        json_out_member(o, &v->members[i]);
    } else if (xml) {
        out_add_literal(o, "<value>");
        xml_out_value(o, &v->items[i]);
        out_add_literal(o, "</value>");
    } else {
        json_out_value(o, &v->items[i]);
    }
}

bool wire_writer_fill(struct wire_writer *w, struct text *t, size_t want)
{
    const struct value *v = w->value;
    bool xml = w->call->format == WIRE_XMLRPC, set = v->kind == VALUE_SET;
    size_t start = t->len;
    struct out o;

    if (w->state == 2)
        return false;
    if (!set && v->kind != VALUE_MAP) {
        w->state = 2;
        wire_write_success(t, w->call, v);
        return false;
    }
    text_grow(t, want + want / 4 + 256);
    out_begin(&o, t);
    if (w->state == 0) {
        success_begin(&o, w->call);
        container_begin(&o, xml, set);
        w->state = 1;
    }
    bool enough = false; /* one item at least: every call gets on */
    while (w->next < v->len && !enough) {
        container_item(&o, xml, v, w->next++);
        enough = (size_t)(o.p - t->bytes) - start >= want;
    }
    if (w->next == v->len) {
        container_end(&o, xml, set);
        success_end(&o, w->call);
        w->state = 2;
    }
    out_finish(&o);
    return w->state != 2;
}
