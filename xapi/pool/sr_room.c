#include "xapi/pool/sr_room.h"

#include <inttypes.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/pool/sr_rows.h"

LOG_MODULE(sr_room);

static const struct { const char *option, *what; } uses[] = {
    [SR_ROOM_COPY] = { "sr-room-copy-factor", "a copy" },
    [SR_ROOM_CONVERT] = { "sr-room-convert-factor", "a copy in another format" },
    [SR_ROOM_SNAPSHOT] = { "sr-room-snapshot-factor", "temporary snapshots" },
};

struct error *sr_room_look(struct api_call *c, const char *sr_ref, enum sr_room_use use, int64_t plain, struct sr_room *room_r)
{
    const struct row *sr;
    int64_t factor = config_int(c->xapi->config, uses[use].option);

    TRY(sr_sizes_refresh(c, sr_ref));
    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    int64_t size = row_int(sr, F_SR_physical_size);
    *room_r = (struct sr_room) {
        .plain = plain,
        .wanted = plain > INT64_MAX / factor ? INT64_MAX : plain * factor,
        .available = size > 0 ? size - row_int(sr, F_SR_physical_utilisation) : INT64_MAX,
    };
    room_r->fits = room_r->plain <= room_r->available;
    room_r->comfortable = room_r->wanted <= room_r->available;
    return NULL;
}

struct error *sr_room_check(struct api_call *c, const char *sr_ref, enum sr_room_use use, int64_t plain)
{
    struct sr_room room;

    TRY(sr_room_look(c, sr_ref, use, plain, &room));
    if (room.comfortable)
        return NULL;
    if (room.fits && !config_bool(c->xapi->config, "sr-room-strict")) {
        log_warn("%s on SR %s may need %" PRId64 " bytes, %" PRId64 " are free", uses[use].what, sr_ref, room.wanted, room.available);
        return NULL;
    }
    if (use == SR_ROOM_SNAPSHOT)
        return err_sr_source_space_insufficient(c->arena, sr_ref);
    return err_sr_full(c->arena, arena_printf(c->arena, "%" PRId64, room.fits ? room.wanted : room.plain),
                       arena_printf(c->arena, "%" PRId64, room.available));
}

int64_t sr_room_plain(struct api_call *c, const char *sr_ref, const struct row *vdi)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr = txn_get(txn, &model_classes[CLASS_SR], sr_ref);
    int64_t used = row_int(vdi, F_VDI_physical_utilisation), size = row_int(vdi, F_VDI_virtual_size);

    return sr != NULL && sr_has_feature(txn, sr, "THIN_PROVISIONING") && used < size ? used : size;
}

enum sr_room_use sr_room_use_of(const struct row *vdi, const char *format)
{
    return format[0] != '\0' && strcmp(row_map(vdi, F_VDI_sm_config, "type", format), format) != 0 ? SR_ROOM_CONVERT : SR_ROOM_COPY;
}
