/* The one check of foreign text before a parser sees it. Private to rpc/wire. */
#ifndef RPC_WIRE_UTF8_H
#define RPC_WIRE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* NULL when the bytes are UTF-8 without NUL and without the noncharacters U+FDD0..U+FDEF, U+FFFE and
 * U+FFFF (XML forbids the last two; the guard uses some of the others as marks); else what is wrong.
 * *wide_r: some character is beyond U+FFFF. */
const char *utf8_problem(const char *bytes, size_t len, bool *wide_r);

/* True for the noncharacters named above. */
static inline bool utf8_is_noncharacter(unsigned long c)
{
    return (c >= 0xfdd0 && c <= 0xfdef) || c == 0xfffe || c == 0xffff;
}

/* Writes 1 to 4 bytes; the number of them. 'c' is at most U+10FFFF. */
unsigned utf8_put(char *out, unsigned long c);

#endif
