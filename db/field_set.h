/* A set of field indices of one class. */
#ifndef DB_FIELD_SET_H
#define DB_FIELD_SET_H

#include <stdbool.h>
#include <stdint.h>

#define FIELD_SET_WORDS 4 /* classes have at most 256 fields; checked when a database is opened */
struct field_set { uint64_t bits[FIELD_SET_WORDS]; };

static inline void field_set_add(struct field_set *s, unsigned field) { s->bits[field / 64] |= 1ull << (field % 64); }
static inline bool field_set_has(const struct field_set *s, unsigned field)
{
    return (s->bits[field / 64] >> (field % 64)) & 1;
}
static inline void field_set_join(struct field_set *to, const struct field_set *from)
{
    for (unsigned i = 0; i < FIELD_SET_WORDS; i++)
        to->bits[i] |= from->bits[i];
}
static inline bool field_set_equal(const struct field_set *a, const struct field_set *b)
{
    uint64_t differ = 0;
    for (unsigned i = 0; i < FIELD_SET_WORDS; i++)
        differ |= a->bits[i] ^ b->bits[i];
    return differ == 0;
}
static inline bool field_set_empty(const struct field_set *s)
{
    return (s->bits[0] | s->bits[1] | s->bits[2] | s->bits[3]) == 0;
}

#endif
