/* SR type "nfs": the directory "<sr uuid>" of an NFS export.
 *
 * device-config options=bind is for tests, and for exports mounted by other means: 'serverpath' is then a directory
 * of this host, and 'server' is not asked. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_sr.h"
#include "storage/drivers/mount_point.h"

static const struct config_key nfs_config[] = {
    { "server", true, false, "name or address of the NFS server" },
    { "serverpath", true, false, "the export" },
    { "options", false, false, "mount options, separated by commas; bind: a directory of this host" },
    { "nfsversion", false, false, "3, 4, 4.1 or 4.2; the highest both have if not said" },
    FILE_SR_KEYS,
    { 0 },
};

static const char *config(const struct value *device_config, const char *key)
{
    return value_get_string(device_config, key, "");
}

/* subdirectory "": the export itself. */
static struct mount_source source_of(struct call *c, const struct value *device_config, const char *subdirectory)
{
    const char *options = config(device_config, "options"), *version = config(device_config, "nfsversion");
    const char *path = config(device_config, "serverpath");

    if (subdirectory[0] != '\0')
        path = arena_printf(c->arena, "%s/%s", path, subdirectory);
    if (strcmp(options, "bind") == 0)
        return (struct mount_source) { .what = path, .type = "bind", .options = "" };
    if (version[0] != '\0')
        options = arena_printf(c->arena, "vers=%s%s%s", version, options[0] == '\0' ? "" : ",", options);
    return (struct mount_source) {
        .what = arena_printf(c->arena, "%s:%s", config(device_config, "server"), path),
        .type = "nfs",
        .options = options,
    };
}

/* --- on the mounted export ------------------------------------------------------------------------- */
static struct error *subdirectory_make(struct call *c, const char *path, void *ctx)
{
    const char *dir = image_path(c, path, ctx);

    return mkdir(dir, 0755) == 0 || errno == EEXIST ? NULL : driver_failed(c, "creating", dir, errno);
}

static struct error *subdirectory_remove(struct call *c, const char *path, void *ctx)
{
    const char *dir = image_path(c, path, ctx);

    if (access(dir, F_OK) != 0 && errno == ENOENT)
        return NULL;
    TRY(file_sr_empty(c, dir));
    return rmdir(dir) == 0 || errno == ENOENT ? NULL : driver_failed(c, "removing", dir, errno);
}

static struct error *subdirectory_found(struct call *c, const char *name, void *ctx)
{
    struct value_dict one = { 0 };

    if (!uuid_valid(name))
        return NULL;
    value_dict_add(c->arena, &one, "uuid", value_string(arena_strdup(c->arena, name)));
    value_list_add(c->arena, ctx, value_dict_value(&one));
    return NULL;
}

static struct error *subdirectories_list(struct call *c, const char *path, void *ctx)
{
    return dir_each(c, path, subdirectory_found, ctx);
}

/* --- verbs -------------------------------------------------------------------------------------------- */
static sr_create_fn nfs_create;
static struct error *nfs_create(struct call *c, struct sr *sr, int64_t size)
{
    struct mount_source source = source_of(c, &sr->device_config, "");

    return mount_point_visit(c, &source, subdirectory_make, (void *)(uintptr_t)sr->uuid);
}

static sr_fn nfs_destroy;
static struct error *nfs_destroy(struct call *c, struct sr *sr)
{
    struct mount_source source = source_of(c, &sr->device_config, "");

    return mount_point_visit(c, &source, subdirectory_remove, (void *)(uintptr_t)sr->uuid);
}

static sr_fn nfs_attach;
static struct error *nfs_attach(struct call *c, struct sr *sr)
{
    const char *path = mount_point(c, sr->uuid);
    struct mount_source source = source_of(c, &sr->device_config, sr->uuid);
    struct error *error;

    TRY(mount_point_mount(c, path, &source));
    error = file_sr_open(c, sr, path);
    if (error != NULL && mount_point_unmount(c, path) != NULL)
        return error;
    return error;
}

static sr_fn nfs_detach;
static struct error *nfs_detach(struct call *c, struct sr *sr)
{
    const char *path = file_sr_dir(c, sr);
    struct error *error;

    file_sr_close(sr);
    error = mount_point_unmount(c, path);
    if (error != NULL)
        TRY(file_sr_open(c, sr, path));
    return error;
}

static sr_probe_fn nfs_probe;
static struct error *nfs_probe(struct call *c, const struct value *device_config, struct value *srs_r)
{
    struct mount_source source = source_of(c, device_config, "");
    struct value_list found = { 0 };

    TRY(mount_point_visit(c, &source, subdirectories_list, &found));
    *srs_r = value_list_value(&found);
    return NULL;
}

const struct sr_driver sr_driver_nfs = {
    .type = "nfs",
    .name = "NFS",
    .description = "Disk images on an NFS server",
    .caps = FILE_SR_CAPS | SR_CAP_VDI_MIRROR | SR_CAP_VDI_MIRROR_IN,
    .config = nfs_config,
    .sr_create = nfs_create,
    .sr_destroy = nfs_destroy,
    .sr_attach = nfs_attach,
    .sr_detach = nfs_detach,
    .sr_probe = nfs_probe,
    FILE_SR_VERBS,
};
