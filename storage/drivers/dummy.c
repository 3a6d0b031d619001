/* SR type "dummy": for tests. A directory of the host's own, as large as one says; everything works. */
#include <errno.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_sr.h"
#include "storage/drivers/mount_point.h"

static const struct config_key dummy_config[] = {
    { "size", false, false, "bytes the SR has; without it as much as the disk below it" },
    FILE_SR_KEYS,
    { 0 },
};

static const char *directory(struct call *c, const struct sr *sr)
{
    return mount_point(c, arena_printf(c->arena, "dummy-%s", sr->uuid));
}

static sr_create_fn dummy_create;
static struct error *dummy_create(struct call *c, struct sr *sr, int64_t size)
{
    int error = dir_create(directory(c, sr), 0755);

    return error == 0 ? NULL : driver_failed(c, "creating", directory(c, sr), -error);
}

static sr_fn dummy_destroy;
static struct error *dummy_destroy(struct call *c, struct sr *sr)
{
    const char *dir = directory(c, sr);

    if (access(dir, F_OK) != 0 && errno == ENOENT)
        return NULL;
    TRY(file_sr_empty(c, dir));
    return rmdir(dir) == 0 || errno == ENOENT ? NULL : driver_failed(c, "removing", dir, errno);
}

static sr_fn dummy_attach;
static struct error *dummy_attach(struct call *c, struct sr *sr)
{
    TRY(dummy_create(c, sr, 0));
    TRY(file_sr_open(c, sr, directory(c, sr)));
    ((struct file_sr *)sr->state)->limit = value_get_int(&sr->device_config, "size", 0);
    return NULL;
}

static sr_fn dummy_detach;
static struct error *dummy_detach(struct call *c, struct sr *sr)
{
    file_sr_close(sr);
    return NULL;
}

static sr_probe_fn dummy_probe;
static struct error *dummy_probe(struct call *c, const struct value *device_config, struct value *srs_r)
{
    struct value_list none = { 0 };

    *srs_r = value_list_value(&none);
    return NULL;
}

const struct sr_driver sr_driver_dummy = {
    .type = "dummy",
    .name = "Dummy",
    .description = "Disk images for tests",
    .caps = FILE_SR_CAPS | SR_CAP_VDI_MIRROR | SR_CAP_VDI_MIRROR_IN,
    .config = dummy_config,
    .sr_create = dummy_create,
    .sr_destroy = dummy_destroy,
    .sr_attach = dummy_attach,
    .sr_detach = dummy_detach,
    .sr_probe = dummy_probe,
    FILE_SR_VERBS,
};
