/* SR type "lvm": a volume group on devices of the host, a raw logical volume "LV-<uuid>" for each VDI, thick.
 *
 * Volumes are made as "NEW-<uuid>", zeroed or filled, and then renamed; "OLD-<uuid>" is what a revert replaces. What
 * a crash left of these is looked after when the SR is attached. Snapshots and clones are whole copies; the tag
 * "xapi_snapshot" marks the former. The tag "xapi_growing_<size>" says from where on a volume that has grown may hold
 * old data still. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/lvm_group.h"

LOG_MODULE(lvm);

#define VDI "LV-"
#define NEW "NEW-"
#define OLD "OLD-"
#define SNAPSHOT "xapi_snapshot"
#define GROWING "xapi_growing_"
#define SIZE_MAX_ ((int64_t)64 << 40)
#define GROUP "VG_XenStorage-"

static const struct config_key lvm_config[] = {
    { "device", true, false, "the block devices of the volume group, separated by commas" },
    { 0 },
};

static struct error *group_of(struct call *c, const struct sr *sr, struct lvm_group *g)
{
    return lvm_group_of(c, sr->uuid, &sr->device_config, g);
}

static const char *volume_name(struct call *c, const struct lvm_group *g, const char *prefix, const char *location)
{
    return arena_printf(c->arena, "%s/%s%s", g->name, prefix, location);
}

static bool has_tag(const struct lvm_volume *v, const char *tag, const char **rest_r)
{
    for (const char *at = v->tags; *at != '\0'; at += strcspn(at, ",") + (strchr(at, ',') != NULL)) {
        if (strncmp(at, tag, strlen(tag)) == 0) {
            *rest_r = at + strlen(tag);
            return true;
        }
    }
    return false;
}

/* NULL: there is no such volume. */
static struct error *find(struct call *c, const struct lvm_group *g, const char *prefix, const char *location, const struct lvm_volume **volume_r)
{
    const char *name = arena_printf(c->arena, "%s%s", prefix, location);
    struct lvm_volume *volumes;
    unsigned n;

    *volume_r = NULL;
    TRY(lvm_volumes(c, g, &volumes, &n));
    for (unsigned i = 0; i < n; i++)
        if (strcmp(volumes[i].name, name) == 0)
            *volume_r = &volumes[i];
    if (*volume_r != NULL && (*volume_r)->segments == NULL)
        return driver_refused(c, "5", "%s/%s is no linear volume", g->name, name);
    return NULL;
}

static struct error *need(struct call *c, struct sr *sr, const struct lvm_group *g, const char *location, const struct lvm_volume **volume_r)
{
    *volume_r = NULL;
    if (uuid_valid(location))
        TRY(find(c, g, VDI, location, volume_r));
    return *volume_r != NULL ? NULL : err_vdi_missing(c->arena, sr->uuid, location);
}

static struct vdi_stat stat_of(struct call *c, const struct lvm_volume *v)
{
    const char *location = v->name + strlen(VDI), *rest;

    return (struct vdi_stat) {
        .location = location,
        .uuid = location,
        .name = "",
        .format = "raw",
        .virtual_size = v->size,
        .physical_utilisation = v->size,
        .is_a_snapshot = has_tag(v, SNAPSHOT, &rest),
        .parent = "",
    };
}

static bool is_vdi(const struct lvm_volume *v)
{
    return strncmp(v->name, VDI, strlen(VDI)) == 0 && uuid_valid(v->name + strlen(VDI));
}

/* --- the tool, said shortly --------------------------------------------------------------------------- */
static struct error *remove_volume(struct call *c, const struct lvm_group *g, const char *prefix, const char *location)
{
    const char *const argv[] = { "lvremove", "-y", volume_name(c, g, prefix, location), NULL };

    return lvm_run(c, g, argv, NULL);
}

static struct error *rename_volume(struct call *c, const struct lvm_group *g, const char *from, const char *to, const char *location)
{
    const char *const argv[] = { "lvrename", volume_name(c, g, from, location), volume_name(c, g, to, location), NULL };

    return lvm_run(c, g, argv, NULL);
}

