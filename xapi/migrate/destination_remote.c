/* A move to another pool: its coordinator does there what destination_local.c does here, asked by the verbs of incoming.h;
 * the VM's records go as metadata (xapi/metadata/metadata.h). */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/xapi.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/disk_sink.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/move_note.h"
#include "xapi/pool/vdi_rows.h"

static bool comes(const struct move_disk *d)
{
    return d->how != MOVE_DISK_STAYS;
}

/* A verb of the other coordinator: by the session until it knows the key, then by the key. */
static struct error *ask(struct api_call *c, const struct move *m, const char *verb, const struct value *args, struct value *result_r)
{
    return agent_call_at(&c->call, c->xapi, &m->destination.master, verb, args, result_r);
}

/* --- open -------------------------------------------------------------------------------------------------------- */
static struct value disk_wish(struct api_call *c, const struct move_disk *d, const struct row *vdi)
{
    struct value_dict v = { 0 };
    value_dict_add(c->arena, &v, "id", value_string(d->vdi));
    value_dict_add(c->arena, &v, "sr", value_string(d->target_sr));
    value_dict_add(c->arena, &v, "size", value_int(d->size));
    value_dict_add(c->arena, &v, "format", value_string(move_disk_format(d)));
    value_dict_add(c->arena, &v, "chosen", vdi_row_chosen(c->arena, vdi));
    value_dict_add(c->arena, &v, "snapshot", value_bool(d->is_snapshot));
    value_dict_add(c->arena, &v, "snapshot_time", value_string(d->is_snapshot ? arena_printf(c->arena, "%lld",
                   (long long)row_value(vdi, F_VDI_snapshot_time)->i) : ""));
    value_dict_add(c->arena, &v, "on_boot", value_string(row_string(vdi, F_VDI_on_boot)));
    return value_dict_value(&v);
}

static struct error *open_args(struct api_call *c, const struct move *m, struct value *args_r)
{
    const struct row *vm, *from;
    struct value_list disks = { 0 };
    struct value_dict args = { 0 };
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    TRY(db_need(c->db, c->arena, CLASS_host, m->from, &from));
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct row *vdi;
        if (!comes(&m->disks[i]))
            continue;
        TRY(db_need(c->db, c->arena, CLASS_VDI, m->disks[i].vdi, &vdi));
        value_list_add(c->arena, &disks, disk_wish(c, &m->disks[i], vdi));
    }
    value_dict_add(c->arena, &args, "migration_id", value_string(m->id));
    value_dict_add(c->arena, &args, "key", value_string(m->key));
    value_dict_add(c->arena, &args, "vm", value_string(m->vm_uuid));
    value_dict_add(c->arena, &args, "vm_name", value_string(row_string(vm, F_VM_name_label)));
    value_dict_add(c->arena, &args, "host", value_string(m->destination.host));
    value_dict_add(c->arena, &args, "from", value_string(row_string(from, F_host_uuid)));
    value_dict_add(c->arena, &args, "from_name", value_string(row_string(from, F_host_name_label)));
    value_dict_add(c->arena, &args, "disks", value_list_value(&disks));
    *args_r = value_dict_value(&args);
    return NULL;
}

static struct error *take_disk(struct api_call *c, const struct move *m, const struct value *made, struct move_disk *d)
{
    const struct value *v = value_get(made, d->vdi);
    struct http_target sink = m->destination.target;
    if (v == NULL || v->kind != VALUE_MAP)
        return err_internal(c->arena, "the destination has made no disk for %s", d->uuid);
    d->target = value_get_string(v, "target", NULL);
    d->target_uuid = value_get_string(v, "uuid", "");
    d->target_sr_uuid = value_get_string(v, "sr_uuid", "");
    d->target_location = value_get_string(v, "location", "");
    d->uri = disk_sink_uri(c->arena, &sink, m->vm_uuid, d->target_sr_uuid, d->target_location);
    return NULL;
}

static struct error *remote_open(struct api_call *c, struct move *m)
{
    struct value args, result;
    const char *key = arena_printf(c->arena, "migration_key=%s", m->key);
    TRY(open_args(c, m, &args));
    m->destination.master.cookie = m->destination.target.cookie = key; /* which it learns now, also when its answer is lost */
    TRY(peer_pool_verb(c, m->destination.peer, "incoming.open", &args, &result));
    peer_pool_keep(m->destination.peer, c->xapi);
    const struct value *made = value_get(&result, "disks");
    for (unsigned i = 0; i < m->n_disks; i++)
        if (comes(&m->disks[i]))
            TRY(take_disk(c, m, made, &m->disks[i]));
    return move_note_put(c, m, "open");
}

