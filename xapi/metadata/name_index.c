#include "xapi/metadata/name_index.h"

#include <stdint.h>
#include <string.h>

#define SLOTS_FIRST 64u /* a power of two */

struct name_slot { const char *name; unsigned number; };

static unsigned hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325ull;

    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3ull;
    return (unsigned)(h ^ h >> 32);
}

void name_index_init(struct name_index *x, struct arena *arena)
{
    *x = (struct name_index) { .arena = arena, .cap = SLOTS_FIRST, .slots = arena_calloc(arena, SLOTS_FIRST, sizeof(*x->slots)) };
}

/* The slot of the name, or the empty one where it belongs. */
static struct name_slot *slot_of(const struct name_index *x, const char *name)
{
    unsigned i = hash(name) & (x->cap - 1);

    while (x->slots[i].name != NULL && strcmp(x->slots[i].name, name) != 0)
        i = (i + 1) & (x->cap - 1);
    return &x->slots[i];
}

static void grow(struct name_index *x)
{
    struct name_index bigger = { .arena = x->arena, .n = x->n, .cap = x->cap * 2, .slots = arena_calloc(x->arena, x->cap * 2, sizeof(*x->slots)) };

    for (unsigned i = 0; i < x->cap; i++)
        if (x->slots[i].name != NULL)
            *slot_of(&bigger, x->slots[i].name) = x->slots[i];
    *x = bigger;
}

bool name_index_add(struct name_index *x, const char *name, unsigned number)
{
    if (x->n >= x->cap / 2)
        grow(x);
    struct name_slot *s = slot_of(x, name);
    if (s->name != NULL)
        return false;
    *s = (struct name_slot) { name, number };
    x->n++;
    return true;
}

bool name_index_find(const struct name_index *x, const char *name, unsigned *number_r)
{
    const struct name_slot *s = slot_of(x, name);

    if (s->name == NULL)
        return false;
    *number_r = s->number;
    return true;
}
