/* What is asked about disks that move, one question a function: send_checks.c has the order. */
#include <inttypes.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disk_plan.h"
#include "xapi/migrate/sr_there.h"
#include "xapi/pool/sr_room.h"
#include "xapi/pool/sr_rows.h"

LOG_MODULE(disk_plan);

static bool moves(const struct move_disk *d)
{
    return d->how != MOVE_DISK_STAYS && d->target_sr != NULL;
}

static const char *missing(struct api_call *c, bool snapshot, bool mirror, const char *mirror_name)
{
    return arena_printf(c->arena, "%s%s%s", snapshot ? "" : "VDI_SNAPSHOT", snapshot || mirror ? "" : ";", mirror ? "" : mirror_name);
}

static struct error *check_source_features(struct api_call *c, const struct move_disk *d)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;

    TRY(txn_need(txn, CLASS_SR, d->sr, &sr));
    const char *text = missing(c, sr_has_feature(txn, sr, "VDI_SNAPSHOT"), sr_has_feature(txn, sr, "VDI_MIRROR"), "VDI_MIRROR");
    return text[0] != '\0' ? err_sr_does_not_support_migration(c->arena, d->sr, text) : NULL;
}

struct error *disk_plan_check_features(struct api_call *c, const struct move *m)
{
    struct srs_there there;

    TRY(srs_there_read(c, m, &there));
    for (unsigned i = 0; i < m->n_disks; i++)
        if (moves(&m->disks[i]))
            TRY(check_source_features(c, &m->disks[i]));
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct sr_there *to = moves(&m->disks[i]) ? sr_there_by_ref(&there, m->disks[i].target_sr) : NULL;
        if (to == NULL)
            continue;
        bool mirror = sr_there_can(to, "VDI_MIRROR_IN") || sr_there_can(to, "VDI_MIRROR");
        const char *text = missing(c, sr_there_can(to, "VDI_SNAPSHOT"), mirror, "VDI_MIRROR_IN");
        if (text[0] != '\0')
            return err_sr_does_not_support_migration(c->arena, to->ref, text);
    }
    return NULL;
}

struct error *disk_plan_check_contents(struct api_call *c, const struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct row *vdi;
        if (m->disks[i].how == MOVE_DISK_STAYS)
            continue;
        TRY(db_need(c->db, c->arena, CLASS_VDI, m->disks[i].vdi, &vdi));
        if (row_bool(vdi, F_VDI_cbt_enabled))
            return err_vdi_cbt_enabled(c->arena, vdi->ref);
        if (row_map(vdi, F_VDI_sm_config, "key_hash", NULL) != NULL)
            return err_vdi_is_encrypted(c->arena, vdi->ref);
    }
    return NULL;
}

struct error *disk_plan_check_source(struct api_call *c, const struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct row *vdi;
        if (m->disks[i].is_snapshot || m->disks[i].is_suspend_image)
            continue;
        TRY(db_need(c->db, c->arena, CLASS_VDI, m->disks[i].vdi, &vdi));
        if (strcmp(row_string(vdi, F_VDI_on_boot), "reset") == 0)
            return error_make(c->arena, __FILE__, __LINE__, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", 1, vdi->ref);
    }
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].is_suspend_image && m->disks[i].how != MOVE_DISK_STAYS && !sr_plugged_on(c, m->disks[i].sr, m->from))
            return err_suspend_image_not_accessible(c->arena, m->disks[i].vdi);
    return NULL;
}

struct error *disk_plan_check_places(struct api_call *c, const struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].target_sr == NULL)
            return err_vdi_not_in_map(c->arena, m->disks[i].vdi);
    return NULL;
}

struct error *disk_plan_check_formats(struct api_call *c, const struct move *m)
{
    struct srs_there there;

    TRY(srs_there_read(c, m, &there));
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct move_disk *d = &m->disks[i];
        const struct sr_there *to = moves(d) && d->format[0] != '\0' ? sr_there_by_ref(&there, d->target_sr) : NULL;
        if (to == NULL || sr_there_takes(to, d->format))
            continue;
        const char *text = arena_printf(c->arena, "VDI %s cannot be of the format '%s' in SR %s", d->vdi, d->format, to->ref);
        return error_make(c->arena, __FILE__, __LINE__, "VDI_INCOMPATIBLE_TYPE", 1, text);
    }
    return NULL;
}

/* --- room ---------------------------------------------------------------------------------------------------------- */
/* What is written there at least. */
static struct error *plain_in(struct api_call *c, const struct move *m, const struct sr_there *to, int64_t *plain_r)
{
    bool thin = sr_there_can(to, "THIN_PROVISIONING");

    *plain_r = 0;
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct row *vdi;
        if (!moves(&m->disks[i]) || strcmp(m->disks[i].target_sr, to->ref) != 0)
            continue;
        TRY(db_need(c->db, c->arena, CLASS_VDI, m->disks[i].vdi, &vdi));
        int64_t used = row_int(vdi, F_VDI_physical_utilisation), size = row_int(vdi, F_VDI_virtual_size);
        *plain_r += thin && used < size ? used : size;
    }
    return NULL;
}

/* As sr_room_check, of an SR whose record is all that is known: another pool's, or one that is not plugged yet. */
static struct error *recorded_room(struct api_call *c, const struct sr_there *to, int64_t plain)
{
    int64_t available = to->physical_size > 0 ? to->physical_size - to->physical_utilisation : INT64_MAX;
    int64_t factor = config_int(c->xapi->config, "sr-room-copy-factor"), wanted = plain > INT64_MAX / factor ? INT64_MAX : plain * factor;

    if (wanted <= available)
        return NULL;
    if (plain <= available && !config_bool(c->xapi->config, "sr-room-strict")) {
        log_warn("a copy on SR %s may need %" PRId64 " bytes, %" PRId64 " are free", to->uuid, wanted, available);
        return NULL;
    }
    return err_sr_full(c->arena, arena_printf(c->arena, "%" PRId64, plain <= available ? wanted : plain),
                       arena_printf(c->arena, "%" PRId64, available > 0 ? available : 0));
}

struct error *disk_plan_check_room(struct api_call *c, const struct move *m)
{
    struct srs_there there;

    TRY(srs_there_read(c, m, &there));
    for (unsigned i = 0; i < there.n; i++) {
        int64_t plain;
        TRY(plain_in(c, m, &there.srs[i], &plain));
        if (plain == 0)
            continue;
        bool here = m->destination.peer == NULL && there.srs[i].attached;
        TRY(here ? sr_room_check(c, there.srs[i].ref, SR_ROOM_COPY, plain) : recorded_room(c, &there.srs[i], plain));
    }
    return NULL;
}
