/* Random values for the tests of the codecs, the same for the same seed. */
#ifndef TESTS_UNIT_WIRE_RANDOM_VALUE_H
#define TESTS_UNIT_WIRE_RANDOM_VALUE_H

#include "rpc/base/value.h"
#include "rpc/wire/utf8.h"

static inline unsigned random_below(unsigned *seed, unsigned n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

/* Printable characters of all lengths of UTF-8, tabs and line ends; no other control characters. */
static inline struct value random_string(struct arena *a, unsigned *seed)
{
    static const unsigned long special[] = { '<', '>', '&', '"', '\'', '\\', '/', '\t', '\n', '\r', ']', ' ',
                                             0x7f, 0x80, 0x9f, 0xe4, 0x7ff, 0x800, 0x20ac, 0xd7ff, 0xe000, 0xfffd,
                                             0x10000, 0x1f600, 0x10ffff };
    unsigned n = random_below(seed, random_below(seed, 4) == 0 ? 200 : 40), len = 0;
    unsigned special_in = 1 + random_below(seed, 50);
    char *s = arena_alloc(a, n * 4 + 1);

    for (unsigned i = 0; i < n; i++)
        len += utf8_put(s + len, random_below(seed, special_in) == 0 ? special[random_below(seed, ARRAY_LEN(special))]
                                                                     : 'a' + random_below(seed, 26));
    struct value v = value_string_len(s, len);
    if (text_is_plain(s, len) && random_below(seed, 2))
        v.flags |= VALUE_PLAIN;
    return v;
}

static inline int64_t random_int(unsigned *seed)
{
    uint64_t i = (uint64_t)random_below(seed, 1 << 22) << 44 ^ (uint64_t)random_below(seed, 1 << 22) << 22 ^ random_below(seed, 1 << 22);

    return (int64_t)(i >> random_below(seed, 64)) * (random_below(seed, 2) ? 1 : -1);
}

static inline struct value random_value(struct arena *a, unsigned *seed, unsigned depth)
{
    struct value_list list = { 0 };
    struct value_dict dict = { 0 };
    unsigned n = random_below(seed, 6);

    switch (random_below(seed, depth > 0 ? 9 : 7)) {
    case 0: return value_int(random_int(seed));
    case 1: return value_int32((int32_t)random_int(seed));
    case 2: return value_bool(random_below(seed, 2));
    case 3: return value_float((double)random_int(seed) / (1 << random_below(seed, 20)));
    case 4: return value_datetime((int64_t)random_below(seed, 1 << 22) << 9);
    case 5: return random_below(seed, 4) ? random_string(a, seed) : value_void();
    case 6: return random_string(a, seed);
    case 7:
        for (unsigned i = 0; i < n; i++)
            value_list_add(a, &list, random_value(a, seed, depth - 1));
        return value_list_value(&list);
    default:
        for (unsigned i = 0; i < n; i++)
            value_dict_set(a, &dict, random_string(a, seed).s, random_value(a, seed, depth - 1));
        return value_dict_value(&dict);
    }
}

#endif
