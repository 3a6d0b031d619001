#include "storage/drivers/mount_point.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"

LOG_MODULE(mount);

#define TABLE_MAX ((size_t)4 << 20)
#define MOUNT_MS 60000 /* an NFS server that does not answer is given up then */

const char *mount_point(struct call *c, const char *name)
{
    return arena_printf(c->arena, "%s/%s", sr_drivers_base_dir(), name);
}

/* As /proc/self/mountinfo writes paths. */
static const char *escaped(struct call *c, const char *path)
{
    char *out = arena_alloc(c->arena, 4 * strlen(path) + 1), *at = out;

    for (; *path != '\0'; path++) {
        if (strchr(" \t\n\\", *path) != NULL) {
            const char *code = arena_printf(c->arena, "\\%03o", (unsigned)(unsigned char)*path);

            memcpy(at, code, 4);
            at += 4;
        } else
            *at++ = *path;
    }
    return out;
}

bool mount_point_is_mounted(struct call *c, const char *path)
{
    const char *wanted = escaped(c, path);
    char *table;
    size_t len;

    if (file_read(c->arena, "/proc/self/mountinfo", TABLE_MAX, &table, &len) != 0)
        return false;
    for (const char *line = table; *line != '\0'; line += strcspn(line, "\n") + (strchr(line, '\n') != NULL)) {
        const char *at = line;

        for (int i = 0; i < 4; i++) /* id, parent, device, root */
            at += strcspn(at, " ") + 1;
        if (strncmp(at, wanted, strlen(wanted)) == 0 && at[strlen(wanted)] == ' ')
            return true;
    }
    return false;
}

static struct error *mount_nfs(struct call *c, const char *path, const struct mount_source *source)
{
    const char *argv[] = { "mount.nfs", source->what, path, "-o", source->options, NULL };
    char *output;

    if (source->options[0] == '\0')
        argv[3] = NULL;
    return driver_command(c, argv, MOUNT_MS, &output);
}

struct error *mount_point_mount(struct call *c, const char *path, const struct mount_source *source)
{
    bool bind = strcmp(source->type, "bind") == 0;
    int error;

    if (mount_point_is_mounted(c, path))
        return NULL;
    error = dir_create(path, 0755);
    if (error != 0)
        return driver_failed(c, "creating", path, -error);
    TRY(driver_step(c, "mount", "mount", "mount"));
    if (strcmp(source->type, "nfs") == 0)
        return mount_nfs(c, path, source);
    if (mount(source->what, path, bind ? NULL : source->type, bind ? MS_BIND : MS_NOATIME | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        return driver_failed(c, arena_printf(c->arena, "mounting %s on", source->what), path, errno);
    return NULL;
}

struct error *mount_point_unmount(struct call *c, const char *path)
{
    if (mount_point_is_mounted(c, path) && umount2(path, UMOUNT_NOFOLLOW) != 0)
        return driver_failed(c, "unmounting", path, errno);
    if (rmdir(path) != 0 && errno != ENOENT)
        log_warn("removing the mount point %s: %s", path, strerror(errno));
    return NULL;
}

struct error *mount_point_visit(struct call *c, const struct mount_source *source, struct error *(*fn)(struct call *, const char *path, void *), void *ctx)
{
    const char *path = mount_point(c, arena_printf(c->arena, "visit-%s", uuid_make(c->arena)));
    struct error *error = mount_point_mount(c, path, source), *undone;

    if (error == NULL)
        error = fn(c, path, ctx);
    undone = mount_point_unmount(c, path);
    return error != NULL ? error : undone;
}
