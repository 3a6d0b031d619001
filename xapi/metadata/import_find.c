/* What objects of a file are in this pool. */
#include <strings.h>

#include "rpc/base/uuid.h"
#include "xapi/metadata/import.h"

static bool is(const struct ova_object *o, const char *class_name) { return strcmp(o->class_name, class_name) == 0; }

static const struct row *by_uuid(struct importer *m, unsigned class_id, const char *uuid)
{
    return uuid_valid(uuid) ? txn_by_uuid(m->txn, &model_classes[class_id], uuid) : NULL;
}

static const char *ref_of(const struct row *row) { return row != NULL ? row->ref : NULL; }

/* The first row of the class whose text field is this. */
static const struct row *by_text(struct importer *m, unsigned class_id, unsigned field, const char *text)
{
    struct row_list all = txn_all(m->txn, &model_classes[class_id]);

    for (unsigned i = 0; text[0] != '\0' && i < all.n; i++)
        if (strcmp(row_string(all.rows[i], field), text) == 0)
            return all.rows[i];
    return NULL;
}

/* A row by ref or uuid, as parameters name things. */
static const struct row *named(struct importer *m, unsigned class_id, const char *name)
{
    const struct row *row = txn_get(m->txn, &model_classes[class_id], name);
    return row != NULL ? row : by_uuid(m, class_id, name);
}

/* --- disks ------------------------------------------------------------------------------------------------------ */
static bool is_iso_sr(const char *content_type, const char *type) { return strcmp(content_type, "iso") == 0 || strcmp(type, "iso") == 0; }

static const struct row *in_sr(struct importer *m, const char *sr, const char *location)
{
    struct row_list all = txn_all(m->txn, &model_classes[CLASS_VDI]);

    for (unsigned i = 0; sr != NULL && location[0] != '\0' && i < all.n; i++)
        if (strcmp(row_string(all.rows[i], F_VDI_SR), sr) == 0 && strcmp(row_string(all.rows[i], F_VDI_location), location) == 0)
            return all.rows[i];
    return NULL;
}

/* In any SR for ISOs: the same file, else one of the same name. */
static const struct row *find_iso(struct importer *m, const struct ova_object *o)
{
    const char *location = ova_string(o, "location", ""), *name = ova_string(o, "name_label", "");
    struct row_list srs = txn_all(m->txn, &model_classes[CLASS_SR]), vdis = txn_all(m->txn, &model_classes[CLASS_VDI]);
    const struct row *found = NULL;

    for (unsigned s = 0; s < srs.n; s++) {
        if (!is_iso_sr(row_string(srs.rows[s], F_SR_content_type), row_string(srs.rows[s], F_SR_type)))
            continue;
        for (unsigned i = 0; i < vdis.n; i++) {
            if (strcmp(row_string(vdis.rows[i], F_VDI_SR), srs.rows[s]->ref) != 0)
                continue;
            if (location[0] != '\0' && strcmp(row_string(vdis.rows[i], F_VDI_location), location) == 0)
                return vdis.rows[i];
            if (found == NULL && name[0] != '\0' && strcmp(row_string(vdis.rows[i], F_VDI_name_label), name) == 0)
                found = vdis.rows[i];
        }
    }
    return found;
}

/* The caller's own word for a disk: another disk, or the SR to look in. */
static const char *mapped_by_caller(struct importer *m, const struct ova_object *o)
{
    const char *keys[] = { ova_string(o, "uuid", ""), o->id };

    for (unsigned i = 0; m->in->vdi_map != NULL && i < ARRAY_LEN(keys); i++) {
        const char *to = value_get_string(m->in->vdi_map, keys[i], NULL);
        if (to != NULL)
            return to;
    }
    return NULL;
}

static const char *default_sr(struct importer *m)
{
    struct row_list pools = txn_all(m->txn, &model_classes[CLASS_pool]);
    return pools.n > 0 ? row_string(pools.rows[0], F_pool_default_SR) : NULL;
}

static const char *find_vdi(struct importer *m, const struct ova_object *o)
{
    const struct ova_object *sr_object = ova_find(&m->ova, ova_string(o, "SR", ""));
    const char *maps_to = ova_map(o, "other_config", METADATA_MAPS_TO, NULL), *mine = mapped_by_caller(m, o);
    const char *sr = import_ref(m, ova_string(o, "SR", "")), *location = ova_string(o, "location", "");
    const struct row *row = mine != NULL ? named(m, CLASS_VDI, mine) : NULL;

    if (maps_to != NULL)
        return ref_of(txn_get(m->txn, &model_classes[CLASS_VDI], maps_to));
    if (row == NULL)
        row = by_uuid(m, CLASS_VDI, ova_string(o, "uuid", ""));
    if (row == NULL && mine != NULL && named(m, CLASS_SR, mine) != NULL)
        sr = named(m, CLASS_SR, mine)->ref;
    if (row == NULL)
        row = in_sr(m, sr != NULL ? sr : default_sr(m), location);
    if (row == NULL && sr_object != NULL && is_iso_sr(ova_string(sr_object, "content_type", ""), ova_string(sr_object, "type", "")))
        row = find_iso(m, o);
    return ref_of(row);
}

