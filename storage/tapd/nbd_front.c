#include "storage/tapd/nbd_front.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

const char *nbd_front_request(struct arena *a, const struct nbd_uri *u)
{
    bool v6 = strchr(u->host, ':') != NULL;
    const char *host = arena_printf(a, v6 ? "[%s]:%u" : "%s:%u", u->host, u->port);

    if (u->cookie == NULL || u->cookie[0] == '\0')
        return arena_printf(a, "PUT %s HTTP/1.1\r\nHost: %s\r\n\r\n", u->put, host);
    return arena_printf(a, "PUT %s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\n\r\n", u->put, host, u->cookie);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* "HTTP/1.x NNN", then a blank and a reason, or nothing. */
static int status_of(const char *line, size_t len)
{
    static const char start[] = "HTTP/1.";
    size_t n = sizeof start - 1;

    if (len < n + 5 || memcmp(line, start, n) != 0 || !is_digit(line[n]) || line[n + 1] != ' ')
        return -EPROTO;
    if (!is_digit(line[n + 2]) || !is_digit(line[n + 3]) || !is_digit(line[n + 4]) || (len > n + 5 && line[n + 5] != ' '))
        return -EPROTO;
    return (line[n + 2] - '0') * 100 + (line[n + 3] - '0') * 10 + (line[n + 4] - '0');
}

static bool is_token(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* "Name: value"; lines that continue another one are refused, as RFC 9112 §5.2 wants. */
static bool is_field(const char *line, size_t len)
{
    size_t n = 0;

    while (n < len && is_token(line[n]))
        n++;
    return n > 0 && n < len && line[n] == ':';
}

static int judge(const struct nbd_front *f)
{
    const char *line = f->head, *end = f->head + f->len;
    int status = 0;

    for (unsigned i = 0; line < end; i++) {
        const char *stop = memchr(line, '\r', (size_t)(end - line));
        size_t len = (size_t)(stop - line);

        if (i == 0)
            status = status_of(line, len);
        else if (len > 0 && !is_field(line, len))
            return -EPROTO;
        line = stop + 2;
    }
    if (status < 0 || status == 200)
        return status < 0 ? status : 1;
    return status == 401 || status == 403 ? -EACCES : status == 404 ? -ENOENT : -ECONNREFUSED;
}

int nbd_front_byte(struct nbd_front *f, char byte)
{
    unsigned char c = (unsigned char)byte;
    char before = f->len > 0 ? f->head[f->len - 1] : '\0';

    if (f->len == NBD_FRONT_HEAD_MAX)
        return -EPROTO;
    if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f || (c == '\n') != (before == '\r'))
        return -EPROTO;
    f->head[f->len++] = byte;
    if (f->len <= 5 && memcmp(f->head, "HTTP/", f->len) != 0)
        return -EPROTO;
    return c == '\n' && f->len >= 4 && memcmp(f->head + f->len - 4, "\r\n\r\n", 4) == 0 ? judge(f) : 0;
}

void nbd_front_line(const struct nbd_front *f, char *to, size_t size)
{
    size_t n = 0;

    for (; n < f->len && n + 1 < size && f->head[n] != '\r' && f->head[n] != '\n'; n++)
        to[n] = f->head[n] >= 0x20 && f->head[n] < 0x7f ? f->head[n] : '?';
    to[n] = '\0';
}
