/* Is there a byte that XML or JSON must escape? Run over every string that enters a row, so it looks
 * at 16 bytes at a time where SSE2 is there, at 8 elsewhere. */
#include "rpc/base/value.h"

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static bool byte_is_plain(unsigned char c)
{
    return c >= 0x20 && c != '<' && c != '>' && c != '&' && c != '"' && c != '\\';
}

#define ONES 0x0101010101010101u
#define HIGHS 0x8080808080808080u

/* Non-zero where some byte of x is zero; false alarms only in bytes above a true one. */
static uint64_t has_zero(uint64_t x) { return (x - ONES) & ~x & HIGHS; }

static bool word_is_plain(const char *s)
{
    uint64_t x;

    memcpy(&x, s, sizeof(x));
    uint64_t bad = (x - ONES * 0x20) & ~x & HIGHS; /* some byte below 0x20 */
    bad |= has_zero(x ^ (ONES * '<')) | has_zero(x ^ (ONES * '>')) | has_zero(x ^ (ONES * '&'));
    bad |= has_zero(x ^ (ONES * '"')) | has_zero(x ^ (ONES * '\\'));
    return bad == 0;
}

#if defined(__SSE2__)
static bool vector_is_plain(const char *s)
{
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)s);
    __m128i bad = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x); /* unsigned x <= 0x1f */

    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('<')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('>')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('&')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
    return _mm_movemask_epi8(bad) == 0;
}
#endif

bool text_is_plain(const char *s, size_t len)
{
    size_t i = 0;

#if defined(__SSE2__)
    for (; i + 16 <= len; i += 16)
        if (!vector_is_plain(s + i))
            return false;
#endif
    for (; i + 8 <= len; i += 8)
        if (!word_is_plain(s + i))
            return false;
    if (i < len && len >= 8) /* the rest, looking at some bytes twice */
        return word_is_plain(s + len - 8);
    for (; i < len; i++)
        if (!byte_is_plain((unsigned char)s[i]))
            return false;
    return true;
}
