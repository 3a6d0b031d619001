#include "rpc/wire/out.h"

#include <math.h>
#include <stdio.h>

void out_begin(struct out *o, struct text *t)
{
    o->text = t;
    if (t->cap - t->len <= OUT_SLACK)
        text_grow(t, 4 * OUT_SLACK);
    o->p = t->bytes + t->len;
    o->end = t->bytes + t->cap - 1;
}

void out_finish(struct out *o)
{
    o->text->len = (size_t)(o->p - o->text->bytes);
    *o->p = '\0';
}

void out_grow(struct out *o, size_t n)
{
    struct text *t = o->text;

    out_finish(o);
    text_grow(t, n > t->cap ? n : t->cap); /* doubles: rare, and realloc moves pages rather than bytes */
    o->p = t->bytes + t->len;
    o->end = t->bytes + t->cap - 1;
}

static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                            "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                            "9899";

void out_put_int(struct out *o, int64_t i)
{
    char digits[24], *end = digits + sizeof(digits), *p = end;
    uint64_t n = i < 0 ? -(uint64_t)i : (uint64_t)i;

    for (; n >= 100; n /= 100) {
        p -= 2;
        memcpy(p, pairs + n % 100 * 2, 2);
    }
    if (n >= 10) {
        p -= 2;
        memcpy(p, pairs + n * 2, 2);
    } else {
        *--p = (char)('0' + n);
    }
    if (i < 0)
        *--p = '-';
    memcpy(o->p, p, (size_t)(end - p));
    o->p += end - p;
}

void out_add_float(struct out *o, double f, const char *nan, const char *inf, const char *minus_inf)
{
    char text[64];

    if (isnan(f) || isinf(f)) {
        const char *word = isnan(f) ? nan : f > 0 ? inf : minus_inf;
        out_add(o, word, strlen(word));
        return;
    }
    if (fabs(f) < 1e15 && f == (double)(int64_t)f && !(f == 0 && signbit(f))) { /* what %.16g gives, faster */
        out_room(o, 20);
        out_put_int(o, (int64_t)f);
        return;
    }
    int n = snprintf(text, sizeof(text), "%.16g", f);
    out_add(o, text, (size_t)n);
}
