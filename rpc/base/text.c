#include "rpc/base/text.h"

#include <stdio.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define SMALLEST 64u

void text_release(struct text *t)
{
    xfree(t->bytes);
    *t = (struct text)TEXT_INIT;
}

void text_clear(struct text *t)
{
    t->len = 0;
    if (t->bytes != NULL)
        t->bytes[0] = '\0';
}

void text_grow(struct text *t, size_t more)
{
    CHECK(more < PTRDIFF_MAX - t->len - 1);
    size_t need = t->len + more + 1;
    if (t->cap >= need)
        return;
    size_t cap = t->cap < SMALLEST ? SMALLEST : t->cap + t->cap / 2;
    if (cap < need)
        cap = need;
    t->bytes = xrealloc(t->bytes, cap);
    t->cap = cap;
    t->bytes[t->len] = '\0';
}

void text_add(struct text *t, const char *s) { text_add_len(t, s, strlen(s)); }

void text_add_byte(struct text *t, char c)
{
    if (t->cap - t->len <= 1)
        text_grow(t, 1);
    t->bytes[t->len++] = c;
    t->bytes[t->len] = '\0';
}

void text_vprintf(struct text *t, const char *fmt, va_list args)
{
    va_list again;

    text_grow(t, SMALLEST);
    va_copy(again, args);
    size_t room = t->cap - t->len;
    int n = vsnprintf(t->bytes + t->len, room, fmt, again);
    va_end(again);
    CHECK(n >= 0);
    if ((size_t)n >= room) {
        text_grow(t, (size_t)n);
        CHECK(vsnprintf(t->bytes + t->len, (size_t)n + 1, fmt, args) == n);
    }
    t->len += (size_t)n;
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    text_vprintf(t, fmt, args);
    va_end(args);
}

char *text_steal(struct text *t)
{
    if (t->bytes == NULL)
        text_grow(t, 0);
    char *bytes = t->bytes;
    *t = (struct text)TEXT_INIT;
    return bytes;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool text_to_uint(const char *s, uint64_t *n_r)
{
    uint64_t n = 0;

    if (!is_digit(*s))
        return false;
    for (; is_digit(*s); s++)
        if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (unsigned)(*s - '0'), &n))
            return false;
    if (*s != '\0')
        return false;
    *n_r = n;
    return true;
}

bool text_to_int(const char *s, int64_t *n_r)
{
    bool negative = *s == '-';
    uint64_t n, most = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;

    if (!text_to_uint(s + negative, &n) || n > most)
        return false;
    *n_r = negative ? (int64_t)(0 - n) : (int64_t)n;
    return true;
}
