#include "xapi/migrate/disk_move_rows.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/operations.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(disk_move);

/* --- the note: "<state> <target uuid> <sr> <host> <task> <quarantine>" ------------------------------------------- */
static const char *word(struct arena *arena, const char **at)
{
    size_t len = strcspn(*at, " ");
    const char *w = arena_strndup(arena, *at, len);

    *at += len;
    *at += strspn(*at, " ");
    return w;
}

bool disk_move_note_of(struct arena *arena, const struct row *vdi, struct disk_move_note *note)
{
    const char *at = row_map(vdi, F_VDI_sm_config, DISK_MOVE_KEY, "");

    if (at[0] == '\0')
        return false;
    note->moved = strcmp(word(arena, &at), "moved") == 0;
    note->target_uuid = word(arena, &at);
    note->sr = word(arena, &at);
    note->host = word(arena, &at);
    note->task = word(arena, &at);
    return text_to_int(word(arena, &at), &note->quarantine_s);
}

static struct error *note_put(struct api_call *c, struct txn *txn, const struct disk_move *m, const char *state)
{
    const char *text = arena_printf(c->arena, "%s %s %s %s %s %lld", state, m->target_uuid, m->sr, m->host, c->task != NULL ? c->task : REF_NULL,
                                    (long long)m->quarantine_s);
    return txn_map_put(txn, CLASS_VDI, m->vdi, F_VDI_sm_config, DISK_MOVE_KEY, value_string(text));
}

struct error *disk_move_announce(struct api_call *c, const struct disk_move *m)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(note_put(c, txn, m, "moving"));
    return txn_commit(txn, NULL);
}

static struct error *note_remove(struct api_call *c, const char *vdi)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    if (txn_get(txn, &model_classes[CLASS_VDI], vdi) == NULL)
        return NULL;
    TRY(txn_map_remove(txn, CLASS_VDI, vdi, F_VDI_sm_config, DISK_MOVE_KEY));
    return txn_commit(txn, NULL);
}

/* --- the target ------------------------------------------------------------------------------------------------- */
struct error *disk_move_target_row(struct api_call *c, struct disk_move *m, const struct row *source, const struct value *stat)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    struct value chosen = vdi_row_chosen(c->arena, source);

    TRY(vdi_row_create(c, txn, m->sr, stat, &chosen, &m->target));
    TRY(txn_map_remove(txn, CLASS_VDI, m->target, F_VDI_sm_config, DISK_MOVE_KEY));
    TRY(txn_set_bool(txn, CLASS_VDI, m->target, F_VDI_is_a_snapshot, row_bool(source, F_VDI_is_a_snapshot)));
    TRY(txn_set_string(txn, CLASS_VDI, m->target, F_VDI_snapshot_of, row_string(source, F_VDI_snapshot_of)));
    TRY(txn_set(txn, CLASS_VDI, m->target, F_VDI_snapshot_time, *row_value(source, F_VDI_snapshot_time)));
    TRY(txn_set_string(txn, CLASS_VDI, m->target, F_VDI_on_boot, row_string(source, F_VDI_on_boot)));
    return txn_commit(txn, NULL);
}

static struct error *image_destroy(struct api_call *c, const char *sr_ref, const char *host, const char *location)
{
    const struct row *sr;
    struct value ignored;

    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    const struct member args[] = { member_of("sr", value_string(row_string(sr, F_SR_uuid))), member_of("location", value_string(location)) };
    struct value v = value_map(args, ARRAY_LEN(args));
    struct error *e = agent_call(c, host, "vdi.destroy", &v, &ignored);
    return error_is(e, "VDI_MISSING") ? NULL : e;
}

static struct error *row_delete(struct api_call *c, const char *vdi)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row = txn_get(txn, &model_classes[CLASS_VDI], vdi);

    if (row == NULL)
        return NULL;
    TRY(vdi_row_destroy(txn, row));
    return txn_commit(txn, NULL);
}

static void sizes_follow(struct api_call *c, const char *sr)
{
    struct error *e = sr_sizes_refresh(c, sr);
    if (e != NULL)
        log_warn("sizes of SR %s: %s", sr, error_text(c->arena, e));
}

static struct error *roll_back(struct api_call *c, const struct disk_move *m, const char *source)
{
    const struct row *target = db_by_uuid(c->db, c->arena, &model_classes[CLASS_VDI], m->target_uuid);

    TRY(image_destroy(c, m->sr, m->host, target != NULL ? row_string(target, F_VDI_location) : m->target_uuid));
    if (target != NULL)
        TRY(row_delete(c, target->ref));
    TRY(note_remove(c, source));
    sizes_follow(c, m->sr);
    return NULL;
}

void disk_move_roll_back(struct api_call *c, const struct disk_move *m, const char *source)
{
    struct error *e = roll_back(c, m, source);
    if (e != NULL)
        log_err("what a failed move made in SR %s is left until recovery: %s", m->sr, error_text(c->arena, e));
}

