#include "xapi/core/identity.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"

#define MEMBER_PREFIX "slave:"

static const char *path_of(struct arena *a, const char *dir, const char *name) { return arena_printf(a, "%s/%s", dir, name); }

/* The first line of a small file; NULL when there is no such file. */
static struct error *line_read(struct arena *a, const char *dir, const char *name, char **line_r)
{
    const char *path = path_of(a, dir, name);
    size_t len;
    int rc = file_read(a, path, 64 * 1024, line_r, &len);

    if (rc == -ENOENT) {
        *line_r = NULL;
        return NULL;
    }
    if (rc < 0)
        return err_internal(a, "%s: %s", path, strerror(-rc));
    (*line_r)[strcspn(*line_r, "\r\n")] = '\0';
    return NULL;
}

static struct error *line_write(struct arena *a, const char *dir, const char *name, const char *line, mode_t mode)
{
    const char *path = path_of(a, dir, name), *text = arena_printf(a, "%s\n", line);
    int rc = file_replace(path, text, strlen(text), mode);

    return rc < 0 ? err_internal(a, "%s: %s", path, strerror(-rc)) : NULL;
}

struct error *identity_set_role(struct arena *a, const char *dir, const char *coordinator_address)
{
    const char *line = coordinator_address != NULL ? arena_printf(a, MEMBER_PREFIX "%s", coordinator_address) : "master";

    return line_write(a, dir, "pool.conf", line, 0644);
}

struct error *identity_set_secret(struct arena *a, const char *dir, const char *secret)
{
    return line_write(a, dir, "ptoken", secret, 0600);
}

struct error *identity_set_host_uuid(struct arena *a, const char *dir, const char *uuid)
{
    return line_write(a, dir, "host_uuid", uuid, 0644);
}

char *identity_new_secret(struct arena *a)
{
    return arena_printf(a, "%s/%s/%s", uuid_make(a), uuid_make(a), uuid_make(a));
}

static struct error *role_load(struct arena *a, const char *dir, struct identity *id)
{
    char *line;

    TRY(line_read(a, dir, "pool.conf", &line));
    if (line == NULL)
        TRY(identity_set_role(a, dir, NULL));
    id->is_coordinator = line == NULL || strcmp(line, "master") == 0;
    if (id->is_coordinator)
        return NULL;
    if (strncmp(line, MEMBER_PREFIX, strlen(MEMBER_PREFIX)) != 0 || line[strlen(MEMBER_PREFIX)] == '\0')
        return err_internal(a, "%s/pool.conf: '%s' is neither \"master\" nor \"slave:ADDRESS\"", dir, line);
    id->coordinator_address = line + strlen(MEMBER_PREFIX);
    return NULL;
}

struct error *identity_load(struct arena *a, const char *dir, struct identity *id)
{
    char *secret, *uuid;

    *id = (struct identity){ 0 };
    TRY(role_load(a, dir, id));
    TRY(line_read(a, dir, "ptoken", &secret));
    if (secret == NULL || *secret == '\0') {
        secret = identity_new_secret(a);
        TRY(identity_set_secret(a, dir, secret));
    }
    TRY(line_read(a, dir, "host_uuid", &uuid));
    if (uuid == NULL) {
        uuid = uuid_make(a);
        TRY(identity_set_host_uuid(a, dir, uuid));
    }
    if (!uuid_valid(uuid))
        return err_internal(a, "%s/host_uuid: '%s' is no uuid", dir, uuid);
    id->secret = secret;
    id->host_uuid = uuid;
    return NULL;
}
