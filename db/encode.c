#include "db/encode.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/check.h"

#define DEPTH_MAX 16

/* --- writing ---------------------------------------------------------------------------------------- */

static void encode_string(struct text *t, const char *s, size_t len)
{
    text_add_byte(t, '"');
    for (size_t i = 0; i < len;) {
        size_t n = 0;
        while (i + n < len && (unsigned char)s[i + n] >= 0x20 && s[i + n] != '"' && s[i + n] != '\\')
            n++;
        text_add_len(t, s + i, n);
        i += n;
        if (i == len)
            break;
        if (s[i] == '"' || s[i] == '\\')
            text_printf(t, "\\%c", s[i]);
        else
            text_printf(t, "\\u%04x", (unsigned)(unsigned char)s[i]);
        i++;
    }
    text_add_byte(t, '"');
}

static void encode_float(struct text *t, double f)
{
    if (isfinite(f))
        text_printf(t, "%.17g", f);
    else
        text_add(t, isnan(f) ? "\"nan\"" : f > 0 ? "\"inf\"" : "\"-inf\"");
}

static void encode_set(struct text *t, const struct value *v)
{
    text_add_byte(t, '[');
    for (uint32_t i = 0; i < v->len; i++) {
        if (i > 0)
            text_add_byte(t, ',');
        encode_value(t, &v->items[i]);
    }
    text_add_byte(t, ']');
}

static void encode_map(struct text *t, const struct value *v)
{
    text_add_byte(t, '{');
    for (uint32_t i = 0; i < v->len; i++) {
        if (i > 0)
            text_add_byte(t, ',');
        encode_string(t, v->members[i].name, v->members[i].name_len);
        text_add_byte(t, ':');
        encode_value(t, &v->members[i].value);
    }
    text_add_byte(t, '}');
}

void encode_value(struct text *t, const struct value *v)
{
    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        encode_string(t, v->s, v->len);
        return;
    case VALUE_INT:
    case VALUE_INT32:
    case VALUE_DATETIME:
        text_printf(t, "%lld", (long long)v->i);
        return;
    case VALUE_BOOL:
        text_add(t, v->i != 0 ? "true" : "false");
        return;
    case VALUE_FLOAT:
        encode_float(t, v->f);
        return;
    case VALUE_SET:
        encode_set(t, v);
        return;
    case VALUE_MAP:
        encode_map(t, v);
        return;
    case VALUE_VOID:
    case VALUE_NIL:
        text_add(t, "null");
        return;
    case VALUE_RECORD:
        break;
    }
    BUG("a value that is never stored");
}

/* --- reading ---------------------------------------------------------------------------------------- */

struct reader {
    struct arena *arena;
    const char *at, *end;
    unsigned depth;
};

static bool read_value(struct reader *, const struct type_info *, struct value *);

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || (*r->at >= '\t' && *r->at <= '\r')))
        r->at++;
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool take_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);
    skip_space(r);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

static bool read_hex(struct reader *r, unsigned *code_r)
{
    unsigned code = 0;
    if (r->end - r->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, *r->at | 0x20);
        if (*r->at++ == '\0' || d == NULL)
            return false;
        code = code * 16 + (unsigned)(d - digits);
    }
    *code_r = code;
    return true;
}

