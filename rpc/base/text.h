/* A growing byte buffer: how replies, log lines and SQL are put together. Heap; owner releases. */
#ifndef RPC_BASE_TEXT_H
#define RPC_BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/attributes.h"

struct text {
    char *bytes; /* always NUL-terminated once anything was added; NULL when empty and never used */
    size_t len, cap;
};
#define TEXT_INIT { 0 }

void text_release(struct text *); /* frees and zeroes */
void text_clear(struct text *);   /* len = 0, keeps the memory */
void text_grow(struct text *, size_t more); /* room for 'more' bytes and a NUL */
void text_add(struct text *, const char *);
void text_printf(struct text *, const char *fmt, ...) PRINTF(2, 3);
void text_vprintf(struct text *, const char *fmt, va_list) PRINTF(2, 0);
void text_add_byte(struct text *, char);
static inline void text_add_len(struct text *t, const void *p, size_t n)
{
    if (t->cap - t->len <= n)
        text_grow(t, n);
    if (n > 0)
        memcpy(t->bytes + t->len, p, n);
    t->len += n;
    t->bytes[t->len] = '\0';
}
char *text_steal(struct text *); /* the bytes, now the caller's (xfree); never NULL */

/* A whole string as a decimal number: no blanks, no '+', nothing behind it, in range. */
bool text_to_int(const char *, int64_t *n_r);
bool text_to_uint(const char *, uint64_t *n_r);

static inline void text_cleanup(struct text *t) { text_release(t); }
#define AUTO_TEXT CLEANUP(text_cleanup) struct text

#endif
