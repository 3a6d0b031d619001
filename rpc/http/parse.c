#include "rpc/http/parse.h"

#include <string.h>
#include <strings.h>

#define BIT(c) (UINT64_C(1) << ((c) & 63))
#define BITS(from, n) (((UINT64_C(1) << (n)) - 1) << ((from) & 63))

/* RFC 9110 tchar */
static const uint64_t TOKEN_LOW = BIT('!') | BIT('#') | BIT('$') | BIT('%') | BIT('&') | BIT('\'') | BIT('*') | BIT('+') |
                                  BIT('-') | BIT('.') | BITS('0', 10);
static const uint64_t TOKEN_HIGH = BITS('A', 26) | BIT('^') | BIT('_') | BIT('`') | BITS('a', 26) | BIT('|') | BIT('~');

static bool is_token(unsigned char c)
{
    if (c >= 128)
        return false;
    return ((c < 64 ? TOKEN_LOW : TOKEN_HIGH) >> (c & 63)) & 1;
}

static bool is_text(unsigned char c) { return c == '\t' || (c >= 0x20 && c != 0x7f); }

static bool is_target(unsigned char c) { return c > 0x20 && c != 0x7f; }

long head_scan(struct head_scan *s, const char *bytes, size_t len, const struct head_limits *limits)
{
    if (len == 0)
        return 0;
    if (s->lines == 0) {
        if (s->at == 0 && bytes[0] == '\r') { /* the one empty line that may stand before a request */
            if (len < 2)
                return 0;
            if (bytes[1] != '\n')
                return -400;
            s->at = 2;
        }
        if (s->at < len && !is_token((unsigned char)bytes[s->at]))
            return -400; /* a TLS hello, or garbage: do not wait for a line end */
    }
    while (s->at < len) {
        const char *line = bytes + s->at;
        const char *end = memchr(line, '\n', len - s->at);

        if (end == NULL)
            break;
        if (end == line || end[-1] != '\r')
            return -400;
        s->at = (size_t)(end + 1 - bytes);
        if (s->at > limits->bytes || s->lines > limits->lines)
            return -431;
        if (end - line == 1)
            return s->lines == 0 ? -400 : (long)s->at;
        s->lines++;
    }
    return len > limits->bytes ? -431 : 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

char *percent_decode(struct arena *arena, const char *s, size_t len, bool strict, bool plus)
{
    char *out = arena_alloc(arena, len + 1);
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        char c = s[i];

        if (c == '%') {
            int high = len - i > 2 ? hex_value(s[i + 1]) : -1;
            int low = len - i > 2 ? hex_value(s[i + 2]) : -1;

            if (high >= 0 && low >= 0) {
                c = (char)(high * 16 + low);
                i += 2;
            } else if (strict) {
                return NULL;
            }
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0')
            return NULL;
        out[n++] = c;
    }
    out[n] = '\0';
    return out;
}

/* --- the fields --------------------------------------------------------------------------------- */

/* What the framing fields said so far. */
struct framing { bool length, coding, host, close, keep_alive; };

static int parse_content_length(const char *value, int64_t *length_r)
{
    int64_t n = 0;

    if (*value == '\0')
        return 400;
    for (const char *p = value; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || n > (INT64_MAX - (*p - '0')) / 10)
            return 400;
        n = n * 10 + (*p - '0');
    }
    *length_r = n;
    return 0;
}

/* True if the comma-separated list has the token. */
static bool list_has(const char *list, const char *token)
{
    size_t want = strlen(token);

    for (const char *p = list; *p != '\0';) {
        p += strspn(p, ", \t");
        size_t n = strcspn(p, ", \t");

        if (n == want && strncasecmp(p, token, n) == 0)
            return true;
        p += n;
    }
    return false;
}

static int take_field(struct head *h, struct framing *f, const char *name, const char *value)
{
    if (strcmp(name, "content-length") == 0) {
        if (f->length)
            return 400;
        f->length = true;
        return parse_content_length(value, &h->content_length);
    }
    if (strcmp(name, "transfer-encoding") == 0) {
        if (f->coding)
            return 400;
        f->coding = true;
        h->chunked = strcasecmp(value, "chunked") == 0;
        return h->chunked ? 0 : 501;
    }
    if (strcmp(name, "connection") == 0) {
        f->close |= list_has(value, "close");
        f->keep_alive |= list_has(value, "keep-alive");
    } else if (strcmp(name, "expect") == 0) {
        if (strcasecmp(value, "100-continue") != 0)
            return 417;
        h->expect_continue = true;
    } else if (strcmp(name, "host") == 0) {
        if (f->host)
            return 400;
        f->host = true;
    }
    return 0;
}

/* One "Name: value" line, NUL-terminated where its CR was; changes it in place. */
static int parse_field(char *line, size_t len, struct http_header *out)
{
    size_t name_len = 0, end = len;

    while (name_len < len && is_token((unsigned char)line[name_len])) {
        if (line[name_len] >= 'A' && line[name_len] <= 'Z')
            line[name_len] = (char)(line[name_len] + ('a' - 'A'));
        name_len++;
    }
    if (name_len == 0 || name_len == len || line[name_len] != ':')
        return 400;
    line[name_len] = '\0';
    size_t start = name_len + 1;

    while (start < end && (line[start] == ' ' || line[start] == '\t'))
        start++;
    while (end > start && (line[end - 1] == ' ' || line[end - 1] == '\t'))
        end--;
    for (size_t i = start; i < end; i++)
        if (!is_text((unsigned char)line[i]))
            return 400;
    line[end] = '\0';
    *out = (struct http_header){ .name = line, .value = line + start };
    return 0;
}

