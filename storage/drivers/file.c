/* SR type "file": images in a directory that is there, local or shared by other means; and "gfs2", the same on a
 * cluster file system mounted already, which offers no live moves of disks, as on the field's hosts. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_sr.h"

static const struct config_key file_config[] = {
    { "location", true, false, "the directory that holds the images" },
    FILE_SR_KEYS,
    { 0 },
};

static const char *directory(const struct sr *sr)
{
    return value_get_string(&sr->device_config, "location", "");
}

static sr_create_fn file_create;
static struct error *file_create(struct call *c, struct sr *sr, int64_t size)
{
    int error = dir_create(directory(sr), 0755);

    return error == 0 ? NULL : driver_failed(c, "creating the directory", directory(sr), -error);
}

static sr_fn file_destroy;
static struct error *file_destroy(struct call *c, struct sr *sr)
{
    if (access(directory(sr), F_OK) != 0 && errno == ENOENT)
        return NULL;
    TRY(file_sr_empty(c, directory(sr)));
    if (rmdir(directory(sr)) == 0 || errno == ENOENT || errno == ENOTEMPTY || errno == EEXIST || errno == EBUSY)
        return NULL; /* others' files, or a mount: not ours to remove */
    return driver_failed(c, "removing the directory", directory(sr), errno);
}

static sr_fn file_attach;
static struct error *file_attach(struct call *c, struct sr *sr)
{
    struct stat st;

    if (stat(directory(sr), &st) != 0)
        return driver_failed(c, "the directory cannot be reached:", directory(sr), errno);
    if (!S_ISDIR(st.st_mode))
        return driver_failed(c, "no directory:", directory(sr), ENOTDIR);
    return file_sr_open(c, sr, directory(sr));
}

static sr_fn file_detach;
static struct error *file_detach(struct call *c, struct sr *sr)
{
    file_sr_close(sr);
    return NULL;
}

/* What a directory holds: one SR, if it is there at all. */
static sr_probe_fn file_probe;
static struct error *file_probe(struct call *c, const struct value *device_config, struct value *srs_r)
{
    const char *location = value_get_string(device_config, "location", "");
    struct value_list found = { 0 };
    struct value_dict one = { 0 };
    struct stat st;

    if (stat(location, &st) == 0 && S_ISDIR(st.st_mode)) {
        value_dict_add(c->arena, &one, "location", value_string(location));
        value_list_add(c->arena, &found, value_dict_value(&one));
    }
    *srs_r = value_list_value(&found);
    return NULL;
}

const struct sr_driver sr_driver_file = {
    .type = "file",
    .name = "File",
    .description = "Disk images in a directory",
    .caps = FILE_SR_CAPS | SR_CAP_VDI_MIRROR | SR_CAP_VDI_MIRROR_IN,
    .config = file_config,
    .sr_create = file_create,
    .sr_destroy = file_destroy,
    .sr_attach = file_attach,
    .sr_detach = file_detach,
    .sr_probe = file_probe,
    FILE_SR_VERBS,
};

const struct sr_driver sr_driver_gfs2 = {
    .type = "gfs2",
    .name = "GFS2",
    .description = "Disk images on a cluster file system",
    .caps = FILE_SR_CAPS,
    .config = file_config,
    .sr_create = file_create,
    .sr_destroy = file_destroy,
    .sr_attach = file_attach,
    .sr_detach = file_detach,
    .sr_probe = file_probe,
    FILE_SR_VERBS,
};
