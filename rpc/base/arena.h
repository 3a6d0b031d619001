/* Memory that dies all at once, with the call it belongs to.
 *
 * Used by nearly everything: request parsing, argument structs, results, errors.
 *
 * (1) Nothing in an arena is freed singly; arena_free() releases all of it.
 * (2) No arena pointer may enter an object that outlives the call: dup at the border.
 * (3) An arena belongs to one thread at a time; it has no lock.
 * (4) Under AddressSanitizer each piece is its own malloc, so stale pointers are caught.
 *
 * Out of memory aborts the process (state is in SQLite, systemd restarts it). */
#ifndef RPC_BASE_ARENA_H
#define RPC_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "rpc/base/attributes.h"

struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *); /* NULL is fine; runs the arena_on_free hooks, newest first */

/* Zeroed memory of 'size' bytes, aligned for any type. Never NULL. */
void *arena_alloc(struct arena *, size_t size);
void *arena_calloc(struct arena *, size_t n, size_t size); /* checks n * size; aborts on overflow */
void *arena_memdup(struct arena *, const void *, size_t size);

char *arena_strdup(struct arena *, const char *);
char *arena_strndup(struct arena *, const char *, size_t len);
char *arena_printf(struct arena *, const char *fmt, ...) PRINTF(2, 3);
char *arena_vprintf(struct arena *, const char *fmt, va_list) PRINTF(2, 0);

/* Calls fn(ptr) when the arena is freed: ties a reference count or an fd to the arena. */
void arena_on_free(struct arena *, void (*fn)(void *), void *ptr);

/* Bytes handed out so far. */
size_t arena_used(const struct arena *);

/* For CLEANUP(arena_cleanup) struct arena *a = arena_new(); */
static inline void arena_cleanup(struct arena **a) { arena_free(*a); }
#define AUTO_ARENA CLEANUP(arena_cleanup) struct arena *

#endif
