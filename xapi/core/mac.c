#include "xapi/core/mac.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/uuid.h"

static unsigned hex(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(tolower((unsigned char)c) - 'a' + 10);
}

char *mac_make(struct arena *a)
{
    char digits[UUID_LEN + 1]; /* the last twelve digits of a version 4 uuid are random */
    uuid_new(digits);
    const char *d = digits + UUID_LEN - 12;
    unsigned first = ((hex(d[0]) << 4 | hex(d[1])) & 0xfeu) | 2u;
    return arena_printf(a, "%02x:%.2s:%.2s:%.2s:%.2s:%.2s", first, d + 2, d + 4, d + 6, d + 8, d + 10);
}

static uint64_t mix(uint64_t h, const char *s)
{
    for (; *s != '\0'; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdull;
    return h ^ h >> 29;
}

char *mac_from_seed(struct arena *a, const char *seed, const char *device)
{
    uint64_t h = mix(mix(0xcbf29ce484222325ull, seed), device);
    return arena_printf(a, "%02x:%02x:%02x:%02x:%02x:%02x", (unsigned)((h >> 40 & 0xfe) | 2), (unsigned)(h >> 32 & 0xff), (unsigned)(h >> 24 & 0xff),
                        (unsigned)(h >> 16 & 0xff), (unsigned)(h >> 8 & 0xff), (unsigned)(h & 0xff));
}

bool mac_valid(const char *mac)
{
    if (strlen(mac) != 17)
        return false;
    for (unsigned i = 0; i < 17; i++)
        if (i % 3 == 2 ? mac[i] != ':' : !isxdigit((unsigned char)mac[i]))
            return false;
    return (hex(mac[1]) & 1) == 0;
}