/* The lines after the first, up to the empty one. 'head' is the arena's copy. */
static int parse_fields(struct arena *arena, char *head, size_t len, struct head *h)
{
    struct framing f = { 0 };
    unsigned lines = 0;

    for (size_t i = 0; i < len; i++)
        lines += head[i] == '\n';
    h->headers = arena_calloc(arena, lines + 1, sizeof *h->headers);
    h->content_length = -1;
    for (char *line = head; line < head + len;) {
        char *end = memchr(line, '\n', (size_t)(head + len - line));

        if (end == NULL || end == line || end[-1] != '\r')
            return 400;
        if (end - line == 1)
            break;
        struct http_header *field = &h->headers[h->n_headers];
        int status = parse_field(line, (size_t)(end - 1 - line), field);

        if (status == 0)
            status = take_field(h, &f, field->name, field->value);
        if (status != 0)
            return status;
        h->n_headers++;
        line = end + 1;
    }
    if (f.coding && (f.length || h->minor == 0))
        return 400;
    h->keep_alive = !f.close && (h->minor >= 1 || f.keep_alive);
    return 0;
}

/* --- first lines -------------------------------------------------------------------------------- */

/* "HTTP/1.0" or "HTTP/1.1"; 0 or the status. */
static int parse_version(const char *s, size_t len, unsigned *minor_r)
{
    if (len != 8 || memcmp(s, "HTTP/", 5) != 0 || s[5] < '0' || s[5] > '9' || s[6] != '.' || s[7] < '0' || s[7] > '9')
        return 400;
    if (s[5] != '1' || s[7] > '1')
        return 505;
    *minor_r = (unsigned)(s[7] - '0');
    return 0;
}

static int split_target(struct arena *arena, struct head *h)
{
    const char *path = h->target;

    if (strncasecmp(path, "http://", 7) == 0 || strncasecmp(path, "https://", 8) == 0) {
        path = strstr(path, "//") + 2;
        path += strcspn(path, "/?");
    } else if (*path != '/' && strcmp(h->method, "CONNECT") != 0 &&
               !(strcmp(path, "*") == 0 && strcmp(h->method, "OPTIONS") == 0)) {
        return 400;
    }
    size_t n = strcspn(path, "?");

    h->query = path[n] == '?' ? path + n + 1 : "";
    h->path = n == 0 ? "/" : percent_decode(arena, path, n, true, false);
    return h->path == NULL ? 400 : 0;
}

static int parse_request_line(struct arena *arena, char *line, size_t len, struct head *h)
{
    size_t method = 0, target;

    while (method < len && is_token((unsigned char)line[method]))
        method++;
    if (method == 0 || method == len || line[method] != ' ')
        return 400;
    for (target = method + 1; target < len && is_target((unsigned char)line[target]);)
        target++;
    if (target == method + 1 || target == len || line[target] != ' ')
        return 400;
    line[method] = line[target] = '\0';
    h->method = line;
    h->target = line + method + 1;
    int status = parse_version(line + target + 1, len - target - 1, &h->minor);

    return status != 0 ? status : split_target(arena, h);
}

/* Copies a head; *line_r its first line without CR LF, *rest_r what follows. */
static char *split_head(struct arena *arena, const char *bytes, size_t len, size_t *line_r, char **rest_r, size_t *rest_len_r)
{
    if (len >= 2 && bytes[0] == '\r' && bytes[1] == '\n') {
        bytes += 2;
        len -= 2;
    }
    char *copy = arena_alloc(arena, len + 1);

    memcpy(copy, bytes, len);
    char *end = memchr(copy, '\n', len);

    if (end == NULL || end == copy || end[-1] != '\r')
        return NULL;
    *line_r = (size_t)(end - 1 - copy);
    *rest_r = end + 1;
    *rest_len_r = len - (size_t)(end + 1 - copy);
    return copy;
}

int head_parse_request(struct arena *arena, const char *bytes, size_t len, struct head *h)
{
    size_t line_len, rest_len;
    char *rest;
    char *line = split_head(arena, bytes, len, &line_len, &rest, &rest_len);

    *h = (struct head){ .content_length = -1 };
    if (line == NULL)
        return 400;
    int status = parse_request_line(arena, line, line_len, h);

    return status != 0 ? status : parse_fields(arena, rest, rest_len, h);
}

int head_parse_answer(struct arena *arena, const char *bytes, size_t len, struct head *h)
{
    size_t line_len, rest_len;
    char *rest;
    char *line = split_head(arena, bytes, len, &line_len, &rest, &rest_len);

    *h = (struct head){ .content_length = -1 };
    if (line == NULL || line_len < 12 || line[8] != ' ' || parse_version(line, 8, &h->minor) != 0)
        return 502;
    if (line_len > 12 && line[12] != ' ')
        return 502;
    for (size_t i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return 502;
        h->status = h->status * 10 + (line[i] - '0');
    }
    if (h->status < 100)
        return 502;
    return parse_fields(arena, rest, rest_len, h) == 0 ? 0 : 502;
}