static struct error *tag_change(struct call *c, const struct lvm_group *g, const char *location, const char *how, const char *tag)
{
    const char *const argv[] = { "lvchange", how, tag, volume_name(c, g, VDI, location), NULL };

    return lvm_run(c, g, argv, NULL);
}

static struct error *activate(struct call *c, struct sr *sr, const char *location, const char *how)
{
    struct lvm_group g;

    if (!lvm_has_device_mapper())
        return NULL;
    TRY(group_of(c, sr, &g));
    const char *const argv[] = { "lvchange", how, volume_name(c, &g, VDI, location), NULL };
    return lvm_run(c, &g, argv, NULL);
}

/* --- the SR --------------------------------------------------------------------------------------------- */
/* A device that is another's is left alone. */
static struct error *device_check(struct call *c, const struct lvm_group *g, const char *device, bool *ours_r)
{
    const char *name;
    int64_t size;
    AUTO_FD fd = -1;

    TRY(lvm_group_on(c, g, device, &name, &size));
    *ours_r = strcmp(name, g->name) == 0;
    if (*ours_r)
        return NULL;
    if (name[0] != '\0')
        return err_sr_device_in_use(c->arena);
    fd = open(device, O_RDWR | O_EXCL | O_CLOEXEC);
    return fd >= 0 ? NULL : driver_failed(c, "the device cannot be had:", device, errno);
}

static sr_create_fn lvm_sr_create;
static struct error *lvm_sr_create(struct call *c, struct sr *sr, int64_t size)
{
    const char *argv[20] = { "vgcreate", "-y", NULL };
    struct lvm_group g;
    bool ours = false;

    TRY(group_of(c, sr, &g));
    argv[2] = g.name;
    for (unsigned i = 0; i < g.n_devices; i++) {
        TRY(device_check(c, &g, g.devices[i], &ours));
        argv[3 + i] = g.devices[i];
    }
    argv[3 + g.n_devices] = NULL;
    return ours ? NULL : lvm_run(c, &g, argv, NULL); /* ours: a repeated call */
}

static sr_fn lvm_sr_destroy;
static struct error *lvm_sr_destroy(struct call *c, struct sr *sr)
{
    const char *pvremove[20] = { "pvremove", "-y", NULL };
    struct lvm_group g;
    struct lvm_volume *volumes;
    unsigned n;
    bool ours;

    TRY(group_of(c, sr, &g));
    TRY(device_check(c, &g, g.devices[0], &ours));
    if (!ours)
        return NULL;
    TRY(lvm_volumes(c, &g, &volumes, &n));
    for (unsigned i = 0; i < n; i++)
        if (is_vdi(&volumes[i]) || strncmp(volumes[i].name, NEW, strlen(NEW)) != 0)
            return err_sr_not_empty(c->arena);
    const char *const vgremove[] = { "vgremove", "-y", g.name, NULL };
    TRY(lvm_run(c, &g, vgremove, NULL));
    for (unsigned i = 0; i < g.n_devices; i++)
        pvremove[2 + i] = g.devices[i];
    pvremove[2 + g.n_devices] = NULL;
    return lvm_run(c, &g, pvremove, NULL);
}

/* The new part of a volume that has grown is zeroed before anybody sees it, and only then does the tag go. */
static struct error *grown(struct call *c, const struct lvm_group *g, const struct lvm_volume *v)
{
    const char *rest;
    int64_t from;

    if (!has_tag(v, GROWING, &rest))
        return NULL;
    rest = arena_strndup(c->arena, rest, strcspn(rest, ","));
    if (text_to_int(rest, &from) && from < v->size)
        TRY(lvm_zero(c, v, from));
    return tag_change(c, g, v->name + strlen(VDI), "--deltag", arena_printf(c->arena, GROWING "%s", rest));
}

/* What a crash left of one volume. */
static struct error *volume_mend(struct call *c, const struct lvm_group *g, const struct lvm_volume *v)
{
    const struct lvm_volume *current;