/* --- admit ------------------------------------------------------------------------------------------------------- */
static struct value maps_to(struct api_call *c, const struct move *m)
{
    struct value_dict v = { 0 };
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].target != NULL)
            value_dict_add(c->arena, &v, m->disks[i].vdi, value_string(m->disks[i].target));
    for (unsigned i = 0; i < m->n_vifs; i++)
        value_dict_add(c->arena, &v, m->vifs[i].vif, value_string(m->vifs[i].network));
    for (unsigned i = 0; i < m->n_vgpus; i++)
        value_dict_add(c->arena, &v, m->vgpus[i].vgpu, value_string(m->vgpus[i].group));
    return value_dict_value(&v);
}

static struct error *send_metadata(struct api_call *c, struct move *m)
{
    struct value maps = maps_to(c, m);
    const char *vms[] = { m->vm }, *const *made;
    unsigned n = 0;
    const struct metadata_export out = { .vms = vms, .n_vms = 1, .snapshots = !m->options.copy, .preserve_power_state = true, .maps_to = &maps };
    const struct metadata_import in = { .restore = !m->options.copy, .live = m->guest == MOVE_RUNNING, .check_cpu = !m->options.force && m->guest != MOVE_HALTED,
                                        .force = m->options.force, .snapshots = !m->options.copy, .host = m->destination.host, .incoming = m->id };
    TRY(metadata_send(c, peer_pool_master(m->destination.peer), peer_pool_session(m->destination.peer), &out, &in, &made, &n));
    if (n == 0)
        return err_internal(c->arena, "the destination has made no VM");
    m->vm_there = made[0];
    return NULL;
}

/* The devices that are plugged in now; of a VM that does not run, none. */
static struct value plugged(struct api_call *c, const struct move *m, unsigned class_id, unsigned refs_field, unsigned attached, unsigned name)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm);
    struct value_list list = { 0 };
    for (unsigned i = 0; vm != NULL && i < row_value(vm, refs_field)->len; i++) {
        const struct row *device = db_get(c->db, c->arena, &model_classes[class_id], row_value(vm, refs_field)->items[i].s);
        if (device != NULL && row_bool(device, attached))
            value_list_add(c->arena, &list, value_string(row_string(device, name)));
    }
    return value_list_value(&list);
}

static struct error *remote_admit(struct api_call *c, struct move *m)
{
    struct value result;
    TRY(send_metadata(c, m));
    struct member members[] = {
        member_of("migration_id", value_string(m->id)),
        member_of("vm", value_string(m->vm_there)),
        member_of("running", value_bool(m->guest == MOVE_RUNNING)),
        member_of("persistent", value_bool(m->options.persistent)),
        member_of("vbds", plugged(c, m, CLASS_VBD, F_VM_VBDs, F_VBD_currently_attached, F_VBD_userdevice)),
        member_of("vifs", plugged(c, m, CLASS_VIF, F_VM_VIFs, F_VIF_currently_attached, F_VIF_device)),
    };
    struct value args = value_map(members, ARRAY_LEN(members));
    TRY(ask(c, m, "incoming.admit", &args, &result));
    const struct value *spec = value_get(&result, "spec"), *disks = value_get(&result, "disks");
    m->final_uuid = value_get_string(&result, "final_uuid", m->vm_uuid);
    m->spec = spec != NULL ? *spec : value_map(NULL, 0);
    m->destination_disks = disks != NULL ? *disks : value_set(NULL, 0);
    return NULL;
}

/* --- commit and abort ----------------------------------------------------------------------------------------------- */
static struct error *remote_commit(struct api_call *c, struct move *m, const char *power, int domid)
{
    struct member members[] = {
        member_of("migration_id", value_string(m->id)), member_of("power", value_string(power)), member_of("domid", value_int(domid)),
    };
    struct value args = value_map(members, ARRAY_LEN(members)), result;
    TRY(ask(c, m, "incoming.commit", &args, &result));
    m->vm_there = value_get_string(&result, "vm", m->vm_there);
    return NULL;
}

static struct error *remote_abort(struct api_call *c, struct move *m)
{
    struct member members[] = { member_of("migration_id", value_string(m->id)) };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;
    struct error *e = ask(c, m, "incoming.abort", &args, &ignored);
    return error_is(e, "SESSION_AUTHENTICATION_FAILED") ? NULL : e; /* who does not know the key knows nothing of the migration */
}

const struct destination_ops destination_remote = { "remote", remote_open, remote_admit, remote_commit, remote_abort };
