/* Names in UTF-16, as locators have them. */
#include "storage/image/vhd_format.h"

#include <string.h>

/* One code point as UTF-8; 0 where there is no room. */
static uint32_t utf8_put(uint32_t code, char *out, uint32_t room)
{
    uint32_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    if (n >= room)
        return 0;
    for (uint32_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(lead[n] | code);
    return n;
}

bool vhd_utf16_decode(const uint8_t *bytes, uint32_t n, bool big_endian, char *out, uint32_t cap)
{
    uint32_t len = 0, high = 0;

    for (uint32_t i = 0; i + 1 < n; i += 2) {
        uint32_t unit = big_endian ? (uint32_t)bytes[i] << 8 | bytes[i + 1] : (uint32_t)bytes[i + 1] << 8 | bytes[i], put;

        if (unit == 0)
            break;
        if ((high != 0) != (unit >= 0xdc00 && unit < 0xe000))
            return false;
        if (unit >= 0xd800 && unit < 0xdc00) {
            high = unit;
            continue;
        }
        if (high != 0)
            unit = 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
        high = 0;
        put = utf8_put(unit, out + len, cap - len);
        if (put == 0)
            return false;
        len += put;
    }
    if (len >= cap)
        return false;
    out[len] = '\0';
    return high == 0;
}

/* The code point at *s, which moves on; -1 for what is no UTF-8. */
static int32_t utf8_get(const unsigned char **s)
{
    const unsigned char *p = *s;
    unsigned n = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : 9;
    int32_t code = n == 0 ? *p : *p & (0x3f >> n);

    if (n == 9)
        return -1;
    for (unsigned i = 1; i <= n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        code = code << 6 | (p[i] & 0x3f);
    }
    *s = p + n + 1;
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000) || (n == 2 && code < 0x800) || (n == 3 && code < 0x10000))
        return -1;
    return code;
}

static void unit_put(uint8_t *out, uint32_t unit, bool big_endian)
{
    out[big_endian ? 0 : 1] = (uint8_t)(unit >> 8);
    out[big_endian ? 1 : 0] = (uint8_t)unit;
}

bool vhd_utf16_encode(const char *text, bool big_endian, uint8_t *out, uint32_t cap, uint32_t *n_r)
{
    const unsigned char *s = (const unsigned char *)text;
    uint32_t n = 0;

    while (*s != '\0') {
        int32_t code = utf8_get(&s);

        if (code < 0 || n + 4 > cap)
            return false;
        if (code >= 0x10000) {
            unit_put(out + n, 0xd800 + (((uint32_t)code - 0x10000) >> 10), big_endian);
            n += 2;
            code = 0xdc00 + (code & 0x3ff);
        }
        unit_put(out + n, (uint32_t)code, big_endian);
        n += 2;
    }
    *n_r = n;
    return true;
}
