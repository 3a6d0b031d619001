#include "storage/image/image_error.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "gen/errors.h"

#define STATUS_IO "5"
#define STATUS_DAMAGED "65"
#define STATUS_REFUSED "22"

struct error *image_failed(struct arena *arena, const char *what, const char *path, int error)
{
    return err_sr_backend_failure(arena, STATUS_IO, "", arena_printf(arena, "%s %s: %s", what, path, strerror(abs(error))));
}

struct error *image_damaged(struct arena *arena, const char *path, const char *fmt, ...)
{
    va_list args;
    const char *text;

    va_start(args, fmt);
    text = arena_vprintf(arena, fmt, args);
    va_end(args);
    return err_sr_backend_failure(arena, STATUS_DAMAGED, "", arena_printf(arena, "damaged image %s: %s", path, text));
}

struct error *image_refused(struct arena *arena, const char *fmt, ...)
{
    va_list args;
    const char *text;

    va_start(args, fmt);
    text = arena_vprintf(arena, fmt, args);
    va_end(args);
    return err_sr_backend_failure(arena, STATUS_REFUSED, "", text);
}
