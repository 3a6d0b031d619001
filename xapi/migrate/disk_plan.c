#include "xapi/migrate/disk_plan.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/sr_there.h"

LOG_MODULE(disk_plan);

struct item { struct move_disk disk; int64_t snapshot_time; unsigned place; };

struct planner {
    struct api_call *c;
    struct move *m;
    const struct value *map, *formats;
    struct srs_there there;
    struct item *items;
    unsigned n, cap;
    struct value_list eject;
};

static const struct row *get(struct planner *p, unsigned class_id, const char *ref)
{
    return db_get(p->c->db, p->c->arena, &model_classes[class_id], ref);
}

static struct move_disk *planned(struct planner *p, const char *vdi)
{
    for (unsigned i = 0; i < p->n; i++)
        if (strcmp(p->items[i].disk.vdi, vdi) == 0)
            return &p->items[i].disk;
    return NULL;
}

/* --- where to ---------------------------------------------------------------------------------------------------- */
static struct error *mapped(struct planner *p, const char *vdi, const struct sr_there **sr_r)
{
    const char *ref = value_get_string(p->map, vdi, NULL);

    *sr_r = NULL;
    if (ref == NULL)
        return NULL;
    *sr_r = sr_there_by_ref(&p->there, ref);
    if (*sr_r == NULL)
        return err_handle_invalid(p->c->arena, "SR", ref);
    return (*sr_r)->pbd != NULL ? NULL : err_vm_requires_sr(p->c->arena, p->m->vm, ref);
}

static const struct sr_there *plugged(const struct sr_there *sr)
{
    return sr != NULL && sr->attached ? sr : NULL;
}

static const struct sr_there *same_there(struct planner *p, const struct row *sr)
{
    return plugged(sr_there_by_uuid(&p->there, row_string(sr, F_SR_uuid)));
}

static const struct sr_there *similar_there(struct planner *p, const struct row *sr)
{
    const struct sr_there *like = sr_there_like(&p->there, row_string(sr, F_SR_name_label), row_string(sr, F_SR_type));

    return like != NULL ? like : plugged(sr_there_by_ref(&p->there, p->there.default_sr));
}

/* What nobody mapped; NULL: there is no place for it. */
static const struct sr_there *unmapped(struct planner *p, const struct row *vdi, const struct row *sr, const struct move_disk *d)
{
    const struct sr_there *found = NULL;

    if (d->is_snapshot && !d->is_suspend_image) {
        const struct move_disk *original = planned(p, row_string(vdi, F_VDI_snapshot_of));
        if (original != NULL && original->how != MOVE_DISK_STAYS && original->target_sr != NULL)
            return sr_there_by_ref(&p->there, original->target_sr);
    }
    found = same_there(p, sr);
    if (found == NULL && d->is_suspend_image)
        found = plugged(sr_there_by_ref(&p->there, p->there.pool_suspend_sr));
    if (found == NULL && d->is_suspend_image)
        found = plugged(sr_there_by_ref(&p->there, p->there.host_suspend_sr));
    return found != NULL ? found : similar_there(p, sr);
}

/* --- is it there already? ------------------------------------------------------------------------------------------- */
static void is_target(struct move_disk *d, const struct sr_there *sr, const char *ref, const char *uuid, const char *location)
{
    d->how = MOVE_DISK_STAYS;
    d->target = ref;
    d->target_uuid = uuid;
    d->target_sr_uuid = sr->uuid;
    d->target_location = location;
}

static struct error *remote_vdi(struct planner *p, struct move_disk *d, const struct sr_there *sr, bool *found_r)
{
    struct api_call *c = p->c;
    const char *ref;
    struct value record;

    TRY(peer_pool_by_uuid(c, p->m->destination.peer, "VDI", d->uuid, &ref, found_r));
    if (*found_r)
        TRY(peer_pool_record(c, p->m->destination.peer, "VDI", ref, &record, found_r));
    *found_r = *found_r && strcmp(value_get_string(&record, "SR", ""), sr->ref) == 0;
    if (*found_r)
        is_target(d, sr, ref, d->uuid, value_get_string(&record, "location", ""));
    return NULL;
}

/* The other pool may not have looked at a shared SR for a while. */
static struct error *remote_stays(struct planner *p, struct move_disk *d, const struct sr_there *sr)
{
    struct value param = value_string(sr->ref), ignored;
    bool found;

    TRY(remote_vdi(p, d, sr, &found));
    if (found)
        return NULL;
    struct error *e = peer_pool_call(p->c, p->m->destination.peer, "SR.scan", &param, 1, &ignored);
    if (e != NULL)
        log_info("SR %s of the destination could not be scanned: %s", sr->uuid, error_text(p->c->arena, e));
    TRY(remote_vdi(p, d, sr, &found));
    return found ? NULL : err_internal(p->c->arena, "SR UUID matches on destination but VDI does not exist");
}

