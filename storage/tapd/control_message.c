#include <string.h>

#include "storage/tapd/control_protocol.h"

/* What stands for itself in a value. */
static bool is_plain(unsigned char c) { return c >= 0x21 && c <= 0x7e && c != '%' && c != '='; }

static void add_escaped(struct text *t, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (is_plain((unsigned char)s[i]))
            text_add_byte(t, s[i]);
        else
            text_printf(t, "%%%02X", (unsigned)(unsigned char)s[i]);
}

static void add_value(struct text *t, const struct value *v)
{
    if (v->kind == VALUE_STRING)
        add_escaped(t, v->s, v->len);
    else if (v->kind == VALUE_BOOL)
        text_add_byte(t, v->i != 0 ? '1' : '0');
    else if (v->kind == VALUE_INT || v->kind == VALUE_INT32)
        text_printf(t, "%lld", (long long)v->i);
}

void control_message_write(struct text *t, const char *verb, const struct value *arguments)
{
    text_add(t, verb);
    if (arguments == NULL || arguments->kind != VALUE_MAP)
        return;
    for (uint32_t i = 0; i < arguments->len; i++) {
        text_add_byte(t, ' ');
        text_add(t, arguments->members[i].name);
        text_add_byte(t, '=');
        add_value(t, &arguments->members[i].value);
    }
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value behind its '=' into the arena; NULL when malformed. */
static const char *unescape(struct arena *a, const char *s, size_t len)
{
    char *out = arena_alloc(a, len + 1);
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (s[i] != '%') {
            if (!is_plain((unsigned char)s[i]))
                return NULL;
            out[n++] = s[i];
            continue;
        }
        int high = len - i > 2 ? hex(s[i + 1]) : -1;
        int low = high >= 0 ? hex(s[i + 2]) : -1;
        if (low < 0 || (high == 0 && low == 0))
            return NULL;
        out[n++] = (char)(high * 16 + low);
        i += 2;
    }
    out[n] = '\0';
    return out;
}

static bool is_word(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!(s[i] >= 'a' && s[i] <= 'z') && !(s[i] >= '0' && s[i] <= '9') && s[i] != '_' && s[i] != '-')
            return false;
    return len > 0;
}

static size_t token_len(const char *s, size_t len)
{
    const char *blank = memchr(s, ' ', len);

    return blank != NULL ? (size_t)(blank - s) : len;
}

static bool parse_word(struct arena *a, const char *s, size_t len, struct value_dict *words)
{
    const char *equals = memchr(s, '=', len);

    if (equals == NULL || !is_word(s, (size_t)(equals - s)))
        return false;
    const char *name = arena_strndup(a, s, (size_t)(equals - s));
    const char *value = unescape(a, equals + 1, len - (size_t)(equals - s) - 1);
    if (value == NULL)
        return false;
    for (unsigned i = 0; i < words->n; i++)
        if (strcmp(words->members[i].name, name) == 0)
            return false;
    value_dict_add(a, words, name, value_string(value));
    return true;
}

bool control_message_parse(struct arena *a, const char *line, size_t len, const char **verb_r, struct value *arguments_r)
{
    struct value_dict words = { 0 };

    if (len > CONTROL_LINE_MAX)
        return false;
    size_t n = token_len(line, len);
    if (!is_word(line, n))
        return false;
    *verb_r = arena_strndup(a, line, n);
    while (n < len) { /* line[n] is a blank */
        line += n + 1;
        len -= n + 1;
        n = token_len(line, len);
        if (!parse_word(a, line, n, &words))
            return false;
    }
    *arguments_r = value_dict_value(&words);
    return true;
}
