#include "rpc/http/reply.h"

#include <stdio.h>

#include "rpc/base/memory.h"

const char *status_reason(int status)
{
    static const struct { int status; const char *reason; } reasons[] = {
        { 100, "Continue" }, { 101, "Switching Protocols" }, { 200, "OK" }, { 201, "Created" }, { 202, "Accepted" },
        { 204, "No Content" }, { 206, "Partial Content" }, { 301, "Moved Permanently" }, { 302, "Found" },
        { 303, "See Other" }, { 304, "Not Modified" }, { 307, "Temporary Redirect" }, { 400, "Bad Request" },
        { 401, "Unauthorized" }, { 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" }, { 408, "Request Timeout" }, { 409, "Conflict" }, { 411, "Length Required" },
        { 413, "Content Too Large" }, { 415, "Unsupported Media Type" }, { 416, "Range Not Satisfiable" },
        { 417, "Expectation Failed" }, { 426, "Upgrade Required" }, { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" }, { 500, "Internal Server Error" }, { 501, "Not Implemented" },
        { 502, "Bad Gateway" }, { 503, "Service Unavailable" }, { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" }, { 507, "Insufficient Storage" },
    };

    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown";
}

static struct outgoing *outgoing_new(const struct reply_context *c, int status, const char *content_type, unsigned n_pieces)
{
    struct outgoing *o = xcalloc(1, sizeof *o + (1 + n_pieces) * sizeof o->segments[0]);

    o->n_segments = 1 + n_pieces;
    o->no_body = c->head_only || status == 204 || status == 304;
    text_grow(&o->head, 256);
    if (status == 200)
        text_add_len(&o->head, "HTTP/1.1 200 OK\r\n", 17);
    else
        text_printf(&o->head, "HTTP/1.1 %d %s\r\n", status, status_reason(status));
    if (content_type != NULL) {
        text_add_len(&o->head, "Content-Type: ", 14);
        text_add(&o->head, content_type);
        text_add_len(&o->head, "\r\n", 2);
    }
    text_add(&o->head, c->server->server_line);
    text_add(&o->head, c->server->rpc_headers);
    return o;
}

static void add_length(struct outgoing *o, int status, uint64_t length)
{
    char digits[24];
    char *p = digits + sizeof digits;

    if (status == 204 || status == 304)
        return;
    do {
        *--p = (char)('0' + length % 10);
        length /= 10;
    } while (length > 0);
    text_add_len(&o->head, "Content-Length: ", 16);
    text_add_len(&o->head, p, (size_t)(digits + sizeof digits - p));
    text_add_len(&o->head, "\r\n", 2);
}

struct outgoing *reply_text(const struct reply_context *c, int status, const char *content_type, const char *extra, struct text *body)
{
    struct outgoing *o = outgoing_new(c, status, content_type, 1);

    if (extra != NULL)
        text_add(&o->head, extra);
    if (body != NULL) {
        o->body = *body;
        *body = (struct text)TEXT_INIT;
    }
    add_length(o, status, o->body.len);
    o->segments[1] = (struct http_piece){ .bytes = o->body.bytes, .len = o->body.len };
    return o;
}

struct outgoing *reply_pieces(const struct reply_context *c, int status, const char *content_type, const struct http_piece *pieces,
                              unsigned n, void (*release)(void *ctx), void *ctx)
{
    struct outgoing *o = outgoing_new(c, status, content_type, n);
    uint64_t length = 0;

    for (unsigned i = 0; i < n; i++) {
        o->segments[1 + i] = pieces[i];
        length += pieces[i].len;
    }
    add_length(o, status, length);
    o->release = release;
    o->ctx = ctx;
    return o;
}

struct outgoing *reply_stream(const struct reply_context *c, int status, const char *content_type, struct http_producer producer)
{
    struct outgoing *o = outgoing_new(c, status, content_type, 1);

    o->producer = producer;
    o->release = producer.release;
    o->ctx = producer.ctx;
    o->streaming = !o->no_body;
    o->left = producer.length;
    if (producer.length >= 0) {
        add_length(o, status, (uint64_t)producer.length);
    } else if (c->minor >= 1) {
        o->chunked = true;
        text_add(&o->head, "Transfer-Encoding: chunked\r\n");
    } else {
        o->close_delimited = true;
    }
    return o;
}

void outgoing_free(struct outgoing *o)
{
    if (o == NULL)
        return;
    if (o->release != NULL)
        o->release(o->ctx);
    text_release(&o->head);
    text_release(&o->body);
    xfree(o);
}

void reply_begin(struct outgoing *o, bool keep_alive, unsigned minor)
{
    if (!keep_alive)
        text_add(&o->head, "Connection: close\r\n\r\n");
    else if (minor == 0)
        text_add(&o->head, "Connection: keep-alive\r\n\r\n");
    else
        text_add_len(&o->head, "\r\n", 2);
    o->segments[0] = (struct http_piece){ .bytes = o->head.bytes, .len = o->head.len };
    if (o->no_body)
        o->n_segments = 1;
}