static struct error *settle(struct planner *p, const struct row *vdi, struct move_disk *d, const struct sr_there *sr)
{
    bool remote = p->m->destination.peer != NULL, written = d->how == MOVE_DISK_MIRROR;

    d->target_sr = sr->ref;
    d->target_sr_uuid = sr->uuid;
    if (!remote) {
        if (strcmp(sr->ref, d->sr) == 0 && !sr->attached)
            return err_vm_requires_sr(p->c->arena, p->m->vm, sr->ref);
        if (strcmp(sr->ref, d->sr) == 0)
            is_target(d, sr, vdi->ref, d->uuid, d->location);
        return NULL;
    }
    if (strcmp(sr->uuid, d->sr_uuid) != 0 || (p->m->options.copy && written) || !config_bool(p->c->xapi->config, "relax-xsm-sr-check"))
        return NULL;
    return remote_stays(p, d, sr);
}

/* --- disks ------------------------------------------------------------------------------------------------------------ */
static struct move_disk *item_add(struct planner *p, const struct row *vdi, const struct row *sr, enum move_disk_how how)
{
    if (p->n == p->cap) {
        struct item *grown = arena_calloc(p->c->arena, p->cap * 2 + 8, sizeof *grown);
        if (p->n > 0)
            memcpy(grown, p->items, p->n * sizeof *grown);
        p->items = grown;
        p->cap = p->cap * 2 + 8;
    }
    struct item *it = &p->items[p->n];
    *it = (struct item){
        .disk = { .vdi = vdi->ref, .uuid = row_string(vdi, F_VDI_uuid), .sr = sr->ref, .sr_uuid = row_string(sr, F_SR_uuid),
                  .location = row_string(vdi, F_VDI_location), .size = row_int(vdi, F_VDI_virtual_size), .how = how,
                  .format = value_get_string(p->formats, vdi->ref, "") },
        .snapshot_time = row_value(vdi, F_VDI_snapshot_time)->i,
        .place = p->n,
    };
    p->n++;
    return &it->disk;
}

enum kind { OWN, OF_SNAPSHOT, IMAGE, IMAGE_OF_SNAPSHOT };

static struct error *add(struct planner *p, const char *ref, enum kind kind, enum move_disk_how how)
{
    const struct row *vdi = get(p, CLASS_VDI, ref), *sr = vdi != NULL ? get(p, CLASS_SR, row_string(vdi, F_VDI_SR)) : NULL;
    const struct sr_there *to;
    struct move_disk *d;

    if (sr == NULL)
        return NULL; /* a reference that dangles */
    d = planned(p, ref);
    if (d != NULL) {
        if (d->how == MOVE_DISK_COPY)
            d->how = how; /* of two devices one writes */
        return NULL;
    }
    TRY(mapped(p, ref, &to));
    d = item_add(p, vdi, sr, how);
    d->is_snapshot = kind == OF_SNAPSHOT || kind == IMAGE_OF_SNAPSHOT;
    d->is_suspend_image = kind == IMAGE || kind == IMAGE_OF_SNAPSHOT;
    if (to == NULL)
        to = unmapped(p, vdi, sr, d);
    if (to != NULL)
        return settle(p, vdi, d, to);
    return kind == OWN ? err_vdi_not_in_map(p->c->arena, ref) : NULL;
}

/* --- CDs ---------------------------------------------------------------------------------------------------------------- */
/* The same medium in another pool: the guest tools, or the same file of an SR that both pools have. */
static struct error *find_medium(struct planner *p, const struct row *vdi, struct move_disk *d, const struct sr_there *sr, bool *found_r)
{
    struct api_call *c = p->c;
    const char *location = row_string(vdi, F_VDI_location), *query;
    struct value param, records;

    *found_r = false;
    if (row_bool(vdi, F_VDI_is_tools_iso))
        query = "field \"is_tools_iso\" = \"true\"";
    else if (sr != NULL && strpbrk(location, "\"\\") == NULL)
        query = arena_printf(c->arena, "field \"SR\" = \"%s\" and field \"location\" = \"%s\"", sr->ref, location);
    else
        return NULL;
    param = value_string(query);
    TRY(peer_pool_call(c, p->m->destination.peer, "VDI.get_all_records_where", &param, 1, &records));
    if (records.kind != VALUE_MAP || records.len == 0)
        return NULL;
    const struct value *record = &records.members[0].value;
    sr = sr_there_by_ref(&p->there, value_get_string(record, "SR", ""));
    if (sr == NULL)
        return NULL;
    d->target_sr = sr->ref;
    is_target(d, sr, records.members[0].name, value_get_string(record, "uuid", ""), value_get_string(record, "location", ""));
    *found_r = true;
    return NULL;
}