/* --- after the switch --------------------------------------------------------------------------------------------- */
static struct error *retarget(struct api_call *c, struct txn *txn, const struct row *source, const char *target)
{
    const struct value *vbds = row_value(source, F_VDI_VBDs), *snapshots = row_value(source, F_VDI_snapshots);

    for (unsigned i = 0; i < vbds->len; i++) {
        TRY(txn_set_string(txn, CLASS_VBD, vbds->items[i].s, F_VBD_VDI, target));
        TRY(operations_update(c, txn, CLASS_VBD, vbds->items[i].s));
    }
    for (unsigned i = 0; i < snapshots->len; i++)
        TRY(txn_set_string(txn, CLASS_VDI, snapshots->items[i].s, F_VDI_snapshot_of, target));
    return NULL;
}

struct error *disk_move_commit(struct api_call *c, const struct disk_move *m)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *source, *target = txn_by_uuid(txn, &model_classes[CLASS_VDI], m->target_uuid);

    TRY(txn_need(txn, CLASS_VDI, m->vdi, &source));
    if (target == NULL)
        return err_internal(c->arena, "the new disk %s of a move has no row", m->target_uuid);
    TRY(retarget(c, txn, source, target->ref));
    TRY(note_put(c, txn, m, "moved"));
    TRY(operations_update(c, txn, CLASS_VDI, target->ref));
    return txn_commit(txn, NULL);
}

static struct error *quarantine(struct api_call *c, const struct disk_move *m)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *until = arena_printf(c->arena, "%lld", (long long)(clock_wall(c->call.clock) + m->quarantine_s));

    TRY(txn_map_put(txn, CLASS_VDI, m->vdi, F_VDI_other_config, DISK_QUARANTINE_KEY, value_string(until)));
    TRY(txn_map_remove(txn, CLASS_VDI, m->vdi, F_VDI_sm_config, DISK_MOVE_KEY));
    return txn_commit(txn, NULL);
}

static struct error *old_away(struct api_call *c, const struct disk_move *m)
{
    const struct row *source = db_get(c->db, c->arena, &model_classes[CLASS_VDI], m->vdi);

    if (source == NULL)
        return NULL;
    if (m->quarantine_s > 0)
        return quarantine(c, m);
    TRY(image_destroy(c, row_string(source, F_VDI_SR), m->host, row_string(source, F_VDI_location)));
    return row_delete(c, m->vdi);
}

void disk_move_old_away(struct api_call *c, const struct disk_move *m)
{
    const struct row *source = db_get(c->db, c->arena, &model_classes[CLASS_VDI], m->vdi);
    struct error *e = old_away(c, m);

    if (e != NULL)
        log_err("the old disk %s of a finished move is left until recovery: %s", m->vdi, error_text(c->arena, e));
    if (source != NULL)
        sizes_follow(c, row_string(source, F_VDI_SR));
    sizes_follow(c, m->sr);
}

/* --- what the host's tapds say --------------------------------------------------------------------------------------- */
static const struct value *tap_of(struct arena *arena, const struct value *taps, const char *sr, const char *location)
{
    const char *key = arena_printf(arena, "%s/%s", sr, location);

    for (unsigned i = 0; i < taps->len; i++)
        if (strcmp(value_get_string(&taps->items[i], "key", ""), key) == 0)
            return &taps->items[i];
    return NULL;
}

enum disk_move_outcome disk_move_outcome(struct api_call *c, const struct disk_move *m, const char *from_sr, const char *location, const char *to_sr,
                                         const char *to_location)
{
    const struct member args[] = { member_of("sr", value_string(from_sr)), member_of("location", value_string(location)),
                                   member_of("to_sr", value_string(to_sr)), member_of("to", value_string(to_location)) };
    struct value none = value_map(NULL, 0), switch_args = value_map(args, ARRAY_LEN(args)), taps, ignored, status;

    if (agent_call(c, m->host, "tap.list", &none, &taps) != NULL || taps.kind != VALUE_SET)
        return DISK_MOVE_UNKNOWN;
    if (tap_of(c->arena, &taps, to_sr, to_location) != NULL)
        return DISK_MOVE_SWITCHED;
    if (tap_of(c->arena, &taps, from_sr, location) == NULL)
        return DISK_MOVE_NEVER;
    struct value source_args = value_map(args, 2);
    if (agent_call(c, m->host, "vdi.mirror_status", &source_args, &status) != NULL)
        return DISK_MOVE_UNKNOWN;
    if (strcmp(value_get_string(&status, "mirror", "none"), "switched") != 0)
        return DISK_MOVE_RUNNING;
    return agent_call(c, m->host, "vdi.mirror_switch", &switch_args, &ignored) == NULL ? DISK_MOVE_SWITCHED : DISK_MOVE_UNKNOWN;
}