    if (strncmp(v->name, NEW, strlen(NEW)) == 0) {
        log_info("removing %s/%s, which was never finished", g->name, v->name);
        return remove_volume(c, g, NEW, v->name + strlen(NEW));
    }
    if (strncmp(v->name, OLD, strlen(OLD)) == 0) {
        const char *location = v->name + strlen(OLD);

        TRY(find(c, g, VDI, location, &current));
        return current != NULL ? remove_volume(c, g, OLD, location) : rename_volume(c, g, OLD, VDI, location);
    }
    return is_vdi(v) && v->segments != NULL ? grown(c, g, v) : NULL;
}

static sr_fn lvm_sr_attach;
static struct error *lvm_sr_attach(struct call *c, struct sr *sr)
{
    struct lvm_group g;
    struct lvm_volume *volumes;
    unsigned n;
    bool ours;

    TRY(group_of(c, sr, &g));
    TRY(device_check(c, &g, g.devices[0], &ours));
    if (!ours)
        return driver_refused(c, "5", "%s does not hold this SR", g.devices[0]);
    TRY(lvm_volumes(c, &g, &volumes, &n));
    for (unsigned i = 0; i < n; i++)
        TRY(volume_mend(c, &g, &volumes[i]));
    return NULL;
}

static sr_fn lvm_sr_detach;
static struct error *lvm_sr_detach(struct call *c, struct sr *sr)
{
    return NULL;
}

static sr_scan_fn lvm_sr_scan;
static struct error *lvm_sr_scan(struct call *c, struct sr *sr, struct vdi_stat **vdis_r, unsigned *n_r)
{
    struct lvm_group g;
    struct lvm_volume *volumes;
    unsigned n;

    TRY(group_of(c, sr, &g));
    TRY(lvm_volumes(c, &g, &volumes, &n));
    *vdis_r = arena_calloc(c->arena, n + 1, sizeof(**vdis_r));
    *n_r = 0;
    for (unsigned i = 0; i < n; i++)
        if (is_vdi(&volumes[i]))
            (*vdis_r)[(*n_r)++] = stat_of(c, &volumes[i]);
    return NULL;
}

static sr_stat_fn lvm_sr_stat;
static struct error *lvm_sr_stat(struct call *c, struct sr *sr, struct sr_stat *stat_r)
{
    struct lvm_group g;
    struct lvm_sizes sizes;
    struct vdi_stat *vdis;
    unsigned n;

    TRY(group_of(c, sr, &g));
    TRY(lvm_sizes(c, &g, &sizes));
    *stat_r = (struct sr_stat) { .physical_size = sizes.size, .physical_utilisation = sizes.size - sizes.free };
    TRY(lvm_sr_scan(c, sr, &vdis, &n));
    for (unsigned i = 0; i < n; i++)
        stat_r->virtual_allocation += vdis[i].virtual_size;
    return NULL;
}

static sr_probe_fn lvm_sr_probe;
static struct error *lvm_sr_probe(struct call *c, const struct value *device_config, struct value *srs_r)
{
    struct lvm_group g;
    struct value_list found = { 0 };
    struct value_dict one = { 0 };
    const char *name;
    int64_t size;

    TRY(lvm_group_of(c, "", device_config, &g));
    TRY(lvm_group_on(c, &g, g.devices[0], &name, &size));
    if (strncmp(name, GROUP, strlen(GROUP)) == 0 && uuid_valid(name + strlen(GROUP))) {
        value_dict_add(c->arena, &one, "uuid", value_string(name + strlen(GROUP)));
        value_dict_add(c->arena, &one, "device", value_string(g.devices[0]));
        value_dict_add(c->arena, &one, "size", value_string(arena_printf(c->arena, "%lld", (long long)size)));
        value_list_add(c->arena, &found, value_dict_value(&one));
    }
    *srs_r = value_list_value(&found);
    return NULL;
}

/* --- VDIs -------------------------------------------------------------------------------------------------- */
static vdi_stat_fn lvm_vdi_stat;
static struct error *lvm_vdi_stat(struct call *c, struct sr *sr, const char *location, struct vdi_stat *vdi)
{
    struct lvm_group g;
    const struct lvm_volume *v;

    TRY(group_of(c, sr, &g));
    TRY(need(c, sr, &g, location, &v));
    *vdi = stat_of(c, v);
    return NULL;
}

