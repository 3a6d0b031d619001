#include "storage/drivers/lvm_group.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "storage/drivers/driver_error.h"

#define TOOL_MS 120000
#define ARGS_MAX 40u
#define ZERO_PIECE ((int64_t)64 << 20)
#define WRITE_PIECE ((int64_t)1 << 20)

bool lvm_has_device_mapper(void)
{
    AUTO_FD fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);

    return fd >= 0;
}

struct error *lvm_group_of(struct call *c, const char *sr_uuid, const struct value *device_config, struct lvm_group *g)
{
    const char *at = value_get_string(device_config, "device", "");

    *g = (struct lvm_group) { .name = arena_printf(c->arena, "VG_XenStorage-%s", sr_uuid) };
    while (*at != '\0') {
        size_t n = strcspn(at, ",");
        const char *path = arena_strndup(c->arena, at, n);
        AUTO_FREE char *real = realpath(path, NULL);

        if (real == NULL)
            return driver_failed(c, "the device cannot be reached:", path, errno);
        if (g->n_devices == ARRAY_LEN(g->devices) || strpbrk(real, "|\"\\") != NULL)
            return driver_refused(c, "5", "device-config device: %s", at);
        g->devices[g->n_devices++] = arena_strdup(c->arena, real);
        at += n + (at[n] == ',');
    }
    return g->n_devices > 0 ? NULL : driver_refused(c, "90", "device-config lacks 'device'");
}

/* --- the tools ------------------------------------------------------------------------------------- */
static const char *lock_dir(struct call *c)
{
    return arena_printf(c->arena, "%s/.lvm-lock", sr_drivers_base_dir());
}

static const char *configuration(struct call *c, const struct lvm_group *g)
{
    const char *filter = "";

    for (unsigned i = 0; i < g->n_devices; i++)
        filter = arena_printf(c->arena, "%s\"a|^%s$|\",", filter, g->devices[i]);
    return arena_printf(c->arena,
                        "devices { filter=[%s\"r|.*|\"] use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source=\"none\" "
                        "hints=\"none\" issue_discards=0 } global { locking_dir=\"%s\" use_lvmpolld=0 } activation { udev_sync=0 udev_rules=0 "
                        "monitoring=0 verify_udev_operations=0 } backup { backup=0 archive=0 }",
                        filter, lock_dir(c));
}

struct error *lvm_run(struct call *c, const struct lvm_group *g, const char *const *argv, char **output_r)
{
    const char *all[ARGS_MAX] = { "lvm", argv[0], "--config", configuration(c, g) };
    unsigned n = 4;
    char *unused;
    int error = dir_create(lock_dir(c), 0700);

    if (error != 0)
        return driver_failed(c, "creating", lock_dir(c), -error);
    if (!lvm_has_device_mapper()) {
        all[n++] = "--driverloaded";
        all[n++] = "n";
    }
    for (unsigned i = 1; argv[i] != NULL && n + 1 < ARGS_MAX; i++)
        all[n++] = argv[i];
    TRY(driver_step(c, "lvm", argv[0], "run"));
    return driver_command(c, all, TOOL_MS, output_r == NULL ? &unused : output_r);
}

/* The next line "a|b|c" of n fields, in the arena; false at the end. Warnings in between are passed over. */
static bool next_fields(struct call *c, const char **at, const char **fields, unsigned n)
{
    while (**at != '\0') {
        size_t len = strcspn(*at, "\n");
        char *line = arena_strndup(c->arena, *at, len);
        unsigned found = 0;

        *at += len + ((*at)[len] == '\n');
        for (line += strspn(line, " "); line != NULL && found < n; found++) {
            char *bar = strchr(line, '|');

            fields[found] = line;
            if (bar != NULL)
                *bar++ = '\0';
            line = bar;
        }
        if (found == n && line == NULL)
            return true;
    }
    return false;
}

struct error *lvm_group_on(struct call *c, const struct lvm_group *g, const char *device, const char **name_r, int64_t *size_r)
{
    const char *const argv[] = { "pvs", "--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", "pv_name,vg_name,pv_size", NULL };
    const char *fields[3], *at;
    char *output;