static char *put_utf8(char *to, unsigned code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* What follows a backslash. Surrogates are refused: we never write them. */
static bool read_escape(struct reader *r, char **to)
{
    static const char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    unsigned code;

    if (r->at == r->end)
        return false;
    char c = *r->at++;
    if (c == 'u') {
        if (!read_hex(r, &code) || code == 0 || (code >= 0xd800 && code < 0xe000))
            return false;
        *to = put_utf8(*to, code);
        return true;
    }
    const char *found = c != '\0' ? strchr(from, c) : NULL;
    if (found == NULL)
        return false;
    *(*to)++ = means[found - from];
    return true;
}

static bool read_string(struct reader *r, const char **s_r, size_t *len_r)
{
    if (!take(r, '"'))
        return false;
    const char *close = r->at; /* no escape makes text longer */
    while (close < r->end && *close != '"')
        close += *close == '\\' && close + 1 < r->end ? 2 : 1;
    char *s = arena_alloc(r->arena, (size_t)(close - r->at) + 1), *to = s;
    while (r->at < r->end && *r->at != '"') {
        if (*r->at != '\\')
            *to++ = *r->at++;
        else if (r->at++, !read_escape(r, &to))
            return false;
    }
    *to = '\0';
    *s_r = s;
    *len_r = (size_t)(to - s);
    return take(r, '"');
}

/* The characters of a number, NUL-terminated. */
static bool read_number(struct reader *r, char *digits, size_t size)
{
    size_t n = 0;
    skip_space(r);
    while (r->at < r->end && n + 1 < size && strchr("+-0123456789.eE", *r->at) != NULL && *r->at != '\0')
        digits[n++] = *r->at++;
    digits[n] = '\0';
    return n > 0;
}

static bool read_int(struct reader *r, int64_t *i_r)
{
    char digits[32], *end;
    if (!read_number(r, digits, sizeof(digits)))
        return false;
    errno = 0;
    *i_r = strtoll(digits, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool read_float(struct reader *r, double *f_r)
{
    char digits[64], *end;
    static const struct {
        const char *word;
        double f;
    } odd[] = { { "\"nan\"", NAN }, { "\"inf\"", INFINITY }, { "\"-inf\"", -INFINITY } };

    for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
        if (take_word(r, odd[i].word)) {
            *f_r = odd[i].f;
            return true;
        }
    }
    if (!read_number(r, digits, sizeof(digits)))
        return false;
    *f_r = strtod(digits, &end);
    return *end == '\0';
}

static bool read_set(struct reader *r, const struct type_info *item, struct value *v)
{
    struct value_list list = { 0 };
    if (!take(r, '['))
        return false;
    bool more = !take(r, ']');
    while (more) {
        struct value next;
        if (!read_value(r, item, &next))
            return false;
        value_list_add(r->arena, &list, next);
        more = take(r, ',');
        if (!more && !take(r, ']'))
            return false;
    }
    *v = value_list_value(&list);
    return true;
}

static bool read_map(struct reader *r, const struct type_info *item, struct value *v)
{
    struct value_dict dict = { 0 };
    if (!take(r, '{'))
        return false;
    bool more = !take(r, '}');
    while (more) {
        const char *name;
        size_t len;
        struct value next;
        if (!read_string(r, &name, &len) || !take(r, ':') || !read_value(r, item, &next))
            return false;
        value_dict_add(r->arena, &dict, name, next);
        more = take(r, ',');
        if (!more && !take(r, '}'))
            return false;
    }
    *v = value_dict_value(&dict);
    return true;
}

static bool read_nested(struct reader *r, const struct type_info *type, struct value *v)
{
    if (++r->depth > DEPTH_MAX)
        return false;
    bool fine = type->kind == TYPE_SET ? read_set(r, type->item, v) : read_map(r, type->item, v);
    r->depth--;
    return fine;
}

static bool read_scalar(struct reader *r, const struct type_info *type, struct value *v)
{
    const char *s;
    size_t len;

    if (type->kind == TYPE_INT || type->kind == TYPE_DATETIME) {
        v->kind = type->kind == TYPE_INT ? VALUE_INT : VALUE_DATETIME;
        return read_int(r, &v->i);
    }
    if (type->kind == TYPE_BOOL) {
        *v = value_bool(take_word(r, "true"));
        return v->i != 0 || take_word(r, "false");
    }
    if (type->kind == TYPE_FLOAT) {
        v->kind = VALUE_FLOAT;
        return read_float(r, &v->f);
    }
    if (!read_string(r, &s, &len))
        return false;
    *v = value_string_len(s, len);
    return true;
}

static bool read_value(struct reader *r, const struct type_info *type, struct value *v)
{
    *v = value_void();
    switch (type->kind) {
    case TYPE_STRING:
    case TYPE_ENUM:
    case TYPE_REF:
    case TYPE_INT:
    case TYPE_DATETIME:
    case TYPE_BOOL:
    case TYPE_FLOAT:
        return read_scalar(r, type, v);
    case TYPE_SET:
    case TYPE_MAP:
        return read_nested(r, type, v);
    case TYPE_OPTION:
        return take_word(r, "null") || read_value(r, type->item, v);
    case TYPE_RECORD:
    case TYPE_VOID:
    case TYPE_ANY:
        return false;
    }
    BUG("not a type");
}

bool decode_value(struct arena *arena, const struct type_info *type, const char *text, size_t len,
                  struct value *value_r)
{
    struct reader r = { .arena = arena, .at = text, .end = text + len };
    if (!read_value(&r, type, value_r))
        return false;
    skip_space(&r);
    return r.at == r.end;
}