struct error *import_disk(struct importer *m, const char *id, const char **ref_r)
{
    const struct ova_object *o = ova_find(&m->ova, id);
    bool promised = o != NULL && ova_map(o, "other_config", METADATA_MAPS_TO, NULL) != NULL; /* no force makes up for that */

    *ref_r = import_ref(m, id);
    if (*ref_r != NULL || m->in->dry_run || (import_forced(m) && !promised))
        return NULL;
    return err_import_error_failed_to_find_object(m->c->arena, id);
}

/* --- the rest ------------------------------------------------------------------------------------------------------ */
static const char *find_network(struct importer *m, const struct ova_object *o)
{
    const struct row *row = by_uuid(m, CLASS_network, ova_string(o, "uuid", ""));

    if (row == NULL)
        row = by_text(m, CLASS_network, F_network_name_label, ova_string(o, "name_label", ""));
    if (row == NULL)
        row = by_text(m, CLASS_network, F_network_bridge, ova_string(o, "bridge", ""));
    return ref_of(row);
}

static const char *find_gpu_group(struct importer *m, const struct ova_object *o)
{
    const struct row *row = by_uuid(m, CLASS_GPU_group, ova_string(o, "uuid", ""));
    struct row_list all = txn_all(m->txn, &model_classes[CLASS_GPU_group]);
    struct value types;

    if (row != NULL || !ova_field(m->c->arena, o, &model_classes[CLASS_GPU_group].fields[F_GPU_group_GPU_types], &types))
        return ref_of(row);
    for (unsigned i = 0; types.len > 0 && i < all.n; i++)
        if (value_equal(row_value(all.rows[i], F_GPU_group_GPU_types), &types))
            return all.rows[i]->ref;
    return NULL;
}

static const char *find_vgpu_type(struct importer *m, const struct ova_object *o)
{
    const struct row *row = by_uuid(m, CLASS_VGPU_type, ova_string(o, "uuid", ""));
    struct row_list all = txn_all(m->txn, &model_classes[CLASS_VGPU_type]);

    for (unsigned i = 0; row == NULL && i < all.n; i++)
        if (strcmp(row_string(all.rows[i], F_VGPU_type_vendor_name), ova_string(o, "vendor_name", "")) == 0 &&
            strcmp(row_string(all.rows[i], F_VGPU_type_model_name), ova_string(o, "model_name", "")) == 0)
            row = all.rows[i];
    return ref_of(row);
}

static const char *find_host(struct importer *m, const struct ova_object *o) { return ref_of(by_uuid(m, CLASS_host, ova_string(o, "uuid", ""))); }
static const char *find_sr(struct importer *m, const struct ova_object *o) { return ref_of(by_uuid(m, CLASS_SR, ova_string(o, "uuid", ""))); }

/* A disk made for this migration is what the sender says of its place in the past. */
static struct error *link_vdi(struct importer *m, const struct ova_object *o)
{
    const char *ref = m->refs[o - m->ova.objects], *of = import_ref(m, ova_string(o, "snapshot_of", ""));
    struct value at;

    if (ref == NULL || ova_map(o, "other_config", METADATA_MAPS_TO, NULL) == NULL || !ova_bool(o, "is_a_snapshot"))
        return NULL;
    TRY(txn_set_bool(m->txn, CLASS_VDI, ref, F_VDI_is_a_snapshot, true));
    if (ova_field(m->c->arena, o, &model_classes[CLASS_VDI].fields[F_VDI_snapshot_time], &at))
        TRY(txn_set(m->txn, CLASS_VDI, ref, F_VDI_snapshot_time, at));
    return of != NULL && strcmp(of, ref) != 0 ? txn_set_string(m->txn, CLASS_VDI, ref, F_VDI_snapshot_of, of) : NULL;
}

struct error *import_find(struct importer *m)
{
    static const struct { const char *class_name; const char *(*find)(struct importer *, const struct ova_object *); } classes[] = {
        { "host", find_host }, { "SR", find_sr }, { "VDI", find_vdi }, { "network", find_network },
        { "GPU_group", find_gpu_group }, { "VGPU_type", find_vgpu_type },
    };

    for (unsigned k = 0; k < ARRAY_LEN(classes); k++)
        for (unsigned i = 0; i < m->ova.n; i++)
            if (is(&m->ova.objects[i], classes[k].class_name)) {
                const char *ref = classes[k].find(m, &m->ova.objects[i]);
                m->refs[i] = ref != NULL ? arena_strdup(m->c->arena, ref) : NULL;
            }
    for (unsigned i = 0; i < m->ova.n; i++)
        if (is(&m->ova.objects[i], "VDI"))
            TRY(link_vdi(m, &m->ova.objects[i]));
    return NULL;
}
