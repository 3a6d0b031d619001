#include "rpc/wire/utf8.h"

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static bool is_tail(unsigned char c) { return (c & 0xc0) == 0x80; }

/* Bytes of the character at p, which is not ASCII; 0 when it is malformed, overlong or a surrogate. */
static unsigned take_character(const unsigned char *p, size_t left, unsigned long *c_r)
{
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < 2 || !is_tail(p[1]))
        return 0;
    unsigned long c = p[1] & 0x3fu;
    if (p[0] < 0xe0) {
        *c_r = (p[0] & 0x1ful) << 6 | c;
        return 2;
    }
    if (left < 3 || !is_tail(p[2]))
        return 0;
    c = c << 6 | (p[2] & 0x3fu);
    if (p[0] < 0xf0) {
        *c_r = c = (p[0] & 0x0ful) << 12 | c;
        return c < 0x800 || (c >= 0xd800 && c <= 0xdfff) ? 0 : 3;
    }
    if (left < 4 || !is_tail(p[3]))
        return 0;
    *c_r = c = (p[0] & 0x07ul) << 18 | c << 6 | (p[3] & 0x3fu);
    return c < 0x10000 || c > 0x10ffff ? 0 : 4;
}

/* Skips ASCII without NUL, 16 bytes at a time; may stop early. */
static const char *skip_ascii(const char *p, const char *end)
{
#if defined(__SSE2__)
    while (end - p >= 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        if (_mm_movemask_epi8(_mm_or_si128(x, _mm_cmpeq_epi8(x, _mm_setzero_si128()))) != 0)
            break;
        p += 16;
    }
#endif
    while (p < end && (signed char)*p > 0)
        p++;
    return p;
}

const char *utf8_problem(const char *bytes, size_t len, bool *wide_r)
{
    const char *end = bytes + len;

    *wide_r = false;
    for (const char *p = skip_ascii(bytes, end); p < end; p = skip_ascii(p, end)) {
        unsigned long c = 0;

        if (*p == '\0')
            return "it holds a NUL byte";
        unsigned n = take_character((const unsigned char *)p, (size_t)(end - p), &c);
        if (n == 0)
            return "it is not valid UTF-8";
        if (utf8_is_noncharacter(c))
            return "it holds a Unicode noncharacter";
        *wide_r |= n == 4;
        p += n;
    }
    return NULL;
}

unsigned utf8_put(char *out, unsigned long c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
