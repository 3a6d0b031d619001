/* Heap memory for objects with an owner. Out of memory aborts. Never use malloc directly. */
#ifndef RPC_BASE_MEMORY_H
#define RPC_BASE_MEMORY_H

#include <stddef.h>

#include "rpc/base/attributes.h"

void *xcalloc(size_t n, size_t size); /* zeroed; checks overflow */
void *xrealloc(void *, size_t size);
char *xstrdup(const char *);
char *xstrndup(const char *, size_t len);
char *xprintf(const char *fmt, ...) PRINTF(1, 2);
void xfree(void *); /* NULL is fine; keeps errno */

static inline void free_cleanup(void *p) { xfree(*(void **)p); }
#define AUTO_FREE CLEANUP(free_cleanup)

#endif
