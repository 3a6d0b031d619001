/* Lists of "key=value" lines: a guest's settings file and what it publishes.
 *
 * Values are escaped so that they fit one line: %25 for '%', %0A for a newline. Keys hold neither of
 * these nor '='. Used by the backend and by xapi-guest; needs nothing but rpc/base. */
#ifndef XENOPS_SIM_GUEST_TEXT_H
#define XENOPS_SIM_GUEST_TEXT_H

#include <stdbool.h>
#include <string.h>

#include "rpc/base/arena.h"
#include "rpc/base/text.h"

static inline void guest_text_add(struct text *t, const char *key, const char *value)
{
    text_add(t, key);
    text_add_byte(t, '=');
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '%')
            text_add(t, "%25");
        else if (*p == '\n')
            text_add(t, "%0A");
        else
            text_add_byte(t, *p);
    }
    text_add_byte(t, '\n');
}

/* The next line of *at, which advances; key and value in the arena. False at the end; a line without
 * '=' is skipped. */
static inline bool guest_text_next(struct arena *a, const char **at, const char **key_r, const char **value_r)
{
    while (**at != '\0') {
        size_t len = strcspn(*at, "\n");
        char *line = arena_strndup(a, *at, len);
        *at += len + ((*at)[len] == '\n');
        char *equals = strchr(line, '=');
        if (equals == NULL)
            continue;
        *equals = '\0';
        char *to = equals + 1;
        *key_r = line;
        *value_r = to;
        for (const char *from = to; *from != '\0'; from++) {
            bool escape = from[0] == '%' && from[1] != '\0' && from[2] != '\0';
            *to++ = !escape ? *from : from[1] == '0' ? '\n' : '%';
            from += escape ? 2 : 0;
        }
        *to = '\0';
        return true;
    }
    return false;
}

#endif
