#include "xapi/pool/membership.h"

#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"

#define TEXT_MAX 4096u

const char *membership_read(struct arena *arena, const struct xapi *xapi, const char *name)
{
    char *text;
    size_t len;

    if (file_read(arena, arena_printf(arena, "%s/%s", xapi->dir, name), TEXT_MAX, &text, &len) != 0)
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text[0] == '\0' ? NULL : text;
}

struct error *membership_write(struct arena *arena, const struct xapi *xapi, const char *name, const char *text)
{
    const char *path = arena_printf(arena, "%s/%s", xapi->dir, name);
    const char *line = arena_printf(arena, "%s\n", text);
    int error = file_replace(path, line, strlen(line), 0600);

    return error == 0 ? NULL : err_internal(arena, "writing %s: %s", path, strerror(-error));
}

void membership_forget(const struct xapi *xapi, struct arena *arena, const char *name)
{
    (void)unlink(arena_printf(arena, "%s/%s", xapi->dir, name));
}

struct error *membership_coordinator(struct arena *arena, const struct xapi *xapi, struct http_target *target_r)
{
    *target_r = (struct http_target) {
        .address = xapi->coordinator_address,
        .port = xapi->https_port,
        .tls = true,
        .fingerprint = membership_read(arena, xapi, "coordinator_certificate"),
    };
    return target_r->address == NULL || target_r->fingerprint == NULL ? err_host_broken(arena) : NULL;
}

bool membership_https_only(struct arena *arena, const struct xapi *xapi)
{
    return xapi->http_port < 0 || membership_read(arena, xapi, "https_only") != NULL;
}

struct error *membership_control_domain(struct arena *arena, const struct xapi *xapi, const char **uuid_r)
{
    const char *uuid = membership_read(arena, xapi, "control_domain_uuid");

    if (uuid == NULL || !uuid_valid(uuid)) {
        uuid = uuid_make(arena);
        TRY(membership_write(arena, xapi, "control_domain_uuid", uuid));
    }
    *uuid_r = uuid;
    return NULL;
}
