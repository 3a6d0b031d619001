/* SR type "ext": a file system of its own on a device or partition (ext4, or xfs for files that share blocks). Its
 * file system's uuid is the SR's: that is how it is found again. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/file_sr.h"
#include "storage/drivers/mount_point.h"

#define SUPER_SIZE 4096
#define MKFS_MS 600000

static const struct config_key ext_config[] = {
    { "device", true, false, "the block device (disk or partition) that is formatted" },
    { "filesystem", false, false, "ext4 (default) or xfs, which makes raw images share blocks" },
    FILE_SR_KEYS,
    { 0 },
};

static const char *device_of(const struct value *config)
{
    return value_get_string(config, "device", "");
}

/* --- what is on the device ------------------------------------------------------------------------ */
static const char *uuid_text(struct call *c, const uint8_t b[16])
{
    return arena_printf(c->arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5],
                        b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* type_r: "ext4", "xfs" or "" for neither. */
static struct error *super_read(struct call *c, const char *device, const char **type_r, const char **uuid_r)
{
    uint8_t b[SUPER_SIZE];
    struct stat st;
    AUTO_FD fd = open(device, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? -errno : 0;

    if (error == 0 && (fstat(fd, &st) != 0 || !S_ISBLK(st.st_mode)))
        error = -ENOTBLK;
    if (error == 0)
        error = fd_pread_all(fd, b, sizeof(b), 0);
    if (error != 0)
        return driver_failed(c, "reading the device", device, -error);
    *type_r = *uuid_r = "";
    if (b[1080] == 0x53 && b[1081] == 0xef) { /* s_magic, s_uuid */
        *type_r = "ext4";
        *uuid_r = uuid_text(c, b + 1024 + 0x68);
    } else if (memcmp(b, "XFSB", 4) == 0) { /* sb_magicnum, sb_uuid */
        *type_r = "xfs";
        *uuid_r = uuid_text(c, b + 32);
    }
    return NULL;
}

/* What attach and destroy work on: the device holds this SR. */
static struct error *source_of(struct call *c, struct sr *sr, struct mount_source *source)
{
    const char *uuid;

    *source = (struct mount_source) { .what = device_of(&sr->device_config), .options = "" };
    TRY(super_read(c, source->what, &source->type, &uuid));
    if (strcmp(uuid, sr->uuid) != 0)
        return driver_refused(c, "5", "%s does not hold this SR: %s %s", source->what, source->type[0] == '\0' ? "no file system" : source->type, uuid);
    return NULL;
}

/* --- verbs ------------------------------------------------------------------------------------------ */
/* Not mounted, and no part of anything else. */
static struct error *unused_check(struct call *c, const char *device)
{
    AUTO_FD fd = open(device, O_RDWR | O_EXCL | O_CLOEXEC);

    return fd >= 0 ? NULL : driver_failed(c, "the device cannot be had:", device, errno);
}

static struct error *format(struct call *c, struct sr *sr, const char *device)
{
    const char *type = value_get_string(&sr->device_config, "filesystem", "ext4");
    const char *const ext4[] = { "mkfs.ext4", "-q", "-F", "-m", "0", "-U", sr->uuid, device, NULL };
    const char *const xfs[] = { "mkfs.xfs", "-q", "-f", "-m", arena_printf(c->arena, "uuid=%s,reflink=1", sr->uuid), device, NULL };
    char *output;

    if (strcmp(type, "ext4") != 0 && strcmp(type, "xfs") != 0)
        return driver_refused(c, "5", "device-config filesystem: ext4 or xfs, not %s", type);
    return driver_command(c, strcmp(type, "xfs") == 0 ? xfs : ext4, MKFS_MS, &output);
}

static sr_create_fn ext_create;
static struct error *ext_create(struct call *c, struct sr *sr, int64_t size)
{
    const char *device = device_of(&sr->device_config), *type, *uuid;

    if (!uuid_valid(sr->uuid))
        return driver_refused(c, "5", "no uuid: %s", sr->uuid);
    TRY(super_read(c, device, &type, &uuid));
    if (strcmp(uuid, sr->uuid) == 0) /* a repeated call */
        return NULL;
    TRY(unused_check(c, device));
    return format(c, sr, device);
}

static struct error *empty(struct call *c, const char *path, void *ctx)
{
    return file_sr_empty(c, path);
}

static sr_fn ext_destroy;
static struct error *ext_destroy(struct call *c, struct sr *sr)
{
    static const uint8_t zeros[SUPER_SIZE];
    struct mount_source source;
    const char *uuid;
    AUTO_FD fd = -1;

    TRY(super_read(c, device_of(&sr->device_config), &source.type, &uuid));
    if (strcmp(uuid, sr->uuid) != 0) /* gone */
        return NULL;
    TRY(source_of(c, sr, &source));
    TRY(mount_point_visit(c, &source, empty, NULL));
    fd = open(source.what, O_RDWR | O_EXCL | O_CLOEXEC);
    if (fd < 0 || fd_pwrite_all(fd, zeros, sizeof(zeros), 0) != 0 || fsync(fd) != 0)
        return driver_failed(c, "wiping", source.what, errno);
    return NULL;
}

static sr_fn ext_attach;
static struct error *ext_attach(struct call *c, struct sr *sr)
{
    const char *path = mount_point(c, sr->uuid);
    struct mount_source source;
    struct error *error;

    TRY(source_of(c, sr, &source));
    TRY(mount_point_mount(c, path, &source));
    error = file_sr_open(c, sr, path);
    if (error != NULL && mount_point_unmount(c, path) != NULL)
        return error;
    return error;
}

static sr_fn ext_detach;
static struct error *ext_detach(struct call *c, struct sr *sr)
{
    const char *path = file_sr_dir(c, sr);
    struct error *error;

    file_sr_close(sr);
    error = mount_point_unmount(c, path);
    if (error != NULL) /* files are open in it: it stays attached */
        TRY(file_sr_open(c, sr, path));
    return error;
}

static sr_probe_fn ext_probe;
static struct error *ext_probe(struct call *c, const struct value *device_config, struct value *srs_r)
{
    struct value_list found = { 0 };
    struct value_dict one = { 0 };
    const char *device = device_of(device_config), *type, *uuid;

    TRY(super_read(c, device, &type, &uuid));
    if (uuid_valid(uuid)) {
        value_dict_add(c->arena, &one, "uuid", value_string(uuid));
        value_dict_add(c->arena, &one, "device", value_string(device));
        value_dict_add(c->arena, &one, "filesystem", value_string(type));
        value_list_add(c->arena, &found, value_dict_value(&one));
    }
    *srs_r = value_list_value(&found);
    return NULL;
}

const struct sr_driver sr_driver_ext = {
    .type = "ext",
    .name = "Local EXT",
    .description = "Disk images on a file system of their own, on a device of the host",
    .caps = FILE_SR_CAPS | SR_CAP_VDI_MIRROR | SR_CAP_VDI_MIRROR_IN,
    .config = ext_config,
    .sr_create = ext_create,
    .sr_destroy = ext_destroy,
    .sr_attach = ext_attach,
    .sr_detach = ext_detach,
    .sr_probe = ext_probe,
    FILE_SR_VERBS,
};
