/* SR type "iso": read-only CD images "*.iso" in one directory; the file name is the location. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "gen/errors.h"
#include "rpc/base/memory.h"
#include "storage/sr_driver.h"

static const struct config_key iso_config[] = {
    { "location", true, false, "the directory that holds the images" },
    { "legacy_mode", false, false, "accepted and ignored: the location is a local directory" },
    { 0 },
};

static const char *directory(const struct sr *sr)
{
    return value_get_string(&sr->device_config, "location", "");
}

static struct error *failed(struct call *c, const char *what, const char *path, int error)
{
    return err_sr_backend_failure(c->arena, "5", "", arena_printf(c->arena, "%s %s: %s", what, path, strerror(error)));
}

static bool is_iso(const char *name)
{
    size_t len = strlen(name);

    return len > 4 && name[0] != '.' && strchr(name, '/') == NULL && strcasecmp(name + len - 4, ".iso") == 0;
}

static sr_fn iso_sr_attach;
static struct error *iso_sr_attach(struct call *c, struct sr *sr)
{
    struct stat st;

    if (stat(directory(sr), &st) != 0)
        return failed(c, "the directory cannot be reached:", directory(sr), errno);
    return S_ISDIR(st.st_mode) ? NULL : failed(c, "no directory:", directory(sr), ENOTDIR);
}

/* The images are not ours: creating is finding the directory, destroying leaves it alone. */
static sr_create_fn iso_sr_create;
static struct error *iso_sr_create(struct call *c, struct sr *sr, int64_t size)
{
    return iso_sr_attach(c, sr);
}

static sr_fn iso_sr_nothing;
static struct error *iso_sr_nothing(struct call *c, struct sr *sr)
{
    return NULL;
}

static vdi_stat_fn iso_vdi_stat;
static struct error *iso_vdi_stat(struct call *c, struct sr *sr, const char *location, struct vdi_stat *vdi)
{
    struct stat st;

    if (!is_iso(location) || stat(arena_printf(c->arena, "%s/%s", directory(sr), location), &st) != 0 || !S_ISREG(st.st_mode))
        return err_vdi_missing(c->arena, sr->uuid, location);
    *vdi = (struct vdi_stat) {
        .location = arena_strdup(c->arena, location),
        .uuid = "",
        .name = arena_strdup(c->arena, location),
        .format = "iso",
        .virtual_size = st.st_size,
        .physical_utilisation = st.st_size,
        .read_only = true,
        .parent = "",
    };
    return NULL;
}

static sr_scan_fn iso_sr_scan;
static struct error *iso_sr_scan(struct call *c, struct sr *sr, struct vdi_stat **vdis_r, unsigned *n_r)
{
    struct dirent **names;
    int found = scandir(directory(sr), &names, NULL, alphasort);
    struct vdi_stat *vdis;
    unsigned n = 0;

    if (found < 0)
        return failed(c, "listing", directory(sr), errno);
    vdis = arena_calloc(c->arena, (size_t)found + 1, sizeof(*vdis));
    for (int i = 0; i < found; i++) {
        if (iso_vdi_stat(c, sr, names[i]->d_name, &vdis[n]) == NULL)
            n++;
        xfree(names[i]);
    }
    xfree(names);
    *vdis_r = vdis;
    *n_r = n;
    return NULL;
}

static sr_stat_fn iso_sr_stat;
static struct error *iso_sr_stat(struct call *c, struct sr *sr, struct sr_stat *stat_r)
{
    struct statvfs fs;

    if (statvfs(directory(sr), &fs) != 0)
        return failed(c, "reading the size of", directory(sr), errno);
    *stat_r = (struct sr_stat) {
        .physical_size = (int64_t)fs.f_blocks * (int64_t)fs.f_frsize,
        .physical_utilisation = (int64_t)(fs.f_blocks - fs.f_bfree) * (int64_t)fs.f_frsize,
    };
    return NULL;
}

static vdi_attach_fn iso_vdi_attach;
static struct error *iso_vdi_attach(struct call *c, struct sr *sr, const char *location, bool read_only, struct vdi_where *where_r)
{
    struct vdi_stat vdi;

    TRY(iso_vdi_stat(c, sr, location, &vdi));
    *where_r = (struct vdi_where) { .format = "raw", .path = arena_printf(c->arena, "%s/%s", directory(sr), location), .cbt = "" };
    return NULL;
}

const struct sr_driver sr_driver_iso = {
    .type = "iso",
    .name = "ISO",
    .description = "CD images in a directory",
    .caps = SR_CAP_UPDATE | SR_CAP_VDI_ATTACH,
    .config = iso_config,
    .sr_create = iso_sr_create,
    .sr_destroy = iso_sr_nothing,
    .sr_attach = iso_sr_attach,
    .sr_detach = iso_sr_nothing,
    .sr_stat = iso_sr_stat,
    .sr_scan = iso_sr_scan,
    .vdi_stat = iso_vdi_stat,
    .vdi_attach = iso_vdi_attach,
};
