/* A write cursor over a struct text: the room is checked once for several pieces, the length and the
 * NUL are kept only at the end. Private to the writers in rpc/wire. */
#ifndef RPC_WIRE_OUT_H
#define RPC_WIRE_OUT_H

#include <stdint.h>

#include "rpc/base/text.h"
#include "rpc/base/value.h"

struct out {
    struct text *text;
    char *p, *end; /* where to write; the end of the room (a NUL still fits) */
};

/* Room that is always asked for too: for tags around a string, and for copies that write more than counts. */
#define OUT_SLACK 64

void out_begin(struct out *, struct text *);
void out_finish(struct out *); /* the text is whole again */
void out_grow(struct out *, size_t n);

static inline void out_room(struct out *o, size_t n)
{
    if (__builtin_expect((size_t)(o->end - o->p) < n + OUT_SLACK, 0))
        out_grow(o, n + OUT_SLACK);
}

static inline void out_copy_8(char *to, const char *from) { memcpy(to, from, 8); }
static inline void out_copy_16(char *to, const char *from) { memcpy(to, from, 16); }

/* memcpy without a call for what most strings are, short, and with few jumps: their lengths vary, and a
 * jump that is not foreseen costs more than the bytes. Pieces overlap; reads exactly n bytes. */
static inline void out_copy(char *to, const char *from, size_t n)
{
    if (n > 64) {
        memcpy(to, from, n);
    } else if (n > 32) {
        out_copy_16(to, from);
        out_copy_16(to + 16, from + 16);
        out_copy_16(to + n - 32, from + n - 32);
        out_copy_16(to + n - 16, from + n - 16);
    } else if (n >= 8) {
        size_t second = n < 16 ? n - 8 : 8, third = n < 16 ? 0 : n - 16;
        out_copy_8(to, from);
        out_copy_8(to + second, from + second);
        out_copy_8(to + third, from + third);
        out_copy_8(to + n - 8, from + n - 8);
    } else if (n >= 4) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else if (n > 0) {
        to[0] = from[0];
        to[n / 2] = from[n / 2];
        to[n - 1] = from[n - 1];
    }
}

/* The room must have been asked for. */
static inline void out_put(struct out *o, const char *s, size_t n)
{
    out_copy(o->p, s, n);
    o->p += n;
}
#define out_put_literal(o, s) (memcpy((o)->p, "" s, sizeof(s) - 1), (void)((o)->p += sizeof(s) - 1))

static inline void out_add(struct out *o, const char *s, size_t n)
{
    out_room(o, n);
    out_put(o, s, n);
}
#define out_add_literal(o, s) (out_room(o, sizeof(s) - 1), out_put_literal(o, s))

/* The room must be 20 bytes. */
void out_put_int(struct out *, int64_t);
/* %.16g, or the given words; asks for its room. */
void out_add_float(struct out *, double, const char *nan, const char *inf, const char *minus_inf);

/* How one byte is written where it may not stand as it is. */
struct escape {
    char text[7];
    uint8_t len; /* 0: the byte is dropped */
};
/* Which of the 16 bytes at p must be escaped, as bits. */
typedef unsigned out_special_fn(const char *p);

/* The string with its special bytes written as table[byte]; asks for its room. Inlined into one
 * function for each protocol, so that 'special' is no call. */
static inline __attribute__((always_inline)) void out_add_escaped(struct out *o, const char *s, size_t n,
                                                                  const struct escape *table, out_special_fn *special)
{
    const char *start = s;

    out_room(o, n);
    while (n > 0) {
        size_t width = n < 16 ? n : 16, clean = width;
        unsigned found;

        if (n >= 16) {
            found = special(s);
            out_copy_16(o->p, s);
        } else {
            char piece[16] = { 0 };
            if ((size_t)(s - start) >= 16 - n) { /* look at some bytes again */
                found = special(s + n - 16) >> (16 - n);
            } else {
                out_copy(piece, s, n);
                found = special(piece) & ((1u << n) - 1);
            }
            out_copy(o->p, s, n);
        }
        if (found != 0)
            clean = (size_t)__builtin_ctz(found);
        o->p += clean;
        s += clean;
        n -= clean;
        if (found != 0) {
            const struct escape *e = &table[(unsigned char)*s];
            memcpy(o->p, e->text, sizeof(e->text)); /* OUT_SLACK allows for the rest */
            o->p += e->len;
            s++;
            n--;
            out_room(o, n);
        }
    }
}

#endif
