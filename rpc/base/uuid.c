#include "rpc/base/uuid.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include "rpc/base/check.h"

static void random_fill(uint8_t *bytes, size_t n)
{
    while (n > 0) {
        ssize_t got = getrandom(bytes, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got > 0);
        bytes += got;
        n -= (size_t)got;
    }
}

void uuid_new(char out[UUID_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t b[16];
    char *at = out;

    random_fill(b, sizeof(b));
    b[6] = (b[6] & 0x0f) | 0x40; /* version 4 */
    b[8] = (b[8] & 0x3f) | 0x80; /* the RFC's variant */
    for (unsigned i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        *at++ = digits[b[i] >> 4];
        *at++ = digits[b[i] & 15];
    }
    *at = '\0';
}

void ref_new(char out[REF_LEN + 1])
{
    memcpy(out, "OpaqueRef:", REF_LEN - UUID_LEN);
    uuid_new(out + REF_LEN - UUID_LEN);
}

char *uuid_make(struct arena *a)
{
    char uuid[UUID_LEN + 1];

    uuid_new(uuid);
    return arena_memdup(a, uuid, sizeof(uuid));
}

char *ref_make(struct arena *a)
{
    char ref[REF_LEN + 1];

    ref_new(ref);
    return arena_memdup(a, ref, sizeof(ref));
}

static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool uuid_valid(const char *s)
{
    for (unsigned i = 0; i < UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? s[i] != '-' : !is_hex(s[i]))
            return false;
    }
    return s[UUID_LEN] == '\0';
}

bool ref_is_null(const char *ref) { return ref == NULL || ref[0] == '\0' || strcmp(ref, REF_NULL) == 0; }