static struct error *size_round(struct call *c, const struct lvm_sizes *sizes, const char *location, int64_t size, int64_t *size_r)
{
    if (size <= 0)
        return err_vdi_too_small(c->arena, location, arena_printf(c->arena, "%lld", (long long)sizes->extent));
    if (size > SIZE_MAX_)
        return err_vdi_too_large(c->arena, location, arena_printf(c->arena, "%lld", (long long)SIZE_MAX_));
    *size_r = (size + sizes->extent - 1) / sizes->extent * sizes->extent;
    return NULL;
}

/* "NEW-<location>" of that size, reading as zeros. What stands there of an earlier try goes. */
static struct error *new_volume(struct call *c, const struct lvm_group *g, const char *location, int64_t size, bool snapshot,
                                const struct lvm_volume **volume_r)
{
    const char *const plain[] = { "lvcreate", "-y", "-an", "-Zn", "-Wn", "-L", arena_printf(c->arena, "%lldb", (long long)size), "-n",
                                  arena_printf(c->arena, NEW "%s", location), g->name, snapshot ? "--addtag" : NULL, SNAPSHOT, NULL };
    const struct lvm_volume *left;
    struct lvm_sizes sizes;

    TRY(find(c, g, NEW, location, &left));
    if (left != NULL)
        TRY(remove_volume(c, g, NEW, location));
    TRY(lvm_sizes(c, g, &sizes));
    TRY(driver_room(c, size, sizes.free));
    TRY(lvm_run(c, g, plain, NULL));
    TRY(find(c, g, NEW, location, volume_r));
    if (*volume_r == NULL)
        return driver_refused(c, "5", "%s/" NEW "%s is not there", g->name, location);
    return lvm_zero(c, *volume_r, 0);
}

/* After a failure: nothing is left behind. */
static struct error *dropped(struct call *c, const struct lvm_group *g, const char *location, struct error *error)
{
    struct call calm = { .arena = c->arena, .clock = c->clock, .id = c->id };
    const struct lvm_volume *left;
    struct error *undone = find(&calm, g, NEW, location, &left);

    if (undone == NULL && left != NULL)
        undone = remove_volume(&calm, g, NEW, location);
    if (undone != NULL)
        log_warn("removing %s/" NEW "%s: %s", g->name, location, error_text(c->arena, undone));
    return error;
}

static vdi_create_fn lvm_vdi_create;
static struct error *lvm_vdi_create(struct call *c, struct sr *sr, const struct vdi_create_spec *spec, struct vdi_stat *vdi)
{
    struct lvm_group g;
    struct lvm_sizes sizes;
    const struct lvm_volume *v;
    struct error *error;
    int64_t size = 0;

    if (spec->format[0] != '\0' && strcmp(spec->format, "raw") != 0)
        return driver_refused(c, "38", "an LVM SR holds raw images, not %s", spec->format);
    if (!uuid_valid(spec->uuid))
        return driver_refused(c, "5", "no uuid: %s", spec->uuid);
    TRY(group_of(c, sr, &g));
    TRY(lvm_sizes(c, &g, &sizes));
    TRY(size_round(c, &sizes, spec->uuid, spec->virtual_size, &size));
    error = lvm_vdi_stat(c, sr, spec->uuid, vdi);
    if (error == NULL && vdi->virtual_size == size) /* a repeated call */
        return NULL;
    if (!error_is(error, "VDI_MISSING"))
        return error != NULL ? error : driver_refused(c, "5", "%s is there already, and another disk", spec->uuid);
    error = new_volume(c, &g, spec->uuid, size, false, &v);
    if (error == NULL)
        error = rename_volume(c, &g, NEW, VDI, spec->uuid);
    return error != NULL ? dropped(c, &g, spec->uuid, error) : lvm_vdi_stat(c, sr, spec->uuid, vdi);
}

static vdi_fn lvm_vdi_destroy;
static struct error *lvm_vdi_destroy(struct call *c, struct sr *sr, const char *location)
{
    struct lvm_group g;
    const struct lvm_volume *v;

    if (!uuid_valid(location))
        return NULL;
    TRY(group_of(c, sr, &g));
    TRY(find(c, &g, VDI, location, &v));
    return v == NULL ? NULL : remove_volume(c, &g, VDI, location);
}