    *name_r = "";
    TRY(lvm_run(c, g, argv, &output));
    for (at = output; next_fields(c, &at, fields, ARRAY_LEN(fields));) {
        if (strcmp(fields[0], device) != 0)
            continue;
        *name_r = fields[1];
        if (!text_to_int(fields[2], size_r))
            return driver_refused(c, "5", "lvm pvs: %s", output);
    }
    return NULL;
}

struct error *lvm_sizes(struct call *c, const struct lvm_group *g, struct lvm_sizes *sizes)
{
    const char *const argv[] = { "vgs", "--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", "vg_size,vg_free,vg_extent_size",
                                 g->name, NULL };
    const char *fields[3], *at;
    char *output;

    TRY(lvm_run(c, g, argv, &output));
    at = output;
    if (!next_fields(c, &at, fields, ARRAY_LEN(fields)) || !text_to_int(fields[0], &sizes->size) || !text_to_int(fields[1], &sizes->free) ||
        !text_to_int(fields[2], &sizes->extent) || sizes->extent <= 0)
        return driver_refused(c, "5", "lvm vgs: %s", output);
    return NULL;
}

/* --- volumes ------------------------------------------------------------------------------------------ */
struct listing {
    struct call *c;
    struct lvm_volume *volumes;
    unsigned n, cap;
    int64_t starts[16]; /* of the first extent, by device of the group */
};

static struct error *starts_read(struct call *c, const struct lvm_group *g, int64_t *starts)
{
    const char *const argv[] = { "pvs", "--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "-o", "pv_name,pe_start", NULL };
    const char *fields[2], *at;
    char *output;

    TRY(lvm_run(c, g, argv, &output));
    for (at = output; next_fields(c, &at, fields, ARRAY_LEN(fields));)
        for (unsigned i = 0; i < g->n_devices; i++)
            if (strcmp(fields[0], g->devices[i]) == 0 && !text_to_int(fields[1], &starts[i]))
                return driver_refused(c, "5", "lvm pvs: %s", output);
    return NULL;
}

/* "/dev/sdb:0-12": extents of a device, both ends included. */
static bool range_parse(struct listing *l, const struct lvm_group *g, const char *text, int64_t extent, struct lvm_segment *s)
{
    const char *colon = strrchr(text, ':'), *dash = colon == NULL ? NULL : strchr(colon, '-');
    int64_t first, last;

    if (dash == NULL || strchr(text, ' ') != NULL || !text_to_int(arena_strndup(l->c->arena, colon + 1, (size_t)(dash - colon - 1)), &first) ||
        !text_to_int(dash + 1, &last) || first < 0 || last < first || last >= INT64_MAX / extent)
        return false;
    for (unsigned i = 0; i < g->n_devices; i++) {
        if (strlen(g->devices[i]) != (size_t)(colon - text) || strncmp(g->devices[i], text, (size_t)(colon - text)) != 0)
            continue;
        *s = (struct lvm_segment) { g->devices[i], l->starts[i] + first * extent, (last - first + 1) * extent };
        return l->starts[i] > 0;
    }
    return false;
}

static struct lvm_volume *volume_at(struct listing *l, const char *name)
{
    if (l->n > 0 && strcmp(l->volumes[l->n - 1].name, name) == 0)
        return &l->volumes[l->n - 1];
    if (l->n == l->cap) {
        struct lvm_volume *more = arena_calloc(l->c->arena, l->cap == 0 ? 16 : 2 * l->cap, sizeof(*more));

        if (l->n > 0)
            memcpy(more, l->volumes, l->n * sizeof(*more));
        l->volumes = more;
        l->cap = l->cap == 0 ? 16 : 2 * l->cap;
    }
    l->volumes[l->n] = (struct lvm_volume) { .name = name, .segments = arena_alloc(l->c->arena, sizeof(struct lvm_segment)) };
    return &l->volumes[l->n++];
}

static void segment_add(struct listing *l, struct lvm_volume *v, const struct lvm_segment *s)
{
    struct lvm_segment *more;

    if (v->segments == NULL)
        return;
    more = arena_calloc(l->c->arena, v->n_segments + 1, sizeof(*more));
    memcpy(more, v->segments, v->n_segments * sizeof(*more));
    more[v->n_segments++] = *s;
    v->segments = more;
}

/* name, size, tags, seg_size, type, ranges, extent size; segments in the order of the volume. */
static struct error *line_add(struct listing *l, const struct lvm_group *g, const char *const *f)
{
    struct lvm_volume *v = volume_at(l, f[0]);
    struct lvm_segment s;
    int64_t seg_size, extent;

