#include "xapi/metadata/vm_files.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"

#define REF_PREFIX "OpaqueRef:"

static const struct { const char *folder, *suffix; size_t max; } kinds[] = {
    [VM_FILE_RRD] = { "rrd", ".gz", RRD_MAX },
    [VM_FILE_BLOB] = { "blobs", "", BLOB_MAX },
};

/* NULL where the name is no uuid: it becomes part of a path. */
static const char *path_of(struct api_call *c, enum vm_file kind, const char *name)
{
    if (strncmp(name, REF_PREFIX, strlen(REF_PREFIX)) == 0)
        name += strlen(REF_PREFIX);
    return uuid_valid(name) ? arena_printf(c->arena, "%s/%s/%s%s", c->xapi->dir, kinds[kind].folder, name, kinds[kind].suffix) : NULL;
}

struct error *vm_file_read(struct api_call *c, enum vm_file kind, const char *name, const char **bytes_r, size_t *len_r, bool *found_r)
{
    const char *path = path_of(c, kind, name);
    char *bytes = NULL;
    int rc = path != NULL ? file_read(c->arena, path, kinds[kind].max, &bytes, len_r) : -ENOENT;

    *found_r = rc == 0;
    *bytes_r = bytes;
    return rc == 0 || rc == -ENOENT ? NULL : err_internal(c->arena, "%s: %s", path, strerror(-rc));
}

struct error *vm_file_write(struct api_call *c, enum vm_file kind, const char *name, const void *bytes, size_t len)
{
    const char *path = path_of(c, kind, name);

    if (path == NULL)
        return err_internal(c->arena, "%s is no uuid", name);
    int rc = dir_create(arena_printf(c->arena, "%s/%s", c->xapi->dir, kinds[kind].folder), 0700);
    if (rc >= 0)
        rc = file_replace(path, bytes, len, 0600);
    return rc < 0 ? err_internal(c->arena, "%s: %s", path, strerror(-rc)) : NULL;
}

void vm_file_remove(struct api_call *c, enum vm_file kind, const char *name)
{
    const char *path = path_of(c, kind, name);

    if (path != NULL)
        (void)unlink(path);
}
