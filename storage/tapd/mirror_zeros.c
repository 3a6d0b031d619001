#include "storage/tapd/mirror_zeros.h"

#include <string.h>

#define UNIT 4096u
#define WORTH (64u << 10)

/* Written so that the compiler makes vectors of it: 64 bytes at a time, one branch for each 512. */
bool zeros_all(const void *bytes, size_t len)
{
    const uint64_t *w = bytes;
    size_t n = len / 8;

    if (n == 0 || w[0] != 0)
        return n == 0;
    while (n >= 64) {
        uint64_t or[8] = { 0 };
        for (unsigned i = 0; i < 64; i += 8)
            for (unsigned j = 0; j < 8; j++)
                or[j] |= w[i + j];
        if ((or[0] | or[1] | or[2] | or[3] | or[4] | or[5] | or[6] | or[7]) != 0)
            return false;
        w += 64;
        n -= 64;
    }
    uint64_t rest = 0;
    while (n-- > 0)
        rest |= *w++;
    return rest == 0;
}

/* Where the zeros that begin at 'at' end. */
static size_t zeros_end(const uint8_t *bytes, size_t at, size_t len)
{
    while (at < len) {
        size_t n = len - at < UNIT ? len - at : UNIT;
        if (!zeros_all(bytes + at, n))
            break;
        at += n;
    }
    return at;
}

size_t zeros_piece(const uint8_t *bytes, size_t at, size_t len, bool *zero_r)
{
    size_t start = at;

    *zero_r = false;
    while (at < len) {
        size_t end = zeros_end(bytes, at, len);
        if (end - at >= WORTH || (end == len && at == 0)) {
            if (at > start)
                break; /* data before it: the zeros are the next piece */
            *zero_r = true;
            return end - start;
        }
        at = end < len ? end + (len - end < UNIT ? len - end : UNIT) : end;
    }
    return at - start;
}
