#include "storage/drivers/driver_error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include "gen/errors.h"
#include "rpc/base/child.h"
#include "rpc/base/fault.h"

#define OUTPUT_MAX ((size_t)4 << 20)

struct error *driver_failed(struct call *c, const char *what, const char *path, int error)
{
    bool full = error == ENOSPC || error == EDQUOT;

    return err_sr_backend_failure(c->arena, full ? "44" : "5", "", arena_printf(c->arena, "%s %s: %s", what, path, strerror(error)));
}

struct error *driver_refused(struct call *c, const char *status, const char *fmt, ...)
{
    va_list args;
    const char *text;

    va_start(args, fmt);
    text = arena_vprintf(c->arena, fmt, args);
    va_end(args);
    return err_sr_backend_failure(c->arena, status, "", text);
}

struct error *driver_cancelled(struct call *c)
{
    return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
}

struct error *driver_room(struct call *c, int64_t need, int64_t free)
{
    if (need <= free)
        return NULL;
    return err_sr_full(c->arena, arena_printf(c->arena, "%lld", (long long)need), arena_printf(c->arena, "%lld", (long long)free));
}

struct error *driver_step(struct call *c, const char *family, const char *operation, const char *step)
{
    if (fault_armed_ && fault_hit(arena_printf(c->arena, "sr.%s.%s.%s", family, operation, step)))
        return driver_refused(c, "5", "fault injected before step %s of %s", step, operation);
    return NULL;
}

struct error *driver_command(struct call *c, const char *const *argv, int timeout_ms, char **output_r)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output = NULL;
    int status = 0, error;
    size_t len;

    spec.argv = argv;
    error = child_run(c->arena, &spec, timeout_ms, OUTPUT_MAX, &status, &output);
    if (error != 0)
        return driver_failed(c, "running", argv[0], -error);
    for (len = strlen(output); len > 0 && output[len - 1] == '\n'; len--)
        output[len - 1] = '\0';
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return driver_refused(c, "5", "%s: %s", argv[0], output);
    *output_r = output;
    return NULL;
}
