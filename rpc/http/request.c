/* Looking things up in a request: headers, query keys, cookies, credentials. */
#include "rpc/http/server.h"

#include <string.h>
#include <strings.h>

#include "rpc/http/parse.h"

const char *http_header(const struct http_request *r, const char *lower_name)
{
    for (unsigned i = 0; i < r->n_headers; i++)
        if (strcmp(r->headers[i].name, lower_name) == 0)
            return r->headers[i].value;
    return NULL;
}

/* The first key=value of a list split at any of 'ends'. A key without '=' has the value "". */
static const char *find_pair(struct arena *arena, const char *list, const char *ends, const char *key, bool plus)
{
    size_t key_len = strlen(key);

    while (*list != '\0') {
        list += strspn(list, " \t");
        size_t len = strcspn(list, ends);
        const char *equals = memchr(list, '=', len);
        size_t name_len = equals != NULL ? (size_t)(equals - list) : len;

        if (name_len == key_len && memcmp(list, key, key_len) == 0) {
            if (equals == NULL)
                return "";
            while (len > name_len + 1 && (list[len - 1] == ' ' || list[len - 1] == '\t'))
                len--;
            return percent_decode(arena, equals + 1, len - name_len - 1, false, plus);
        }
        list += len;
        if (*list != '\0')
            list++;
    }
    return NULL;
}

const char *http_query(struct arena *arena, const struct http_request *r, const char *key)
{
    return find_pair(arena, r->query, "&", key, true);
}

const char *http_cookie(struct arena *arena, const struct http_request *r, const char *key)
{
    for (unsigned i = 0; i < r->n_headers; i++) {
        if (strcmp(r->headers[i].name, "cookie") != 0)
            continue;
        const char *value = find_pair(arena, r->headers[i].value, ";&", key, false);

        if (value != NULL)
            return value;
    }
    return NULL;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Padded base64 without anything else in it; NULL if it is not. */
static char *base64_decode(struct arena *arena, const char *in, size_t *len_r)
{
    size_t len = strlen(in), n = 0;
    unsigned bits = 0, have = 0;
    char *out = arena_alloc(arena, len + 1);

    if (len == 0 || len % 4 != 0)
        return NULL;
    while (len > 0 && in[len - 1] == '=' && strlen(in) - len < 2)
        len--;
    for (size_t i = 0; i < len; i++) {
        int digit = base64_digit(in[i]);

        if (digit < 0)
            return NULL;
        bits = bits << 6 | (unsigned)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have & 0xff);
        }
    }
    *len_r = n;
    return out;
}

bool http_basic_auth(struct arena *arena, const struct http_request *r, const char **user_r, const char **password_r)
{
    const char *value = http_header(r, "authorization");

    if (value == NULL || strncasecmp(value, "Basic ", 6) != 0)
        return false;
    value += 6 + strspn(value + 6, " ");
    size_t len = 0;
    char *plain = base64_decode(arena, value, &len);
    char *colon = plain != NULL ? strchr(plain, ':') : NULL;

    if (colon == NULL || strlen(plain) != len) /* no NUL inside */
        return false;
    *colon = '\0';
    *user_r = plain;
    *password_r = colon + 1;
    return true;
}
