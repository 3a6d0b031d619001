#include "rpc/nbd/nbd_uri.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/text.h"

#define DEFAULT_PORT 10809u
#define FRONT_MAX 2048u /* bytes of put, and of cookie */

static const struct { const char *text; bool local, tls; } schemes[] = {
    { "nbd://", false, false },
    { "nbds://", false, true },
    { "nbd+unix://", true, false },
    { "nbds+unix://", true, true },
};

bool nbd_uri_is(const char *text)
{
    for (unsigned i = 0; i < ARRAY_LEN(schemes); i++)
        if (strncmp(text, schemes[i].text, strlen(schemes[i].text)) == 0)
            return true;
    return false;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The first n bytes with their %XX turned into bytes; NULL when malformed or with a NUL. */
static char *decode(struct arena *a, const char *text, size_t n)
{
    char *out = arena_alloc(a, n + 1), *to = out;

    for (size_t i = 0; i < n; i++) {
        if (text[i] != '%') {
            *to++ = text[i];
            continue;
        }
        if (n - i < 3 || digit(text[i + 1]) < 0 || digit(text[i + 2]) < 0)
            return NULL;
        *to = (char)(digit(text[i + 1]) * 16 + digit(text[i + 2]));
        if (*to++ == '\0')
            return NULL;
        i += 2;
    }
    return out;
}

static bool parse_port(struct arena *a, const char *text, size_t n, unsigned *port_r)
{
    uint64_t port;

    if (n == 0) /* "host:" */
        return true;
    if (!text_to_uint(arena_strndup(a, text, n), &port) || port == 0 || port > 65535)
        return false;
    *port_r = (unsigned)port;
    return true;
}

/* [user@]host[:port], the host perhaps in brackets. */
static bool parse_authority(struct arena *a, const char *text, size_t n, struct nbd_uri *u)
{
    const char *user = memchr(text, '@', n), *end;

    if (user != NULL) {
        n -= (size_t)(user + 1 - text);
        text = user + 1;
    }
    if (n > 0 && text[0] == '[') {
        end = memchr(text, ']', n);
        if (end == NULL)
            return false;
        u->host = decode(a, text + 1, (size_t)(end - text - 1));
        end++;
    } else {
        end = memchr(text, ':', n);
        end = end != NULL ? end : text + n;
        u->host = decode(a, text, (size_t)(end - text));
    }
    if (u->host == NULL || u->host[0] == '\0')
        return false;
    if (end == text + n)
        return true;
    return *end == ':' && parse_port(a, end + 1, (size_t)(text + n - end - 1), &u->port);
}

/* Goes into a line of a request as it is. */
static bool fits_line(const char *value, bool blanks)
{
    for (; *value != '\0'; value++)
        if ((unsigned char)*value > 0x7e || (unsigned char)*value < (blanks ? 0x20 : 0x21))
            return false;
    return true;
}

static bool set_front(struct nbd_uri *u, const char *key, const char *value)
{
    bool put = strcmp(key, "put") == 0;

    *(put ? &u->put : &u->cookie) = value;
    return strlen(value) <= FRONT_MAX && fits_line(value, !put) && (!put || value[0] == '/');
}

static bool set_parameter(struct nbd_uri *u, const char *key, const char *value)
{
    if (strcmp(key, "put") == 0 || strcmp(key, "cookie") == 0)
        return set_front(u, key, value);
    if (strcmp(key, "socket") == 0)
        u->socket = value;
    else if (strcmp(key, "fingerprint") == 0)
        u->fingerprint = value;
    else if (strcmp(key, "sni") == 0)
        u->sni = value;
    else if (strcmp(key, "tls") == 0) {
        if (strcmp(value, "first") != 0)
            return false;
        u->tls = u->tls_first = true;
    }
    return true; /* those of others mean nothing to us */
}

static bool parse_query(struct arena *a, const char *text, struct nbd_uri *u)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "&"), key = strcspn(text, "=&");
        const char *name = decode(a, text, key);
        const char *value = key < n ? decode(a, text + key + 1, n - key - 1) : "";

        if (name == NULL || value == NULL || !set_parameter(u, name, value))
            return false;
        text += n + (text[n] == '&');
    }
    return true;
}

bool nbd_uri_parse(struct arena *a, const char *text, struct nbd_uri *u)
{
    unsigned i = 0;

    *u = (struct nbd_uri){ .port = DEFAULT_PORT, .name = "" };
    while (i < ARRAY_LEN(schemes) && strncmp(text, schemes[i].text, strlen(schemes[i].text)) != 0)
        i++;
    if (i == ARRAY_LEN(schemes) || strchr(text, '#') != NULL)
        return false;
    text += strlen(schemes[i].text);
    u->tls = schemes[i].tls;
    size_t authority = strcspn(text, "/?"), path = strcspn(text, "?");
    if (path > authority)
        u->name = decode(a, text + authority + 1, path - authority - 1);
    if (u->name == NULL || (text[path] == '?' && !parse_query(a, text + path + 1, u)))
        return false;
    if (schemes[i].local)
        return authority == 0 && u->socket != NULL && u->socket[0] != '\0';
    u->socket = NULL;
    return parse_authority(a, text, authority, u) && (u->put == NULL || fits_line(u->host, false));
}

static char *escape(char *to, const char *value)
{
    static const char hex[] = "0123456789ABCDEF";

    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;

        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~/", c) != NULL) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = hex[c >> 4];
            *to++ = hex[c & 15];
        }
    }
    *to = '\0';
    return to;
}

const char *nbd_uri_escape(struct arena *a, const char *value)
{
    char *out = arena_alloc(a, 3 * strlen(value) + 1);

    (void)escape(out, value);
    return out;
}

const char *nbd_uri_unix(struct arena *a, const char *socket)
{
    return arena_printf(a, "nbd+unix:///?socket=%s", nbd_uri_escape(a, socket));
}

const char *nbd_uri_shown(struct arena *a, const char *text)
{
    const char *at = nbd_uri_is(text) ? strchr(text, '?') : NULL;
    char *out = arena_strdup(a, text), *to;

    if (at == NULL)
        return out;
    to = out + (at - text) + 1;
    for (at++; *at != '\0';) {
        size_t n = strcspn(at, "&"), key = strcspn(at, "=&");
        const char *name = decode(a, at, key);
        bool secret = key < n && (name == NULL || strcmp(name, "cookie") == 0);
        size_t keep = secret ? key + 1 : n;

        memmove(to, at, keep);
        to += keep;
        at += n;
        if (*at == '&')
            *to++ = *at++;
    }
    *to = '\0';
    return out;
}
