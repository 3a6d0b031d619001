#include "xapi/migrate/move_note.h"

#include <string.h>

#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/migrations.h"

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

static struct value disk_value(struct arena *a, const struct move_disk *d)
{
    struct value_dict v = { 0 };
    value_dict_add(a, &v, "vdi", value_string(d->vdi));
    value_dict_add(a, &v, "uuid", value_string(or_empty(d->uuid)));
    value_dict_add(a, &v, "sr", value_string(or_empty(d->sr)));
    value_dict_add(a, &v, "sr_uuid", value_string(or_empty(d->sr_uuid)));
    value_dict_add(a, &v, "location", value_string(or_empty(d->location)));
    value_dict_add(a, &v, "size", value_int(d->size));
    value_dict_add(a, &v, "how", value_int(d->how));
    value_dict_add(a, &v, "suspend_image", value_bool(d->is_suspend_image));
    value_dict_add(a, &v, "snapshot", value_bool(d->is_snapshot));
    value_dict_add(a, &v, "target", value_string(or_empty(d->target)));
    value_dict_add(a, &v, "target_uuid", value_string(or_empty(d->target_uuid)));
    value_dict_add(a, &v, "target_sr", value_string(or_empty(d->target_sr)));
    value_dict_add(a, &v, "target_sr_uuid", value_string(or_empty(d->target_sr_uuid)));
    value_dict_add(a, &v, "target_location", value_string(or_empty(d->target_location)));
    return value_dict_value(&v);
}

static struct value note_value(struct api_call *c, const struct move *m)
{
    struct arena *a = c->arena;
    struct value_dict v = { 0 };
    struct value_list disks = { 0 };
    for (unsigned i = 0; i < m->n_disks; i++)
        value_list_add(a, &disks, disk_value(a, &m->disks[i]));
    value_dict_add(a, &v, "vm", value_string(m->vm));
    value_dict_add(a, &v, "guest", value_int(m->guest));
    value_dict_add(a, &v, "from", value_string(m->from));
    value_dict_add(a, &v, "task", value_string(c->task != NULL ? c->task : REF_NULL));
    value_dict_add(a, &v, "attempt", value_string(or_empty(m->attempt)));
    value_dict_add(a, &v, "local", value_bool(m->destination.ops == &destination_local));
    value_dict_add(a, &v, "host", value_string(m->destination.host));
    value_dict_add(a, &v, "host_uuid", value_string(or_empty(m->destination.host_uuid)));
    value_dict_add(a, &v, "destination", migration_target_value(a, &m->destination.target));
    value_dict_add(a, &v, "master", m->destination.ops == &destination_local ? value_map(NULL, 0) : migration_target_value(a, &m->destination.master));
    value_dict_add(a, &v, "final_uuid", value_string(or_empty(m->final_uuid)));
    value_dict_add(a, &v, "vm_there", value_string(or_empty(m->vm_there)));
    value_dict_add(a, &v, "cause", value_string(or_empty(m->cause)));
    value_dict_add(a, &v, "power", value_string(or_empty(m->final_power)));
    value_dict_add(a, &v, "domid", value_int(m->final_domid));
    value_dict_add(a, &v, "copy", value_bool(m->options.copy));
    value_dict_add(a, &v, "keep_source", value_bool(m->options.keep_source));
    value_dict_add(a, &v, "paused", value_bool(m->options.paused));
    value_dict_add(a, &v, "persistent", value_bool(m->options.persistent));
    value_dict_add(a, &v, "disks", value_list_value(&disks));
    return value_dict_value(&v);
}

struct error *move_note_put(struct api_call *c, const struct move *m, const char *stage)
{
    struct value note = note_value(c, m);
    return ledger_stage(c->arena, c->xapi->ledger, m->id, LEDGER_OUT, stage, &note);
}

/* --- reading ------------------------------------------------------------------------------------------------- */
static void disk_read(const struct value *v, struct move_disk *d)
{
    *d = (struct move_disk){
        .vdi = value_get_string(v, "vdi", ""),
        .uuid = value_get_string(v, "uuid", ""),
        .sr = value_get_string(v, "sr", ""),
        .sr_uuid = value_get_string(v, "sr_uuid", ""),
        .location = value_get_string(v, "location", ""),
        .size = value_get_int(v, "size", 0),
        .how = (enum move_disk_how)value_get_int(v, "how", 0),
        .is_suspend_image = value_get_bool(v, "suspend_image", false),
        .is_snapshot = value_get_bool(v, "snapshot", false),
        .target = value_get_string(v, "target", ""),
        .target_uuid = value_get_string(v, "target_uuid", ""),
        .target_sr = value_get_string(v, "target_sr", ""),
        .target_sr_uuid = value_get_string(v, "target_sr_uuid", ""),
        .target_location = value_get_string(v, "target_location", ""),
        .format = "",
    };
    if (d->target[0] == '\0')
        d->target = NULL;
}

static bool target_read(struct arena *a, const struct value *v, const char *name, struct http_target *target)
{
    struct member inside[] = { member_of("destination", value_get(v, name) != NULL ? *value_get(v, name) : value_map(NULL, 0)) };
    struct value wrapped = value_map(inside, 1);
    return migration_target(a, &wrapped, target) == NULL;
}

bool move_note_read(struct arena *a, const struct ledger_row *row, struct move *m)
{
    const struct value *v = &row->note, *disks = value_get(v, "disks");
    bool local = value_get_bool(v, "local", true);
    *m = (struct move){
        .id = row->id, .key = row->key, .kind = row->kind, .vm_uuid = row->vm_uuid,
        .vm = value_get_string(v, "vm", ""),
        .guest = (enum move_guest)value_get_int(v, "guest", 0),
        .from = value_get_string(v, "from", ""),
        .attempt = value_get_string(v, "attempt", ""),
        .final_uuid = value_get_string(v, "final_uuid", ""),
        .vm_there = value_get_string(v, "vm_there", ""),
        .cause = value_get_string(v, "cause", ""),
        .final_power = value_get_string(v, "power", ""),
        .final_domid = (int)value_get_int(v, "domid", -1),
        .options = { .copy = value_get_bool(v, "copy", false), .keep_source = value_get_bool(v, "keep_source", false),
                     .paused = value_get_bool(v, "paused", false), .persistent = value_get_bool(v, "persistent", true) },
        .destination = { .ops = local ? &destination_local : &destination_remote, .host = value_get_string(v, "host", ""),
                         .host_uuid = value_get_string(v, "host_uuid", "") },
    };
    if (m->vm[0] == '\0' || disks == NULL || disks->kind != VALUE_SET)
        return false;
    m->n_disks = disks->len;
    m->disks = arena_calloc(a, disks->len + 1, sizeof *m->disks);
    for (unsigned i = 0; i < disks->len; i++)
        disk_read(&disks->items[i], &m->disks[i]);
    return target_read(a, v, "destination", &m->destination.target) && (local || target_read(a, v, "master", &m->destination.master));
}