static struct vdi_where where_of(struct call *c, const struct lvm_group *g, const struct lvm_volume *v)
{
    return (struct vdi_where) {
        .format = "raw",
        .path = lvm_has_device_mapper() ? arena_printf(c->arena, "/dev/%s/%s", g->name, v->name) : lvm_segments_path(c, v),
        .cbt = "",
    };
}

/* --- growing ------------------------------------------------------------------------------------------------ */
static struct error *grow(struct call *c, const struct lvm_group *g, const char *location, const struct lvm_volume *v, int64_t size)
{
    const char *tag = arena_printf(c->arena, GROWING "%lld", (long long)v->size);
    const char *const extend[] = { "lvextend", "-L", arena_printf(c->arena, "%lldb", (long long)size), volume_name(c, g, VDI, location), NULL };
    const struct lvm_volume *now;

    TRY(tag_change(c, g, location, "--addtag", tag));
    TRY(lvm_run(c, g, extend, NULL));
    TRY(find(c, g, VDI, location, &now));
    return now != NULL ? grown(c, g, now) : driver_refused(c, "5", "%s/" VDI "%s is not there", g->name, location);
}

/* A guest that has it open sees the new segments, then the new size. */
static struct error *show(struct call *c, struct sr *sr, const struct lvm_group *g, const char *location)
{
    const struct vdi_live *live = sr->live;
    const struct lvm_volume *v;
    struct vdi_where where;
    struct error *error;
    bool active = false;

    TRY(need(c, sr, g, location, &v));
    where = where_of(c, g, v);
    TRY(live->pause(live->ctx, c, location, &active));
    error = live->resume(live->ctx, c, location, active ? &where : NULL);
    if (error == NULL && active)
        error = live->resized(live->ctx, c, location, v->size);
    return error;
}

static vdi_resize_fn lvm_vdi_resize;
static struct error *lvm_vdi_resize(struct call *c, struct sr *sr, const char *location, int64_t size, struct vdi_stat *vdi)
{
    struct lvm_group g;
    struct lvm_sizes sizes;
    const struct lvm_volume *v;

    TRY(group_of(c, sr, &g));
    TRY(need(c, sr, &g, location, &v));
    TRY(grown(c, &g, v));
    TRY(lvm_sizes(c, &g, &sizes));
    TRY(size_round(c, &sizes, location, size, &size));
    if (size < v->size)
        return err_vdi_too_small(c->arena, location, arena_printf(c->arena, "%lld", (long long)v->size));
    if (size > v->size) {
        TRY(driver_room(c, size - v->size, sizes.free));
        TRY(grow(c, &g, location, v, size));
        TRY(show(c, sr, &g, location));
    }
    return lvm_vdi_stat(c, sr, location, vdi);
}

/* --- copies ---------------------------------------------------------------------------------------------------- */
/* "NEW-<made>" becomes what 'source' is now. */
static struct error *fill(struct call *c, struct sr *sr, const struct lvm_group *g, const char *source, const char *made, bool snapshot)
{
    const struct vdi_live *live = sr->live;
    const struct lvm_volume *from, *to;
    struct vdi_where from_where, to_where;

    TRY(need(c, sr, g, source, &from));
    TRY(new_volume(c, g, made, from->size, snapshot, &to));
    from_where = (struct vdi_where) { .format = "raw", .path = lvm_segments_path(c, from), .cbt = "" };
    to_where = (struct vdi_where) { .format = "raw", .path = lvm_segments_path(c, to), .cbt = "" };
    TRY(driver_step(c, "lvm", "copy", "copy"));
    return live->copy_point(live->ctx, c, source, &from_where, &to_where);
}

static struct error *branch(struct call *c, struct sr *sr, const char *location, const char *uuid, bool snapshot, struct vdi_stat *vdi)
{
    struct lvm_group g;
    struct error *error;

    if (!uuid_valid(uuid))
        return driver_refused(c, "5", "no uuid: %s", uuid);
    if (lvm_vdi_stat(c, sr, uuid, vdi) == NULL) /* a repeated call */
        return NULL;
    TRY(group_of(c, sr, &g));
    error = fill(c, sr, &g, location, uuid, snapshot);
    if (error == NULL)
        error = rename_volume(c, &g, NEW, VDI, uuid);
    return error != NULL ? dropped(c, &g, uuid, error) : lvm_vdi_stat(c, sr, uuid, vdi);
}

