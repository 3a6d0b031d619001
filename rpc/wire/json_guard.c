#include "rpc/wire/json_guard.h"

#include <string.h>

#include "rpc/wire/utf8.h"

#define NUMBER_MAX 60 /* bytes; cJSON reads at most 63 */

struct guard {
    struct arena *arena;
    struct json_numbers *numbers;
    const char *at, *end;
    const char *reason;
    unsigned depth, max_depth;
    bool done; /* the outermost value is complete */
};

static bool refuse(struct guard *g, const char *reason)
{
    g->reason = reason;
    return false;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* At the backslash of an escape: past it. Only \u is looked at; cJSON checks the others. */
static bool take_escape(struct guard *g)
{
    unsigned long c = 0;

    if (g->end - g->at < 2)
        return refuse(g, "it is truncated");
    g->at += 2;
    if (g->at[-1] != 'u')
        return true;
    for (int i = 0; i < 4; i++, g->at++) {
        if (g->at == g->end || hex_digit(*g->at) < 0)
            return refuse(g, "a \\u escape is malformed");
        c = c << 4 | (unsigned long)hex_digit(*g->at);
    }
    if (c == 0)
        return refuse(g, "it holds \\u0000");
    return !utf8_is_noncharacter(c) || refuse(g, "it holds a Unicode noncharacter");
}

static bool take_string(struct guard *g)
{
    g->at++;
    while (g->at < g->end && *g->at != '"') {
        if (*g->at == '\\') {
            if (!take_escape(g))
                return false;
        } else if ((unsigned char)*g->at < 0x20) {
            return refuse(g, "a string holds a control character");
        } else {
            g->at++;
        }
    }
    if (g->at == g->end)
        return refuse(g, "it is truncated");
    g->at++;
    return true;
}

static bool take_digits(const char **p, const char *end)
{
    const char *start = *p;

    while (*p < end && is_digit(**p))
        ++*p;
    return *p > start;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)? : its end, or NULL */
static const char *number_end(const char *p, const char *end, bool *integral_r)
{
    p += p < end && *p == '-';
    const char *first = p;
    if (!take_digits(&p, end) || (*first == '0' && p > first + 1))
        return NULL;
    *integral_r = true;
    if (p < end && *p == '.') {
        *integral_r = false;
        p++;
        if (!take_digits(&p, end))
            return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        *integral_r = false;
        p++;
        p += p < end && (*p == '+' || *p == '-');
        if (!take_digits(&p, end))
            return NULL;
    }
    return p;
}

static bool exact(const char *p, const char *end, int64_t *i_r)
{
    bool negative = *p == '-';
    int64_t i = 0;

    for (p += negative; p < end; p++) {
        int digit = negative ? '0' - *p : *p - '0';
        if (__builtin_mul_overflow(i, 10, &i) || __builtin_add_overflow(i, digit, &i))
            return false;
    }
    *i_r = i;
    return true;
}

static void keep_number(struct guard *g, struct json_number number)
{
    struct json_numbers *n = g->numbers;

    if (n->n == n->cap) {
        struct json_number *old = n->items;
        n->cap = n->cap > 0 ? n->cap * 2 : 16;
        n->items = arena_calloc(g->arena, n->cap, sizeof(*n->items));
        if (n->n > 0)
            memcpy(n->items, old, n->n * sizeof(*old));
    }
    n->items[n->n++] = number;
}

static bool take_number(struct guard *g)
{
    struct json_number number = { 0 };
    const char *end = number_end(g->at, g->end, &number.integral);

    if (end == NULL)
        return refuse(g, "a number is malformed");
    if (end - g->at > NUMBER_MAX)
        return refuse(g, "a number is too long");
    if (number.integral && !exact(g->at, end, &number.i))
        return refuse(g, "an integer does not fit 64 bits");
    keep_number(g, number);
    g->at = end;
    return true;
}

/* A word: true, false, null; cJSON refuses others (NaN and Infinity among them). */
static bool take_word(struct guard *g)
{
    const char *start = g->at;

    while (g->at < g->end && ((*g->at >= 'a' && *g->at <= 'z') || (*g->at >= 'A' && *g->at <= 'Z')))
        g->at++;
    return g->at > start || refuse(g, "it is not JSON");
}

static bool take_bracket(struct guard *g)
{
    char c = *g->at++;

    if (c == '[' || c == '{')
        return ++g->depth <= g->max_depth || refuse(g, "it is nested too deeply");
    if (g->depth == 0)
        return refuse(g, "it is not JSON");
    g->depth--;
    return true;
}

static bool take_token(struct guard *g)
{
    char c = *g->at;
    bool ok;

    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        g->at++;
        return true;
    }
    if (g->done)
        return refuse(g, "something follows the value");
    if ((c == ',' || c == ':') && g->depth > 0) {
        g->at++;
        return true;
    }
    if (c == '"')
        ok = take_string(g);
    else if (c == '[' || c == '{' || c == ']' || c == '}')
        ok = take_bracket(g);
    else if (c == '-' || is_digit(c))
        ok = take_number(g);
    else
        ok = take_word(g);
    g->done = g->depth == 0;
    return ok;
}

bool json_guard(struct arena *a, const char *bytes, size_t len, unsigned max_depth, struct json_numbers *numbers,
                const char **reason_r)
{
    struct guard g = { .arena = a, .numbers = numbers, .at = bytes, .end = bytes + len, .max_depth = max_depth };
    bool wide;

    *reason_r = g.reason = utf8_problem(bytes, len, &wide);
    if (g.reason != NULL)
        return false;
    while (g.at < g.end) {
        if (!take_token(&g)) {
            *reason_r = g.reason;
            return false;
        }
    }
    if (!g.done)
        *reason_r = len == 0 ? "it is empty" : "it is truncated";
    return g.done;
}

/* --- source text of a member -------------------------------------------------------------------- */

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

/* Past the string that starts at p. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p + 1 : end;
}

/* Past the value that starts at p; the document is known to be well-formed. */
static const char *skip_value(const char *p, const char *end)
{
    unsigned depth = 0;

    do {
        if (p < end && *p == '"') {
            p = skip_string(p, end);
        } else if (p < end && (*p == '[' || *p == '{')) {
            depth++;
            p++;
        } else if (p < end && (*p == ']' || *p == '}')) {
            depth--;
            p++;
        } else if (depth > 0) {
            p++;
        } else {
            while (p < end && strchr(" \t\r\n,]}", *p) == NULL)
                p++;
        }
    } while (depth > 0 && p < end);
    return p;
}

bool json_member_text(const char *bytes, size_t len, const char *name, const char **text_r, size_t *len_r)
{
    const char *end = bytes + len, *p = skip_space(bytes, end);
    size_t name_len = strlen(name);
    bool found = false;

    if (p == end || *p != '{')
        return false;
    p = skip_space(p + 1, end);
    while (p < end && *p == '"') {
        const char *key = p + 1;
        p = skip_string(p, end);
        bool match = (size_t)(p - 1 - key) == name_len && memcmp(key, name, name_len) == 0;
        p = skip_space(p, end);
        p = skip_space(p < end ? p + 1 : end, end); /* the colon */
        const char *value_end = skip_value(p, end);
        if (match) {
            *text_r = p;
            *len_r = (size_t)(value_end - p);
            found = true;
        }
        p = skip_space(value_end, end);
        p = skip_space(p < end ? p + 1 : end, end); /* the comma */
    }
    return found;
}