    v->tags = f[2];
    if (!text_to_int(f[1], &v->size) || !text_to_int(f[3], &seg_size) || !text_to_int(f[6], &extent) || extent <= 0)
        return driver_refused(l->c, "5", "lvm lvs: %s %s %s", f[0], f[1], f[3]);
    if (strcmp(f[4], "linear") == 0 && range_parse(l, g, f[5], extent, &s) && s.length == seg_size)
        segment_add(l, v, &s);
    else
        v->segments = NULL;
    return NULL;
}

struct error *lvm_volumes(struct call *c, const struct lvm_group *g, struct lvm_volume **volumes_r, unsigned *n_r)
{
    const char *const argv[] = { "lvs", "--noheadings", "--nosuffix", "--units", "b", "--separator", "|", "--segments", "-O", "lv_name,seg_start",
                                 "-o", "lv_name,lv_size,lv_tags,seg_size,segtype,seg_pe_ranges,vg_extent_size", g->name, NULL };
    struct listing l = { .c = c };
    const char *fields[7], *at;
    char *output;

    TRY(starts_read(c, g, l.starts));
    TRY(lvm_run(c, g, argv, &output));
    for (at = output; next_fields(c, &at, fields, ARRAY_LEN(fields));)
        TRY(line_add(&l, g, fields));
    *volumes_r = l.volumes;
    *n_r = l.n;
    return NULL;
}

/* --- their bytes ----------------------------------------------------------------------------------------- */
const char *lvm_segments_path(struct call *c, const struct lvm_volume *v)
{
    const char *path = "segments:";

    for (unsigned i = 0; i < v->n_segments; i++)
        path = arena_printf(c->arena, "%s%s%s@%lld+%lld", path, i == 0 ? "" : ";", v->segments[i].device, (long long)v->segments[i].offset,
                            (long long)v->segments[i].length);
    return path;
}

/* By the device itself, else by writing. 0 or -errno. */
static int zero_range(int fd, int64_t offset, int64_t length)
{
    uint64_t range[2] = { (uint64_t)offset, (uint64_t)length };
    AUTO_FREE char *zeros = NULL;
    int error = 0;

    if (ioctl(fd, BLKZEROOUT, range) == 0)
        return 0;
    zeros = xcalloc(1, WRITE_PIECE);
    for (int64_t done = 0; done < length && error == 0; done += WRITE_PIECE)
        error = fd_pwrite_all(fd, zeros, (size_t)(length - done < WRITE_PIECE ? length - done : WRITE_PIECE), offset + done);
    return error;
}

static struct error *zero_segment(struct call *c, const struct lvm_segment *s, int64_t skip, int64_t before, int64_t whole)
{
    AUTO_FD fd = open(s->device, O_RDWR | O_CLOEXEC);
    int error = fd < 0 ? -errno : 0;

    for (int64_t at = skip; at < s->length && error == 0; at += ZERO_PIECE) {
        if (call_cancelled(c))
            return driver_cancelled(c);
        error = zero_range(fd, s->offset + at, s->length - at < ZERO_PIECE ? s->length - at : ZERO_PIECE);
        call_progress(c, (double)(before + at) / (double)whole);
    }
    if (error == 0 && fsync(fd) != 0)
        error = -errno;
    return error == 0 ? NULL : driver_failed(c, "zeroing", s->device, -error);
}

struct error *lvm_zero(struct call *c, const struct lvm_volume *v, int64_t offset)
{
    int64_t at = 0;

    for (unsigned i = 0; i < v->n_segments; i++) {
        const struct lvm_segment *s = &v->segments[i];

        if (offset < at + s->length)
            TRY(zero_segment(c, s, offset > at ? offset - at : 0, at, v->size));
        at += s->length;
    }
    return NULL;
}