static vdi_clone_fn lvm_vdi_snapshot, lvm_vdi_clone, lvm_vdi_revert;
static struct error *lvm_vdi_snapshot(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    return branch(c, sr, location, uuid, true, vdi);
}

static struct error *lvm_vdi_clone(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    return branch(c, sr, location, uuid, false, vdi);
}

/* The old volume steps aside, the new one takes its place. In between the next attach puts the old one back. */
static struct error *replace(struct call *c, const struct lvm_group *g, const char *location)
{
    struct error *error;

    TRY(rename_volume(c, g, VDI, OLD, location));
    error = rename_volume(c, g, NEW, VDI, location);
    if (error == NULL)
        return remove_volume(c, g, OLD, location);
    TRY(rename_volume(c, g, OLD, VDI, location));
    return error;
}

static struct error *lvm_vdi_revert(struct call *c, struct sr *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct lvm_group g;
    const struct lvm_volume *v;
    struct error *error;

    TRY(group_of(c, sr, &g));
    TRY(need(c, sr, &g, location, &v));
    error = fill(c, sr, &g, uuid, location, false);
    if (error == NULL)
        error = replace(c, &g, location);
    return error != NULL ? dropped(c, &g, location, error) : lvm_vdi_stat(c, sr, location, vdi);
}

/* --- using ------------------------------------------------------------------------------------------------------ */
static vdi_attach_fn lvm_vdi_attach;
static struct error *lvm_vdi_attach(struct call *c, struct sr *sr, const char *location, bool read_only, struct vdi_where *where_r)
{
    struct lvm_group g;
    const struct lvm_volume *v;

    TRY(group_of(c, sr, &g));
    TRY(need(c, sr, &g, location, &v));
    TRY(grown(c, &g, v));
    *where_r = where_of(c, &g, v);
    return NULL;
}

static vdi_fn lvm_vdi_activate, lvm_vdi_deactivate;
static struct error *lvm_vdi_activate(struct call *c, struct sr *sr, const char *location)
{
    return activate(c, sr, location, "-ay");
}

static struct error *lvm_vdi_deactivate(struct call *c, struct sr *sr, const char *location)
{
    return activate(c, sr, location, "-an");
}

const struct sr_driver sr_driver_lvm = {
    .type = "lvm",
    .name = "Local LVM",
    .description = "Logical volumes on devices of the host",
    .caps = SR_CAP_PROBE | SR_CAP_UPDATE | SR_CAP_VDI_CREATE | SR_CAP_VDI_DELETE | SR_CAP_VDI_RESIZE | SR_CAP_VDI_RESIZE_ONLINE |
            SR_CAP_VDI_CLONE | SR_CAP_VDI_SNAPSHOT | SR_CAP_VDI_REVERT | SR_CAP_VDI_INTRODUCE | SR_CAP_VDI_UPDATE | SR_CAP_VDI_ATTACH |
            SR_CAP_VDI_MIRROR | SR_CAP_VDI_MIRROR_IN | SR_CAP_VDI_RESET_ON_BOOT,
    .config = lvm_config,
    .sr_create = lvm_sr_create,
    .sr_destroy = lvm_sr_destroy,
    .sr_attach = lvm_sr_attach,
    .sr_detach = lvm_sr_detach,
    .sr_stat = lvm_sr_stat,
    .sr_scan = lvm_sr_scan,
    .sr_probe = lvm_sr_probe,
    .vdi_create = lvm_vdi_create,
    .vdi_destroy = lvm_vdi_destroy,
    .vdi_resize = lvm_vdi_resize,
    .vdi_clone = lvm_vdi_clone,
    .vdi_snapshot = lvm_vdi_snapshot,
    .vdi_revert = lvm_vdi_revert,
    .vdi_stat = lvm_vdi_stat,
    .vdi_attach = lvm_vdi_attach,
    .vdi_activate = lvm_vdi_activate,
    .vdi_deactivate = lvm_vdi_deactivate,
};
