#include "xapi/metadata/import.h"

#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"

const char *import_ref(const struct importer *m, const char *id)
{
    const struct ova_object *o = ova_find(&m->ova, id);
    return o != NULL ? m->refs[o - m->ova.objects] : NULL;
}

void import_set_ref(struct importer *m, const struct ova_object *o, const char *ref) { m->refs[o - m->ova.objects] = ref; }

/* --- rows of objects ------------------------------------------------------------------------------------------- */
static bool has_refs(const struct type_info *t)
{
    return t->kind == TYPE_REF || (t->item != NULL && has_refs(t->item)) || (t->key != NULL && has_refs(t->key));
}

static bool is_taken(const struct class_info *class, unsigned field, const unsigned *skip, const struct field_value *changes, unsigned n)
{
    const struct field_info *info = &class->fields[field];

    if (field == 0 || (info->flags & (FIELD_INVERSE | FIELD_UNPUBLISHED)) != 0 || has_refs(info->type))
        return false;
    if (strcmp(info->name, "allowed_operations") == 0 || strcmp(info->name, "current_operations") == 0)
        return false;
    for (unsigned i = 0; skip != NULL && skip[i] != 0; i++)
        if (skip[i] == field)
            return false;
    for (unsigned i = 0; i < n; i++)
        if (changes[i].field == field)
            return false;
    return true;
}

struct error *import_row(struct importer *m, unsigned class_id, const char *uuid, const struct ova_object *o, const unsigned *skip,
                         const struct field_value *changes, unsigned n_changes, const char **ref_r)
{
    const struct class_info *class = &model_classes[class_id];
    struct field_value *fields = arena_calloc(m->c->arena, class->n_fields + n_changes, sizeof(*fields));
    unsigned n = 0;

    for (unsigned i = 0; i < class->n_fields; i++)
        if (is_taken(class, i, skip, changes, n_changes) && ova_field(m->c->arena, o, &class->fields[i], &fields[n].value))
            fields[n++].field = i;
    for (unsigned i = 0; i < n_changes; i++)
        fields[n++] = changes[i];
    TRY(txn_create(m->txn, class_id, NULL, uuid, fields, n, ref_r));
    import_set_ref(m, o, *ref_r);
    return NULL;
}

struct value import_other_config(struct importer *m, const struct ova_object *o)
{
    static const struct type_info text = { .kind = TYPE_STRING }, map = { .kind = TYPE_MAP, .key = &text, .item = &text };
    static const struct field_info field = { .name = "other_config", .type = &map };
    struct value_dict d = { 0 };
    struct value v;

    if (!ova_field(m->c->arena, o, &field, &v))
        return value_dict_value(&d);
    for (unsigned i = 0; i < v.len; i++) {
        const char *key = v.members[i].name;
        if (strcmp(key, METADATA_MAPS_TO) != 0 && strcmp(key, METADATA_INCOMING) != 0 && strcmp(key, METADATA_INCOMING_HA) != 0)
            value_dict_set(m->c->arena, &d, key, v.members[i].value);
    }
    return value_dict_value(&d);
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */
/* What is replaced, and what an earlier attempt of the same migration has left, goes. */
static struct error *replace(struct importer *m)
{
    for (unsigned i = 0; i < m->n_vms; i++)
        if (m->vms[i].replaces != NULL)
            TRY(vm_rows_delete(m->txn, m->c->arena, m->vms[i].replaces));
    struct row_list left = txn_all(m->txn, &model_classes[CLASS_VM]);
    for (unsigned i = 0; m->in->incoming != NULL && i < left.n; i++)
        if (strcmp(row_map(left.rows[i], F_VM_other_config, METADATA_INCOMING, ""), m->in->incoming) == 0)
            TRY(vm_rows_delete(m->txn, m->c->arena, left.rows[i]));
    return NULL;
}

/* Snapshots of a VM that is replaced and that do not come along stay snapshots of it. */
static struct error *readopt(struct importer *m, const struct imported_vm *vm)
{
    struct row_list all = txn_all(m->txn, &model_classes[CLASS_VM]);

    for (unsigned i = 0; vm->replaces != NULL && i < all.n; i++) {
        if (strcmp(row_string(all.rows[i], F_VM_snapshot_of), vm->replaces->ref) == 0)
            TRY(txn_set_string(m->txn, CLASS_VM, all.rows[i]->ref, F_VM_snapshot_of, vm->ref));
        if (strcmp(row_string(all.rows[i], F_VM_parent), vm->replaces->ref) == 0)
            TRY(txn_set_string(m->txn, CLASS_VM, all.rows[i]->ref, F_VM_parent, vm->ref));
    }
    return NULL;
}

static struct error *make_all(struct importer *m)
{
    for (unsigned i = 0; i < m->n_vms; i++)
        TRY(import_vm_make(m, &m->vms[i]));
    TRY(import_devices(m));
    for (unsigned i = 0; i < m->n_vms; i++)
        TRY(import_check_host(m, &m->vms[i]));
    for (unsigned i = 0; i < m->n_vms; i++) {
        TRY(import_vm_link(m, &m->vms[i]));
        TRY(readopt(m, &m->vms[i]));
    }
    for (unsigned i = 0; i < m->n_vms && !m->in->dry_run; i++)
        TRY(operations_update_around(m->c, m->txn, CLASS_VM, m->vms[i].ref));
    return fault_hit("metadata.import.rows") ? err_internal(m->c->arena, "fault point metadata.import.rows") : NULL;
}

static struct error *run(struct importer *m)
{
    m->refs = arena_calloc(m->c->arena, m->ova.n + 1u, sizeof(*m->refs));
    m->vms = arena_calloc(m->c->arena, m->ova.n + 1u, sizeof(*m->vms));
    m->vm_of = arena_calloc(m->c->arena, m->ova.n + 1u, sizeof(*m->vm_of));
    TRY(import_find(m));
    TRY(import_choose(m));
    TRY(import_check_seeds(m));
    TRY(replace(m));
    return make_all(m);
}

struct error *metadata_read(struct api_call *c, const struct metadata_import *in, const void *tar, size_t len, const char *const **vms_r, unsigned *n_r)
{
    struct importer m = { .c = c, .in = in };
    const char *xml;
    size_t xml_len;

    TRY(ova_tar_xml(c->arena, tar, len, &xml, &xml_len));
    TRY(ova_read(c->arena, xml, xml_len, &m.ova));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    m.txn = txn;
    TRY(run(&m));
    const char **vms = arena_calloc(c->arena, m.n_vms + 1u, sizeof(*vms));
    *n_r = 0;
    *vms_r = vms;
    if (in->dry_run)
        return NULL;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < m.n_vms; i++)
            if (m.vms[i].is_snapshot == (round == 1))
                vms[(*n_r)++] = arena_strdup(c->arena, m.vms[i].ref);
    return txn_commit(txn, NULL);
}