static struct error *cd_follows(struct planner *p, const struct row *vdi, struct move_disk *d, const struct row *sr, bool *follows_r)
{
    const struct sr_there *to;

    *follows_r = true;
    TRY(mapped(p, vdi->ref, &to));
    if (to != NULL)
        return settle(p, vdi, d, to);
    to = same_there(p, sr);
    if (p->m->destination.peer != NULL)
        return find_medium(p, vdi, d, to, follows_r);
    *follows_r = to != NULL;
    return to != NULL ? settle(p, vdi, d, to) : NULL;
}

/* A medium that stays behind is nothing that a suspended guest can be told. */
static struct error *add_cd(struct planner *p, const struct row *vbd, bool own)
{
    const struct row *vdi = get(p, CLASS_VDI, row_string(vbd, F_VBD_VDI)), *sr = vdi != NULL ? get(p, CLASS_SR, row_string(vdi, F_VDI_SR)) : NULL;
    bool follows;

    if (sr == NULL || planned(p, vdi->ref) != NULL)
        return NULL;
    struct move_disk *d = item_add(p, vdi, sr, MOVE_DISK_COPY);
    d->is_snapshot = !own;
    TRY(cd_follows(p, vdi, d, sr, &follows));
    if (follows)
        return NULL;
    p->n--;
    if (!own)
        log_info("the medium %s of a snapshot does not follow it", row_string(vdi, F_VDI_uuid));
    else if (p->m->options.eject_cds && p->m->guest != MOVE_SUSPENDED)
        value_list_add(p->c->arena, &p->eject, value_string(vbd->ref));
    else
        return err_vdi_not_in_map(p->c->arena, vdi->ref);
    return NULL;
}

/* --- VMs ---------------------------------------------------------------------------------------------------------------- */
static struct error *add_vm(struct planner *p, const struct row *vm, bool own)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = get(p, CLASS_VBD, vbds->items[i].s);
        if (vbd == NULL || row_bool(vbd, F_VBD_empty))
            continue;
        if (strcmp(row_string(vbd, F_VBD_type), "CD") == 0)
            TRY(add_cd(p, vbd, own));
        else
            TRY(add(p, row_string(vbd, F_VBD_VDI), own ? OWN : OF_SNAPSHOT,
                    own && strcmp(row_string(vbd, F_VBD_mode), "RW") == 0 ? MOVE_DISK_MIRROR : MOVE_DISK_COPY));
    }
    return NULL;
}

static struct error *add_image(struct planner *p, const struct row *vm, bool own)
{
    if (strcmp(row_string(vm, F_VM_power_state), "Suspended") != 0 || ref_is_null(row_string(vm, F_VM_suspend_VDI)))
        return NULL;
    return add(p, row_string(vm, F_VM_suspend_VDI), own ? IMAGE : IMAGE_OF_SNAPSHOT, MOVE_DISK_COPY);
}

static struct error *add_all(struct planner *p)
{
    const struct row *vm;

    TRY(db_need(p->c->db, p->c->arena, CLASS_VM, p->m->vm, &vm));
    TRY(add_vm(p, vm, true));
    TRY(add_image(p, vm, true));
    const struct value *snapshots = row_value(vm, F_VM_snapshots);
    for (unsigned i = 0; !p->m->options.copy && i < snapshots->len; i++) {
        const struct row *snapshot = get(p, CLASS_VM, snapshots->items[i].s);
        if (snapshot == NULL)
            continue;
        TRY(add_vm(p, snapshot, false));
        TRY(add_image(p, snapshot, false));
    }
    return NULL;
}

/* --- the result ----------------------------------------------------------------------------------------------------------- */
static int by_size(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->disk.size != y->disk.size)
        return x->disk.size < y->disk.size ? -1 : 1;
    if (x->snapshot_time != y->snapshot_time)
        return x->snapshot_time < y->snapshot_time ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

struct error *disk_plan_make(struct api_call *c, struct move *m, const struct value *vdi_map, const struct value *format_map,
                             const char *const **eject_r, unsigned *n_eject_r)
{
    struct planner p = { .c = c, .m = m, .map = vdi_map, .formats = format_map };

    TRY(srs_there_read(c, m, &p.there));
    TRY(add_all(&p));
    if (p.n > 0)
        qsort(p.items, p.n, sizeof *p.items, by_size);
    m->disks = arena_calloc(c->arena, p.n + 1, sizeof *m->disks);
    m->n_disks = p.n;
    for (unsigned i = 0; i < p.n; i++)
        m->disks[i] = p.items[i].disk;
    const char **eject = arena_calloc(c->arena, p.eject.n + 1, sizeof *eject);
    for (unsigned i = 0; i < p.eject.n; i++)
        eject[i] = p.eject.items[i].s;
    *eject_r = eject;
    *n_eject_r = p.eject.n;
    return NULL;
}
