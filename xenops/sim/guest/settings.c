#include "xenops/sim/guest/settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "xenops/sim/guest/disk_blocks.h"
#include "xenops/sim/guest_text.h"

#define SETTINGS_MAX (1u << 20)
#define PAGES_OF_MIB(mib) ((uint64_t)((mib) * 256.0))
#define DIRTY_MIB_S 2.0 /* by default */
#define DISK_MIB 4.0
#define DISK_FLUSH_EVERY 64

static bool truth(const char *value) { return strcmp(value, "true") == 0 || strcmp(value, "1") == 0; }

/* A number from 0 on; nonsense counts as 0. */
static double number(const char *value)
{
    double d = strtod(value, NULL);

    return d > 0 && d < 1e15 ? d : 0;
}

/* Whole blocks, a power of two of them, within a cluster. */
static unsigned blocks_of_kib(double kib)
{
    unsigned blocks = 1;

    while (blocks < DISK_CLUSTER && blocks * 2.0 * (GUEST_PAGE / 1024) <= kib)
        blocks *= 2;
    return blocks;
}

bool settings_disk(struct arena *a, const char *device, const char *value, struct disk_setting *d)
{
    if (strlen(device) >= sizeof(d->device) || strlen(value) < 4 || value[2] != ' ')
        return false;
    size_t digits = strspn(value + 3, "0123456789");
    *d = (struct disk_setting){ .writable = strncmp(value, "rw", 2) == 0 };
    memcpy(d->device, device, strlen(device) + 1);
    if (value[3 + digits] != ' ' || !text_to_int(arena_strndup(a, value + 3, digits), &d->size))
        return false;
    d->path = arena_strdup(a, value + 3 + digits + 1);
    return true;
}

static void platform_set(struct settings *s, const char *key, const char *value)
{
    const struct { const char *key; bool *flag; } flags[] = {
        { "sim-no-suspend-ack", &s->no_suspend_ack }, { "sim-suspend-hangs", &s->suspend_hangs },
        { "sim-no-shutdown-ack", &s->no_shutdown_ack }, { "sim-no-tools", &s->no_tools },
        { "sim-no-balloon", &s->no_balloon }, { "sim-witness-reset", &s->witness_reset },
        { "sim-disk-direct", &s->disk_direct },
    };
    const struct { const char *key; int64_t *ms; } times[] = {
        { "sim-crash-after-ms", &s->crash_after_ms }, { "sim-shutdown-after-ms", &s->shutdown_after_ms },
        { "sim-reboot-after-ms", &s->reboot_after_ms },
    };

    for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
        if (strcmp(key, flags[i].key) == 0)
            *flags[i].flag = truth(value);
    for (unsigned i = 0; i < ARRAY_LEN(times); i++)
        if (strcmp(key, times[i].key) == 0)
            *times[i].ms = (int64_t)number(value);
    if (strcmp(key, "sim-dirty-mib-s") == 0)
        s->dirty_pages_s = number(value) * 256;
    else if (strcmp(key, "sim-working-set-mib") == 0)
        s->working_set_pages = PAGES_OF_MIB(number(value));
    else if (strcmp(key, "sim-fill-mib") == 0)
        s->fill_pages = PAGES_OF_MIB(number(value));
    else if (strcmp(key, "sim-content") == 0)
        s->mixed_content = strcmp(value, "random") != 0;
    else if (strcmp(key, "sim-disk-iops") == 0)
        s->disk_iops = number(value);
    else if (strcmp(key, "sim-disk-working-set-mib") == 0)
        s->disk_blocks = PAGES_OF_MIB(number(value));
    else if (strcmp(key, "sim-disk-flush-every") == 0)
        s->disk_flush_every = (unsigned)fmin(number(value), 1e9);
    else if (strcmp(key, "sim-disk-write-kib") == 0)
        s->disk_write_blocks = blocks_of_kib(number(value));
    else if (strcmp(key, "sim-cant-suspend-reason") == 0)
        s->cant_suspend_reason = value;
}

static bool setting_set(struct arena *a, struct settings *s, const char *key, const char *value)
{
    if (strncmp(key, "platform.", 9) == 0)
        platform_set(s, key + 9, value);
    else if (strncmp(key, "disk.", 5) == 0)
        return s->n_disks < GUEST_DISKS && settings_disk(a, key + 5, value, &s->disks[s->n_disks++]);
    else if (strncmp(key, "nic.", 4) == 0 && s->n_nics < GUEST_NICS) {
        s->nics[s->n_nics].device = key + 4;
        s->nics[s->n_nics++].mac = value;
    } else if (strcmp(key, "uuid") == 0)
        s->uuid = value;
    else if (strcmp(key, "name") == 0)
        s->name = value;
    else if (strcmp(key, "witness") == 0)
        s->witness = value;
    else if (strcmp(key, "pages") == 0)
        return text_to_uint(value, &s->n_pages);
    else if (strcmp(key, "target_pages") == 0)
        return text_to_uint(value, &s->target_pages);
    else if (strcmp(key, "vcpus") == 0)
        s->vcpus = (unsigned)number(value);
    return true;
}

static bool sensible(struct settings *s)
{
    if (s->uuid == NULL || strlen(s->uuid) >= sizeof(((struct guest_context *)NULL)->uuid))
        return false;
    if (s->n_pages == 0 || s->n_pages > GUEST_PAGES_MAX)
        return false;
    if (s->target_pages == 0 || s->target_pages > s->n_pages)
        s->target_pages = s->n_pages;
    if (s->fill_pages > s->n_pages)
        s->fill_pages = s->n_pages;
    if (s->working_set_pages > s->n_pages)
        s->working_set_pages = s->n_pages;
    s->vcpus = s->vcpus < 1 ? 1 : s->vcpus > GUEST_VCPUS ? GUEST_VCPUS : s->vcpus;
    return true;
}

bool settings_read(struct arena *a, const char *path, struct settings *s)
{
    const char *at, *key, *value;
    char *bytes;
    size_t len;

    *s = (struct settings){ .name = "", .witness = "", .vcpus = 1, .cant_suspend_reason = "", .mixed_content = true,
                            .dirty_pages_s = DIRTY_MIB_S * 256, .disk_blocks = PAGES_OF_MIB(DISK_MIB),
                            .working_set_pages = 0, .fill_pages = UINT64_MAX, .disk_flush_every = DISK_FLUSH_EVERY, .disk_write_blocks = 1 };
    int rc = file_read(a, path, SETTINGS_MAX, &bytes, &len);
    if (rc < 0) {
        fprintf(stderr, "xapi-guest: %s: %s\n", path, strerror(-rc));
        return false;
    }
    at = bytes;
    while (guest_text_next(a, &at, &key, &value))
        if (!setting_set(a, s, key, value)) {
            fprintf(stderr, "xapi-guest: %s: bad value of %s\n", path, key);
            return false;
        }
    if (s->fill_pages == UINT64_MAX)
        s->fill_pages = s->n_pages / 2;
    if (s->working_set_pages == 0)
        s->working_set_pages = s->n_pages / 4;
    if (!sensible(s)) {
        fprintf(stderr, "xapi-guest: %s: no uuid or no memory\n", path);
        return false;
    }
    return true;
}
