#include "rpc/base/error.h"

#include <stdarg.h>
#include <string.h>

#include "rpc/base/text.h"

static struct error *error_new(struct arena *a, const char *file, int line, const char *code, unsigned n)
{
    struct error *e = arena_alloc(a, sizeof(*e));

    e->code = arena_strdup(a, code);
    e->n_params = n;
    e->file = file; /* a literal, or copied by the caller */
    e->line = line;
    return e;
}

static const char *param_dup(struct arena *a, const char *s) { return arena_strdup(a, s != NULL ? s : ""); }

struct error *error_make(struct arena *a, const char *file, int line, const char *code, unsigned n, ...)
{
    struct error *e = error_new(a, file, line, code, n);
    const char **params = arena_calloc(a, n, sizeof(*params));
    va_list args;

    va_start(args, n);
    for (unsigned i = 0; i < n; i++)
        params[i] = param_dup(a, va_arg(args, const char *));
    va_end(args);
    e->params = params;
    return e;
}

struct error *error_from_strings(struct arena *a, const char *code, unsigned n, const char *const *params)
{
    struct error *e = error_new(a, NULL, 0, code, n);
    const char **copies = arena_calloc(a, n, sizeof(*params));

    for (unsigned i = 0; i < n; i++)
        copies[i] = param_dup(a, params[i]);
    e->params = copies;
    return e;
}

struct error *error_internal_at(struct arena *a, const char *file, int line, const char *fmt, ...)
{
    struct error *e = error_new(a, file, line, "INTERNAL_ERROR", 1);
    const char **params = arena_calloc(a, 1, sizeof(*params));
    va_list args;

    va_start(args, fmt);
    params[0] = arena_vprintf(a, fmt, args);
    va_end(args);
    e->params = params;
    return e;
}

struct error *error_dup(struct arena *a, const struct error *from)
{
    if (from == NULL)
        return NULL;
    struct error *e = error_from_strings(a, from->code, from->n_params, from->params);
    e->file = from->file != NULL ? arena_strdup(a, from->file) : NULL;
    e->line = from->line;
    e->cause = from->cause != NULL ? arena_strdup(a, from->cause) : NULL;
    return e;
}

bool error_is(const struct error *e, const char *code) { return e != NULL && strcmp(e->code, code) == 0; }

const char *error_text(struct arena *a, const struct error *e)
{
    AUTO_TEXT t = TEXT_INIT;

    if (e == NULL)
        return "success";
    text_printf(&t, "%s [", e->code);
    for (unsigned i = 0; i < e->n_params; i++)
        text_printf(&t, "%s%s", i > 0 ? "; " : "", e->params[i]);
    text_add_byte(&t, ']');
    if (e->file != NULL)
        text_printf(&t, " (%s:%d)", e->file, e->line);
    if (e->cause != NULL)
        text_printf(&t, " %s", e->cause);
    return arena_memdup(a, t.bytes, t.len + 1);
}
