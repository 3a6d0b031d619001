#include <string.h>

#include "rpc/base/memory.h"
#include "storage/sr_driver.h"

const struct sr_driver *const sr_drivers[] = {
    &sr_driver_file,
    &sr_driver_ext,
    &sr_driver_nfs,
    &sr_driver_gfs2,
    &sr_driver_lvm,
    &sr_driver_iso,
    &sr_driver_dummy,
    NULL,
};

static const struct { unsigned cap; const char *feature; } features[] = {
    { SR_CAP_PROBE, "SR_PROBE" },
    { SR_CAP_UPDATE, "SR_UPDATE" },
    { SR_CAP_VDI_CREATE, "VDI_CREATE" },
    { SR_CAP_VDI_DELETE, "VDI_DELETE" },
    { SR_CAP_VDI_RESIZE, "VDI_RESIZE" },
    { SR_CAP_VDI_RESIZE_ONLINE, "VDI_RESIZE_ONLINE" },
    { SR_CAP_VDI_CLONE, "VDI_CLONE" },
    { SR_CAP_VDI_SNAPSHOT, "VDI_SNAPSHOT" },
    { SR_CAP_VDI_MIRROR, "VDI_MIRROR" },
    { SR_CAP_VDI_CONFIG_CBT, "VDI_CONFIG_CBT" },
    { SR_CAP_VDI_RESET_ON_BOOT, "VDI_RESET_ON_BOOT" },
    { SR_CAP_VDI_INTRODUCE, "VDI_INTRODUCE" },
    { SR_CAP_VDI_UPDATE, "VDI_UPDATE" },
    { SR_CAP_VDI_ATTACH, "VDI_ATTACH" },
    { SR_CAP_VDI_ATTACH, "VDI_DETACH" },
    { SR_CAP_THIN, "THIN_PROVISIONING" },
    { SR_CAP_VDI_MIRROR_IN, "VDI_MIRROR_IN" },
    { SR_CAP_VDI_GENERATE_CONFIG, "VDI_GENERATE_CONFIG" },
};

static char *base_dir; /* NULL: the default */

void sr_drivers_base(const char *dir)
{
    xfree(base_dir);
    base_dir = xstrdup(dir);
}

const char *sr_drivers_base_dir(void)
{
    return base_dir == NULL ? "/run/sr-mount" : base_dir;
}

const struct sr_driver *sr_driver_find(const char *type)
{
    for (unsigned i = 0; sr_drivers[i] != NULL; i++)
        if (strcmp(sr_drivers[i]->type, type) == 0)
            return sr_drivers[i];
    return NULL;
}

struct value sr_driver_features(struct arena *arena, unsigned caps)
{
    struct value_list list = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(features); i++)
        if (caps & features[i].cap)
            value_list_add(arena, &list, value_string(features[i].feature));
    return value_list_value(&list);
}
