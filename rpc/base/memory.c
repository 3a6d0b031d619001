#include "rpc/base/memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/check.h"

static void *not_null(void *p)
{
    if (__builtin_expect(p == NULL, 0))
        BUG("out of memory");
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    if (n == 0 || size == 0)
        n = size = 1;
    return not_null(calloc(n, size)); /* calloc checks n * size */
}

void *xrealloc(void *p, size_t size) { return not_null(realloc(p, size > 0 ? size : 1)); }

char *xstrndup(const char *s, size_t len)
{
    size_t n = strnlen(s, len);
    char *copy = not_null(malloc(n + 1));

    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *xstrdup(const char *s) { return xstrndup(s, SIZE_MAX - 1); }

char *xprintf(const char *fmt, ...)
{
    char *s = NULL;
    va_list args;

    va_start(args, fmt);
    int n = vasprintf(&s, fmt, args);
    va_end(args);
    return not_null(n < 0 ? NULL : s);
}

void xfree(void *p)
{
    int saved = errno;

    free(p);
    errno = saved;
}
