#include "xapi/pool/boot_time.h"

#include <stdatomic.h>
#include <string.h>

#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "xapi/pool/membership.h"

static bool kernel_boot_time(struct arena *arena, int64_t *wall_r)
{
    const char *line;
    char *text;
    size_t len;

    if (file_read(arena, "/proc/stat", 4 << 20, &text, &len) != 0)
        return false;
    line = strstr(text, "\nbtime ");
    if (line == NULL)
        return false;
    return text_to_int(arena_strndup(arena, line + 7, strcspn(line + 7, "\n")), wall_r) && *wall_r > 0;
}

struct error *boot_time_of(struct arena *arena, const struct xapi *xapi, bool simulated, int64_t *wall_r)
{
    const char *known = membership_read(arena, xapi, "boot_time");

    if (!simulated && kernel_boot_time(arena, wall_r))
        return NULL;
    if (known != NULL && text_to_int(known, wall_r) && membership_read(arena, xapi, "rebooting") == NULL)
        return NULL;
    *wall_r = clock_wall(xapi->clock);
    TRY(membership_write(arena, xapi, "boot_time", arena_printf(arena, "%lld", (long long)*wall_r)));
    membership_forget(xapi, arena, "rebooting");
    return NULL;
}

struct error *boot_time_mark(struct arena *arena, const struct xapi *xapi)
{
    return membership_write(arena, xapi, "rebooting", "1");
}

int64_t boot_agent_start(const struct xapi *xapi)
{
    static _Atomic int64_t started;
    int64_t unknown = 0;

    (void)atomic_compare_exchange_strong(&started, &unknown, clock_wall(xapi->clock));
    return atomic_load(&started);
}
