/* Two implementations of one list of pieces: bump allocation in chunks, and, under AddressSanitizer,
 * a malloc for each piece. */
#include "rpc/base/arena.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_PIECEWISE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_PIECEWISE 1
#endif
#endif
#ifndef ARENA_PIECEWISE
#define ARENA_PIECEWISE 0
#endif

#define CHUNK_FIRST 4096u
#define CHUNK_LARGEST 65536u
#define ALIGNMENT alignof(max_align_t)

struct chunk {
    struct chunk *next; /* older */
    alignas(max_align_t) char bytes[];
};

struct hook {
    struct hook *next; /* older */
    void (*fn)(void *);
    void *ptr;
};

struct arena {
    struct chunk *chunks; /* newest first; the bump chunk is not always the first of them */
    char *at, *end;       /* room left in the bump chunk */
    size_t next_size;     /* of the next bump chunk */
    size_t used;
    struct hook *hooks; /* newest first; they live in the arena */
};

struct arena *arena_new(void)
{
    struct arena *a = xcalloc(1, sizeof(*a));

    a->next_size = CHUNK_FIRST;
    return a;
}

void arena_free(struct arena *a)
{
    if (a == NULL)
        return;
    while (a->hooks != NULL) { /* a hook may still use the arena */
        struct hook *h = a->hooks;
        a->hooks = h->next;
        h->fn(h->ptr);
    }
    while (a->chunks != NULL) {
        struct chunk *c = a->chunks;
        a->chunks = c->next;
        xfree(c);
    }
    xfree(a);
}

static char *chunk_add(struct arena *a, size_t size)
{
    struct chunk *c = xrealloc(NULL, sizeof(*c) + size);

    c->next = a->chunks;
    a->chunks = c;
    return c->bytes;
}

/* Room that the bump chunk does not have: a chunk of its own for a large piece, else a new bump chunk. */
static char *take_new(struct arena *a, size_t size)
{
    if (ARENA_PIECEWISE || size > a->next_size / 4)
        return chunk_add(a, size);
    size_t room = a->next_size - sizeof(struct chunk);
    char *p = chunk_add(a, room);
    a->at = p + size;
    a->end = p + room;
    if (a->next_size < CHUNK_LARGEST)
        a->next_size *= 2;
    return p;
}

/* Memory that is not zeroed yet. */
static void *take(struct arena *a, size_t size)
{
    CHECK(size < PTRDIFF_MAX - CHUNK_LARGEST);
    a->used += size;
    if (ARENA_PIECEWISE)
        return take_new(a, size);
    size = (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    if (size == 0)
        size = ALIGNMENT;
    if ((size_t)(a->end - a->at) < size)
        return take_new(a, size);
    void *p = a->at;
    a->at += size;
    return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
    void *p = take(a, size);

    memset(p, 0, size);
    return p;
}

void *arena_calloc(struct arena *a, size_t n, size_t size)
{
    size_t total;

    CHECK(!__builtin_mul_overflow(n, size, &total));
    return arena_alloc(a, total);
}

void *arena_memdup(struct arena *a, const void *from, size_t size)
{
    void *p = take(a, size);

    if (size > 0)
        memcpy(p, from, size);
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t len)
{
    size_t n = strnlen(s, len);
    char *p = take(a, n + 1);

    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *arena_strdup(struct arena *a, const char *s) { return arena_memdup(a, s, strlen(s) + 1); }

char *arena_vprintf(struct arena *a, const char *fmt, va_list args)
{
    char small[256];
    va_list again;

    va_copy(again, args);
    int n = vsnprintf(small, sizeof(small), fmt, again);
    va_end(again);
    CHECK(n >= 0);
    if ((size_t)n < sizeof(small))
        return arena_memdup(a, small, (size_t)n + 1);
    char *p = take(a, (size_t)n + 1);
    CHECK(vsnprintf(p, (size_t)n + 1, fmt, args) == n);
    return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    char *p = arena_vprintf(a, fmt, args);
    va_end(args);
    return p;
}

void arena_on_free(struct arena *a, void (*fn)(void *), void *ptr)
{
    struct hook *h = arena_alloc(a, sizeof(*h));

    *h = (struct hook){ .next = a->hooks, .fn = fn, .ptr = ptr };
    a->hooks = h;
}

size_t arena_used(const struct arena *a) { return a->used; }
