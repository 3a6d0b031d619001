#include "xapi/migrate/disk_move_rows.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/operations.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_make.h"

LOG_MODULE(disk_move);

/* --- the note: "<state> <target> <sr> <host> <task> <quarantine>" ------------------------------------------------ */
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
    note->target = word(arena, &at);
    note->sr = word(arena, &at);
    note->host = word(arena, &at);
    note->task = word(arena, &at);
    return text_to_int(word(arena, &at), &note->quarantine_s);
}

static struct error *note_put(struct api_call *c, struct txn *txn, const struct disk_move *m, const char *state)
{
    const char *text = arena_printf(c->arena, "%s %s %s %s %s %lld", state, m->target, m->sr, m->host, c->task != NULL ? c->task : REF_NULL,
                                    (long long)m->quarantine_s);
    return txn_map_put(txn, CLASS_VDI, m->vdi, F_VDI_sm_config, DISK_MOVE_KEY, value_string(text));
}

/* What a copy does not inherit, but the same disk elsewhere has. */
static struct error *same_disk(struct txn *txn, const struct disk_move *m, const struct row *source)
{
    static const unsigned same[] = { F_VDI_is_a_snapshot, F_VDI_snapshot_of, F_VDI_snapshot_time, F_VDI_on_boot, F_VDI_allow_caching };

    for (unsigned i = 0; i < ARRAY_LEN(same); i++)
        TRY(txn_set(txn, CLASS_VDI, m->target, same[i], *row_value(source, same[i])));
    return txn_map_remove(txn, CLASS_VDI, m->target, F_VDI_sm_config, DISK_MOVE_KEY);
}

struct error *disk_move_announce(struct api_call *c, const struct disk_move *m, const struct row *source)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(note_put(c, txn, m, "moving"));
    TRY(same_disk(txn, m, source));
    TRY(vdi_settle(c, txn, m->target));
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

static void sizes_follow(struct api_call *c, const char *sr)
{
    struct error *e = sr_sizes_refresh(c, sr);
    if (e != NULL)
        log_warn("sizes of SR %s: %s", sr, error_text(c->arena, e));
}

static struct error *roll_back(struct api_call *c, const struct disk_move *m)
{
    if (db_get(c->db, c->arena, &model_classes[CLASS_VDI], m->target) != NULL)
        TRY(vdi_unmake(c, m->target));
    return note_remove(c, m->vdi);
}

void disk_move_roll_back(struct api_call *c, const struct disk_move *m)
{
    struct error *e = roll_back(c, m);
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
    const struct row *source, *target;

    TRY(txn_need(txn, CLASS_VDI, m->vdi, &source));
    TRY(txn_need(txn, CLASS_VDI, m->target, &target));
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
    return vdi_unmake(c, m->vdi);
}

void disk_move_old_away(struct api_call *c, const struct disk_move *m)
{
    struct error *e = old_away(c, m);

    if (e != NULL)
        log_err("the old disk %s of a finished move is left until recovery: %s", m->vdi, error_text(c->arena, e));
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
