#include "xenops/state_text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "rpc/base/check.h"

static void add_string(struct text *t, const char *s, size_t len)
{
    text_add_byte(t, '"');
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"' || s[i] == '\\') {
            text_add_byte(t, '\\');
            text_add_byte(t, s[i]);
        } else if ((unsigned char)s[i] < 0x20) {
            text_printf(t, "\\u%04x", (unsigned)s[i]);
        } else {
            text_add_byte(t, s[i]);
        }
    }
    text_add_byte(t, '"');
}

static void add_members(struct text *t, const struct value *v)
{
    text_add_byte(t, '{');
    for (uint32_t i = 0; i < v->len; i++) {
        text_add(t, i > 0 ? "," : "");
        add_string(t, v->members[i].name, v->members[i].name_len);
        text_add_byte(t, ':');
        state_text_add(t, &v->members[i].value);
    }
    text_add_byte(t, '}');
}

void state_text_add(struct text *t, const struct value *v)
{
    switch ((enum value_kind)v->kind) {
    case VALUE_STRING: add_string(t, v->s, v->len); return;
    case VALUE_INT:
    case VALUE_INT32: text_printf(t, "%lld", (long long)v->i); return;
    case VALUE_BOOL: text_add(t, v->i != 0 ? "true" : "false"); return;
    case VALUE_FLOAT: text_printf(t, "%.17g", isfinite(v->f) ? v->f : 0.0); return;
    case VALUE_MAP: add_members(t, v); return;
    case VALUE_SET:
        text_add_byte(t, '[');
        for (uint32_t i = 0; i < v->len; i++) {
            text_add(t, i > 0 ? "," : "");
            state_text_add(t, &v->items[i]);
        }
        text_add_byte(t, ']');
        return;
    case VALUE_VOID:
    case VALUE_DATETIME:
    case VALUE_RECORD:
    case VALUE_NIL: BUG("a value without a text form");
    }
}

/* --- reading --- */

struct reader {
    struct arena *arena;
    const char *at, *end;
    const char *why;
    unsigned depth;
};

static bool refuse(struct reader *r, const char *why)
{
    r->why = why;
    return false;
}

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r'))
        r->at++;
}

static bool next_is(struct reader *r, char c)
{
    skip_blanks(r);
    if (r->at >= r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool read_hex4(struct reader *r, unsigned *code_r)
{
    *code_r = 0;
    if (r->end - r->at < 4)
        return refuse(r, "a cut \\u escape");
    for (unsigned i = 0; i < 4; i++) {
        char c = *r->at++;
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (unsigned)((c | 32) - 'a' + 10) : 16;
        if (digit > 15)
            return refuse(r, "a bad \\u escape");
        *code_r = *code_r * 16 + digit;
    }
    return true;
}

static size_t put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char)(0xc0 | code >> 6);
        to[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    to[0] = (char)(0xe0 | code >> 12);
    to[1] = (char)(0x80 | (code >> 6 & 0x3f));
    to[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

static bool read_escape(struct reader *r, char *to, size_t *n_r)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    unsigned code;

    if (r->at >= r->end)
        return refuse(r, "a cut escape");
    char c = *r->at++;
    const char *known = c != '\0' ? strchr(from, c) : NULL;
    *n_r = 1;
    if (known != NULL) {
        *to = into[known - from];
        return true;
    }
    if (c != 'u' || !read_hex4(r, &code))
        return refuse(r, "a bad escape");
    if (code == 0 || (code >= 0xd800 && code < 0xe000))
        return refuse(r, "a \\u escape of NUL or of half a pair");
    *n_r = put_utf8(to, code);
    return true;
}

/* After the opening quote. An escape is never shorter than what it stands for. */
static bool read_string(struct reader *r, const char **s_r, size_t *len_r)
{
    const char *close = r->at;

    while (close < r->end && *close != '"')
        close += *close == '\\' && r->end - close > 1 ? 2 : 1;
    if (close >= r->end)
        return refuse(r, "a string without an end");
    char *to = arena_alloc(r->arena, (size_t)(close - r->at) + 1);
    size_t len = 0, n;
    *s_r = to;
    while (r->at < close) {
        char c = *r->at++;
        if ((unsigned char)c < 0x20)
            return refuse(r, "a control byte in a string");
        if (c != '\\') {
            to[len++] = c;
            continue;
        }
        if (!read_escape(r, to + len, &n))
            return false;
        len += n;
    }
    r->at++;
    *len_r = len;
    return true;
}

static bool read_number(struct reader *r, struct value *v)
{
    char digits[40], *end;
    size_t n = 0;

    while (r->at < r->end && n < sizeof(digits) - 1 && *r->at != '\0' && strchr("+-.eE0123456789", *r->at) != NULL)
        digits[n++] = *r->at++;
    digits[n] = '\0';
    errno = 0;
    if (strpbrk(digits, ".eE") != NULL)
        *v = value_float(strtod(digits, &end));
    else
        *v = value_int(strtoll(digits, &end, 10));
    if (n == 0 || *end != '\0' || errno != 0)
        return refuse(r, "a bad number");
    return true;
}

static bool read_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

static bool read_value(struct reader *r, struct value *v);

static bool read_set(struct reader *r, struct value *v)
{
    struct value_list list = { 0 };
    struct value item;

    if (!next_is(r, ']')) {
        do {
            if (!read_value(r, &item))
                return false;
            value_list_add(r->arena, &list, item);
        } while (next_is(r, ','));
        if (!next_is(r, ']'))
            return refuse(r, "a list without an end");
    }
    *v = value_list_value(&list);
    return true;
}

static bool read_map(struct reader *r, struct value *v)
{
    struct value_dict dict = { 0 };
    struct value item;
    const char *name;
    size_t len;

    if (!next_is(r, '}')) {
        do {
            if (!next_is(r, '"') || !read_string(r, &name, &len))
                return refuse(r, "a member without a name");
            if (!next_is(r, ':') || !read_value(r, &item))
                return refuse(r, r->why != NULL ? r->why : "a member without a value");
            value_dict_add(r->arena, &dict, name, item);
        } while (next_is(r, ','));
        if (!next_is(r, '}'))
            return refuse(r, "an object without an end");
    }
    *v = value_dict_value(&dict);
    return true;
}

static bool read_value(struct reader *r, struct value *v)
{
    const char *s;
    size_t len;
    bool good;

    skip_blanks(r);
    if (r->at >= r->end)
        return refuse(r, "an early end");
    if (++r->depth > STATE_DEPTH_MAX)
        return refuse(r, "too deep");
    switch (*r->at) {
    case '"':
        r->at++;
        good = read_string(r, &s, &len);
        *v = good ? value_string_len(s, len) : value_void();
        break;
    case '[': r->at++; good = read_set(r, v); break;
    case '{': r->at++; good = read_map(r, v); break;
    case 't': *v = value_bool(true); good = read_word(r, "true") || refuse(r, "a bad word"); break;
    case 'f': *v = value_bool(false); good = read_word(r, "false") || refuse(r, "a bad word"); break;
    default: good = read_number(r, v); break;
    }
    r->depth--;
    return good;
}

bool state_text_read(struct arena *a, const char *bytes, size_t len, struct value *v, const char **why_r)
{
    struct reader r = { .arena = a, .at = bytes, .end = bytes + len };

    bool good = read_value(&r, v);
    skip_blanks(&r);
    if (good && r.at != r.end)
        good = refuse(&r, "more bytes after the value");
    *why_r = r.why;
    return good;
}
